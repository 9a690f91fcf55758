"""The floor under any merge: read all of the inputs, write as much as the output has, and do nothing else.

    python benchmarks/floor.py OUT BASE FINETUNE...

Plain reads into one buffer and plain writes from it, one thread, no synchronisation with the disk.
"""

from __future__ import annotations

import sys
from pathlib import Path

BLOCK_BYTES = 8 << 20


def main() -> None:
    """Copy the first model's shards to OUT, and read the shards of the others."""
    out, base, *others = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    block = memoryview(bytearray(BLOCK_BYTES))
    for shard in sorted(base.glob("*.safetensors")):
        with shard.open("rb", buffering=0) as source, (out / shard.name).open("wb", buffering=0) as target:
            while count := source.readinto(block):
                target.write(block[:count])
    for model in others:
        for shard in sorted(model.glob("*.safetensors")):
            with shard.open("rb", buffering=0) as source:
                while source.readinto(block):
                    pass


if __name__ == "__main__":
    main()
