"""The engine: recipe, graph, tiling, memory, schedule, execution. Knows no file format and no merge mathematics."""
