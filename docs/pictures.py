"""Pictures of what Plait shows, for README and docs: ``docs/pictures/*.svg``, the same bytes every time.

    make pictures

Terminal pages are drawn from plans over stand-ins: models of true shapes whose files are headers and holes, in a
temporary folder. They claim some 60 GB and take none of it where the file system has sparse files. What depends on the
machine, memory and disk, is that of one that is made up.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import plait
import torch
from plait.engine.progress import Progress
from plait.runs.merge_result import MergeResult
from plait.views import dry_run, progress, result
from plait.views.console import print_lines
from plait.views.pace import Pace
from rich.console import Console, Group
from rich.terminal_theme import TerminalTheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from checkpoints import SHAPES, Shape, llama_config, llama_layout, write_model  # noqa: E402

WIDTH = 96
"""Columns of the terminal."""

RESERVED_BYTES, FREE_BYTES, FREE_DISK_BYTES = 252 << 20, 16 << 30, 120 << 30
"""The machine of the pictures: what the process holds when it has planned, and what is free."""

MEASURED_PEAK_BYTES, MEASURED_SECONDS = 284 << 20, 66.7
"""What a run of the DARE-TIES merge took, as docs/recipes-llama3-biomed.md has it."""

THEME = TerminalTheme(
    (24, 27, 33),
    (214, 217, 222),
    [
        (24, 27, 33),
        (232, 114, 114),
        (143, 192, 108),
        (222, 184, 97),
        (104, 158, 234),
        (196, 134, 222),
        (86, 182, 194),
        (214, 217, 222),
    ],
)

SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{
  font-family: "DejaVu Sans Mono", "Cascadia Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich's own, but for the font: one that is there, nothing is fetched."""

DARE_TIES_MODELS = (
    "meta-llama/Meta-Llama-3-8B-Instruct",
    "NousResearch/Hermes-2-Pro-Llama-3-8B",
    "aaditya/Llama3-OpenBioLLM-8B",
)

GRADIENT = """
merge_method: slerp
base_model: org/base
models: [{model: org/fine-tune}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
dtype: bfloat16
"""


class Studio:
    """Makes stand-ins in a folder, plans with them, and draws terminals."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out = folder, out

    def plan(self, recipe: Path, shapes: dict[str, Shape]) -> plait.MergePlan:
        """A plan on the machine of the pictures. Every model of the recipe has a stand-in that is headers alone."""
        maps = {}
        for number, (name, shape) in enumerate(shapes.items()):
            stand_in = self.folder / f"{recipe.stem}-{number}"
            layout, config = llama_layout(shape, torch.bfloat16), llama_config(shape, torch.bfloat16)
            write_model(stand_in, layout, config, sparse=True)
            maps[name] = str(stand_in)
        with (
            patch("plait.engine.host.resident_bytes", lambda: RESERVED_BYTES),
            patch("plait.engine.host.peak_resident_bytes", lambda: RESERVED_BYTES),
            patch("plait.engine.host.free_memory_bytes", lambda: FREE_BYTES),
        ):
            return plait.plan(recipe, maps=maps, memory="400MiB", workers=2)

    def terminal(self, name: str, title: str, shown: Iterable[Text] | Group) -> None:
        """What looks like this in a terminal, below the command that prints it."""
        console = Console(
            file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor", highlight=False
        )
        if isinstance(shown, Group):
            console.print(shown)
        else:
            print_lines(console, shown)
        console.print()  # rich cuts the last line off where its letters go below it
        svg = console.export_svg(title=title, theme=THEME, code_format=SVG, unique_id=name)
        # How rich indents its parts is no business of the picture's.
        text = "\n".join(line.strip() for line in svg.splitlines() if line.strip())
        (self.out / f"{name}.svg").write_text(f"{text}\n", encoding="utf-8", newline="\n")

    def dry_run(self, name: str, merge: plait.MergePlan, recipe: str) -> None:
        """The page of a dry run."""
        page = dry_run.page(merge, WIDTH, free_disk_bytes=FREE_DISK_BYTES)
        self.terminal(name, f"plait run {recipe} --dry-run", page)


def dare_ties(studio: Studio) -> None:
    """A published DARE-TIES merge of three 8B models: the dry run, the run, the result."""
    recipe = ROOT / "examples" / "llama3-merge-biomed-8b.yml"
    merge = studio.plan(recipe, dict.fromkeys(DARE_TIES_MODELS, SHAPES["8b"]))
    studio.dry_run("dry-run-dare-ties", merge, recipe.name)
    command = f"plait run {recipe.name} merged/"
    studio.terminal("progress", command, progress.screen(under_way(merge), Console(file=io.StringIO(), width=WIDTH)))
    studio.terminal("result", command, result.page(finished(merge), WIDTH))


def under_way(merge: plait.MergePlan) -> Pace:
    """A run after 41 % of its work, at the rates that the plan predicts."""
    plan = merge.plan
    pace = Pace(plan.budget_bytes)
    for share in (0.3, 0.41):
        seconds = share * merge.predicted_seconds
        done = round(share * merge.tensors)
        now = Progress(
            bytes_read=round(share * plan.bytes_read),
            bytes_written=round(share * plan.bytes_written),
            bytes_total=plan.bytes_read + plan.bytes_written,
            tensors_done=done,
            tensors_total=merge.tensors,
            seconds=seconds,
            stages=("tensors", "finish"),
            work_share=share,
            seconds_left=merge.predicted_seconds - seconds,
            workers=plan.workers,
            busy_seconds=seconds * plan.workers * 0.97,
        )
        pace.take(now, MEASURED_PEAK_BYTES)
    return pace


def finished(merge: plait.MergePlan) -> MergeResult:
    """What the run of docs/recipes-llama3-biomed.md did."""
    return MergeResult(
        output="merged",
        recipe_sha256=merge.recipe_sha256,
        seed=merge.plan.seed,
        device="cpu",
        workers=merge.plan.workers,
        tensors=merge.tensors,
        bytes_read=merge.plan.bytes_read,
        bytes_written=merge.plan.bytes_written,
        passes=merge.plan.passes,
        predicted_peak_bytes=merge.plan.predicted_peak_bytes,
        measured_peak_bytes=MEASURED_PEAK_BYTES,
        reserved_bytes=merge.plan.reserved_bytes,
        predicted_seconds=merge.predicted_seconds,
        seconds=MEASURED_SECONDS,
        resumed=False,
        shards=tuple({"name": shard.file_name} for shard in merge.shards),
        warnings=merge.warnings,
    )


def expansion(studio: Studio) -> None:
    """The dry run of a published expansion from 32 to 44 layers."""
    recipe = ROOT / "examples" / "openchat-block-expansion-44.yml"
    merge = studio.plan(recipe, {"openchat/openchat-3.5-0106": SHAPES["mistral7b"]})
    studio.dry_run("dry-run-expansion", merge, recipe.name)


def gradients(studio: Studio) -> None:
    """The dry run of a slerp with a gradient for attention and another for the MLP, and one tensor of it."""
    recipe = studio.folder / "gradients.yml"
    recipe.write_text(GRADIENT, encoding="utf-8")
    merge = studio.plan(recipe, dict.fromkeys(("org/base", "org/fine-tune"), SHAPES["mistral7b"]))
    studio.dry_run("dry-run-gradients", merge, recipe.name)
    tensor = "model.layers.12.self_attn.q_proj.weight"
    page = dry_run.tensor_page(merge, tensor, WIDTH)
    studio.terminal("dry-run-tensor", f"plait run {recipe.name} --dry-run --tensor {tensor}", page)


TERMINALS: tuple[Callable[[Studio], None], ...] = (dare_ties, expansion, gradients)
"""Pages in a terminal; those in a browser are in screenshots.py."""


def draw(out: Path) -> None:
    """All pictures, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder), out)
        for picture in TERMINALS:
            picture(studio)


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
