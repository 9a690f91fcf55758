"""Model folders in and out: headers, ranged reads, layer stacks, configs, shards, cards."""
