"""The command line's options: what each is called, takes, and means; commands share them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .engine.errors import UsageError

Recipe = Annotated[str, typer.Argument(help="YAML recipe, or - for standard input.", metavar="RECIPE")]
Out = Annotated[Path | None, typer.Argument(help="New or empty folder; not needed with --dry-run.", metavar="OUT")]
Finished = Annotated[Path, typer.Argument(help="A finished folder, of this program or another one.", metavar="OUT")]
Models = Annotated[list[str], typer.Argument(help="Model folders.", metavar="MODEL")]
ModelA = Annotated[str, typer.Argument(help="Model folder; the reference.", metavar="A")]
ModelB = Annotated[str, typer.Argument(help="Model folder.", metavar="B")]
Report = Annotated[Path, typer.Argument(help="A finished folder of plait run.", metavar="OUT")]
MethodName = Annotated[str | None, typer.Argument(help="One method, in full.", metavar="NAME")]
DemoFolder = Annotated[
    Path | None, typer.Argument(help="Where the merged model goes; default ./demo-output.", metavar="DIR")
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Plan, predict, print the graph; write nothing.")]
Graphs = Annotated[
    list[Path] | None,
    typer.Option(
        "--graph",
        help="Write the graph, by suffix: .html, .svg, .dot, .mmd (Mermaid) or .json (repeatable).",
        metavar="FILE",
    ),
]
Expand = Annotated[bool, typer.Option("--expand", help="With --dry-run, --graph: every tensor, nothing folded.")]
Tensor = Annotated[
    str | None, typer.Option(help="With --dry-run, --graph: the op graph of one output tensor.", metavar="NAME")
]
Memory = Annotated[
    str | None,
    typer.Option(help="Bound on the peak resident memory of the process: 400MiB, 2GiB, 5GB.", metavar="SIZE"),
]
Workers = Annotated[int | None, typer.Option(min=1, help="CPU workers; default the usable cores.")]
Device = Annotated[
    str,
    typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps, xpu; auto is what ends first.", metavar="NAME"),
]
DeviceMemory = Annotated[
    str | None, typer.Option(help="Bound on what is taken of each device's memory.", metavar="SIZE")
]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes that share the work on this machine, and --memory and --workers.")
]
Seed = Annotated[int | None, typer.Option(help="For randomised methods; default the recipe's, else 0.")]
ShardSize = Annotated[str, typer.Option(help="Bytes a shard at most.", metavar="SIZE")]
Maps = Annotated[
    list[str] | None,
    typer.Option("--map", help="Use PATH wherever the recipe names REF (repeatable).", metavar="REF=PATH"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run; begin where there is none.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished folder.")]
AllowNonfinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="NaN and infinity in an input are let through; without it they stop the run, except in plain copies.",
    ),
]
Verify = Annotated[bool, typer.Option("--verify", help="Check the written folder; record its digests.")]
Profile = Annotated[
    bool, typer.Option("--profile", help="Where the time went, as a table and as a trace, OUT/plait-trace.json.gz.")
]
Digests = Annotated[bool, typer.Option("--hash", help="Compare the sha256 of the shards, too.")]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings about the recipe are errors.")]
Lenient = Annotated[bool, typer.Option("--lenient", help="Near misses in the recipe are warnings.")]
MovedMaps = Annotated[
    list[str] | None,
    typer.Option("--map", help="PATH is where the input REF of the run is now (repeatable).", metavar="REF=PATH"),
]
HeadersOnly = Annotated[bool, typer.Option("--headers-only", help="Read no tensors: only what is recorded.")]
Html = Annotated[
    Path | None, typer.Option(help="Write a page with all figures; needs no network to look at.", metavar="FILE")
]
Markdown = Annotated[
    bool, typer.Option("--markdown", help="The page of the docs, docs/methods.md; or NAME's section of it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say less.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more; stack traces.")]


def size(text: str | None, option: str) -> int | None:
    """Bytes of a size as it is written; None where it was not given. Raises UsageError."""
    from .engine.units import parse_size

    try:
        return parse_size(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def map_pairs(pairs: list[str]) -> dict[str, str]:
    """What --map was given, by reference. Raises UsageError."""
    found = {}
    for pair in pairs:
        # The last "=": a reference may hold one, a path that does can be linked.
        reference, separator, path = pair.rpartition("=")
        if not separator or not reference or not path:
            raise UsageError(f"--map {pair}: write REF=PATH")
        found[reference] = path
    return found
