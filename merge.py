"""A planned merge, and what running it did."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine.compile import Compiled, names_by_model
from .engine.errors import InputError
from .engine.host import resident_bytes
from .engine.mapping import donor_of
from .engine.time_model import program_seconds, shared_seconds
from .engine.units import format_bytes, format_seconds
from .graphs import write_graph
from .loaders.card import CardFacts
from .loaders.card_inputs import inherited
from .loaders.card_models import card_models, hub_ids, shared_values
from .loaders.config import output_config
from .loaders.generation import Vocabulary as KnownTokens
from .loaders.side_files import SideFiles, side_files
from .runs.merge_result import MergeResult
from .runs.parts import Parts
from .runs.running import run_merge
from .version import VERSION
from .views.progress import callback_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import networkx as nx

    from .api import RecipeText
    from .engine.graph import Node, Program
    from .engine.methoddef import MethodDef
    from .engine.model import Model
    from .engine.plan import Plan
    from .engine.progress import Callback
    from .engine.rates import Rates
    from .engine.recipe import ModelRef, Recipe
    from .loaders.shards import Shard
    from .loaders.vocabulary import OutputTokenizer
    from .runs.launching import Launch

SIDE_FILES_BYTES = 1 << 20
"""What config, index, card and manifest take, about; all other files are counted as they are."""


@dataclass(frozen=True)
class MergePlan:
    """A merge, planned and not yet run."""

    recipe: Recipe
    method: MethodDef
    models: Mapping[ModelRef, Model]
    tokenizer: OutputTokenizer
    compiled: Compiled
    shards: tuple[Shard, ...]
    plan: Plan
    warnings: tuple[str, ...]
    rates: Rates
    source: RecipeText
    options: Mapping[str, Any]
    processes: int = 1
    processes_here: int = 1

    @cached_property
    def parts(self) -> Parts:
        """The plan as the parts of its processes."""
        return Parts(self.plan, self.shards, self.processes, self.processes_here)

    @cached_property
    def predicted_seconds(self) -> float:
        """About how long a run takes, by what a machine is taken to do in a second; see engine.time_model."""
        return shared_seconds(self.parts.plans, self.rates, together=self.processes_here)

    @cached_property
    def program_seconds(self) -> Mapping[Program, float]:
        """The part of it that one tensor of a program takes, by the graph's program."""
        return program_seconds(self.plan, self.rates)

    @property
    def folders(self) -> dict[str, str]:
        """Where each model of the recipe lies, by what the recipe calls it."""
        return {str(ref): model.folder for ref, model in self.models.items()}

    @property
    def donor(self) -> Model:
        """The model that gives config and tokenizer."""
        return self.models[donor_of(self.recipe)]

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """The tensors of the merge: stored ones, written ones, an edge from each to what it feeds."""
        return self.compiled.graph.to_networkx()

    def graph_of(self, tensor_name: str) -> nx.DiGraph[Node]:
        """The op graph of one output tensor. KeyError if the merge does not write it."""
        return self.plan.island_of(tensor_name).program.to_networkx()

    def write_graph(
        self, path: str | Path, *, expand: bool = False, tensor: str | None = None, out: str | Path | None = None
    ) -> None:
        """Write the graph as .html, .svg, .dot, .mmd or .json: folded, all of it, or one tensor's op graph.

        ``out`` is where the merge will go. Raises UsageError or OutputError.
        """
        write_graph(self, Path(path), expand=expand, tensor=tensor, out=None if out is None else Path(out))

    @cached_property
    def recipe_sha256(self) -> str:
        """Digest of the recipe as given."""
        return hashlib.sha256(self.recipe.text.encode()).hexdigest()

    @property
    def disk_needed_bytes(self) -> int:
        """Free disk that a run needs."""
        return sum(shard.size_bytes for shard in self.shards) + self.side_files.size_bytes + SIDE_FILES_BYTES

    @property
    def tensors(self) -> int:
        """Tensors that are written."""
        return sum(len(shard.offsets_bytes) for shard in self.shards)

    @property
    def shard_facts(self) -> tuple[dict[str, object], ...]:
        """The shards as a dry run and a run both report them."""
        return tuple(
            {"name": shard.file_name, "bytes": shard.size_bytes, "tensors": len(shard.offsets_bytes)}
            for shard in self.shards
        )

    @property
    def devices(self) -> tuple[dict[str, object], ...]:
        """The devices that compute, each with the predicted peak of its memory.

        Processes that this one will start have the same ones, and their peaks are added up; those that a launcher
        started choose for themselves, and are not counted.
        """
        return self.plan.placement.peaks(processes=self.processes_alike)

    @property
    def processes_alike(self) -> int:
        """How many processes have the devices that this one has."""
        return 1 if self.options.get("processes_here") is not None else self.parts.here

    def totals(self) -> dict[str, object]:
        """What the merge reads, writes and takes, as every account of the plan has it."""
        return {
            "tensors": self.tensors,
            "passes": self.plan.passes,
            "bytes_read": self.parts.bytes_read,
            "bytes_written": self.plan.bytes_written,
            "disk_needed_bytes": self.disk_needed_bytes,
            "predicted_peak_bytes": self.parts.predicted_peak_bytes,
            "minimum_memory_bytes": self.parts.minimum_bytes,
            "reserved_bytes": self.parts.reserved_bytes,
            "predicted_seconds": round(self.predicted_seconds, 3),
        }

    def report(self) -> dict[str, object]:
        """The plan as one JSON object."""
        placement, processes = self.plan.placement, self.parts.planned()
        counts: Counter[str] = Counter()
        for island in self.plan.graph.islands:
            counts.update(node.op.name for node in island.program.nodes)
        unused = names_by_model(self.plan.graph.unused, self.models.values())
        return self.totals() | {
            "ops": dict(sorted(counts.items())),
            "device": placement.name,
            "devices": list(self.devices),
            "placement": list(placement.reasons),
            **({"processes": processes} if processes else {}),
            "shards": list(self.shard_facts),
            "models": [
                {
                    "reference": str(ref),
                    "revision": ref.revision,
                    "tensors": len(model.tensors),
                    "bytes": model.size_bytes,
                }
                for ref, model in self.models.items()
            ],
            "unused_tensors": [f"{reference}: {name}" for reference, names in unused.items() for name in names],
            "warnings": list(self.warnings),
        }

    def summary(self) -> str:
        """What the run would do, as text."""
        plan, parts = self.plan, self.parts
        processes = f"{parts.words}, each with " if parts.words else ""
        shards = "1 shard" if len(self.shards) == 1 else f"{len(self.shards)} shards"
        return "\n".join(
            [
                f"{self.method.name}: {self.tensors} tensors in {shards}, "
                f"{plan.passes} {'pass' if plan.passes == 1 else 'passes'}",
                f"read {format_bytes(parts.bytes_read)}, write {format_bytes(plan.bytes_written)}",
                f"peak memory {format_bytes(parts.predicted_peak_bytes)}{parts.of_each} with "
                f"{processes}{plan.workers} workers "
                f"(at least {format_bytes(parts.minimum_bytes)}), about {format_seconds(self.predicted_seconds)}",
                *self.warnings,
            ]
        )

    def run(
        self,
        out: str | Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        allow_nonfinite: bool = False,
        verify: bool = False,
        profile: bool = False,
        progress: Callback | bool | None = None,
        launch: Launch | None = None,
    ) -> MergeResult:
        """Carry out the plan into a folder.

        With ``resume``, an interrupted run goes on where there is one, to the same bytes. With ``allow_nonfinite``, NaN
        and infinity that arithmetic reads are a warning and no InputError. With ``verify``, the written folder is read
        back and checked, the manifest gets the sha256 of its shards, and the result has the report; memory for that was
        set aside if the plan was made for it. With ``profile``, the result says where the time went, and the folder
        gets a trace. ``progress`` is called a few times a second with an engine.progress.Progress; True shows it as the
        command line does, or as a notebook can. Raises PlanError, UsageError (the folder), InputError, OutputError, or
        Interrupted, a KeyboardInterrupt, once all workers ended; their ``kept_share`` is the part of the output that
        ``resume`` goes on from.
        """
        with callback_of(progress, self.parts.budget_bytes, resident_bytes) as callback:
            return run_merge(
                self,
                Path(out),
                overwrite=overwrite,
                resume=resume,
                allow_nonfinite=allow_nonfinite,
                verify=verify,
                profile=profile,
                progress=callback,
                launch=launch,
            )

    @cached_property
    def side_files(self) -> SideFiles:
        """What stands beside the weights. Raises InputError where a file that has to be changed cannot be read."""
        donor, tokenizer = donor_of(self.recipe), self.tokenizer
        rows = self._vocabulary_rows or self.donor.vocabulary_rows or len(tokenizer.token_ids)
        kept = range(rows) if tokenizer.source == donor else ()
        return side_files(
            {str(ref): Path(self.models[ref].folder) for ref in dict.fromkeys((donor, *self.models))},
            self._stacked_config(),
            chat_template=self.recipe.chat_template,
            where=self.recipe.where.get("chat_template"),
            tokenizer=str(tokenizer.source),
            files=tokenizer.files,
            left_out=tokenizer.left_out,
            vocabulary=KnownTokens(
                tokenizer.token_ids, rows, {token_id: token_id for token_id in kept} | dict(tokenizer.donor_ids)
            )
            if tokenizer.token_ids
            else None,
        )

    @property
    def _vocabulary_rows(self) -> int | None:
        """Rows of the output's vocabulary tensors, where they are not those of the donor."""
        return self.tokenizer.vocabulary.rows if self.tokenizer.vocabulary is not None else None

    def output_config(self) -> Mapping[str, object]:
        """The output's config.json: the donor's, with layers, dtype, vocabulary and ids of tokens as they come out."""
        return self.side_files.config

    def _stacked_config(self) -> dict[str, object]:
        """The donor's config with layers, dtype and vocabulary as they come out.

        Raises InputError where a config cannot say what became of the layers.
        """
        stacks = {
            prefix: (layers.donor_layers, layers.source_layers)
            for prefix, layers in self.compiled.mapping.stacks.items()
        }
        try:
            return output_config(
                self.donor.config,
                stack_layers=stacks,
                dtype_name=self._dtype_name,
                vocabulary_rows=self._vocabulary_rows,
                tie_word_embeddings=False if self.compiled.mapping.untied else None,
            )
        except InputError as error:
            raise InputError(f"{self.donor.reference}: {error}") from None

    @property
    def _dtype_name(self) -> str:
        """The dtype that most of the output has."""
        sizes: Counter[str] = Counter()
        for island in self.plan.graph.islands:
            sizes[str(island.spec.dtype).removeprefix("torch.")] += island.spec.size_bytes
        return sizes.most_common(1)[0][0]

    def card_facts(self) -> CardFacts:
        """What the model card says."""
        stack = self.compiled.mapping.stacks.get(self.donor.primary or "")
        tokenizer = self.recipe.tokenizer.source if self.recipe.tokenizer is not None else None
        architectures = self.donor.config.get("architectures")
        return CardFacts(
            name=self.recipe.name,
            method=self.method.name,
            method_summary=self.method.summary,
            paper=self.method.paper,
            models=card_models(self.recipe),
            hub_ids=hub_ids(self.models),
            inherited=inherited(Path(model.folder) for model in self.models.values()),
            architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "",
            parameters=shared_values(self.recipe.parameters),
            tokenizer=str(tokenizer) if tokenizer is not None else None,
            chat_template=self.recipe.chat_template,
            recipe_text=self.recipe.text,
            seed=self.plan.seed,
            dtype=self._dtype_name,
            layers=len(stack.source_layers) if stack is not None else 0,
            tensors=self.tensors,
            elements=sum(island.spec.elements * len(island.outputs) for island in self.plan.graph.islands),
            size_bytes=sum(shard.data_bytes for shard in self.shards),
            version=VERSION,
        )


__all__ = ["MergePlan", "MergeResult"]
