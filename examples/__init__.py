"""Example recipes and the family of small models that `plait demo` merges."""
