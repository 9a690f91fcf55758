"""The command line: arguments in, API call, view out."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .engine.errors import InputError, OutputError, UsageError
from .entry import leave_with_code
from .interrupts import in_order
from .version import VERSION

app = typer.Typer(
    name="plait",
    help="Merge language models in the memory you have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"plait {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    context: typer.Context,
    recipe: options.Recipe,
    out: options.Out = None,
    dry_run: options.DryRun = False,
    memory: options.Memory = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    device_memory: options.DeviceMemory = None,
    processes: options.Processes = 1,
    seed: options.Seed = None,
    shard_size: options.ShardSize = "5GB",
    maps: options.Maps = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    allow_nonfinite: options.AllowNonfinite = False,
    verify: options.Verify = False,
    profile: options.Profile = False,
    graph: options.Graphs = None,
    expand: options.Expand = False,
    tensor: options.Tensor = None,
    strict: options.Strict = False,
    lenient: options.Lenient = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Merge the models of a recipe into a folder."""
    if out is None and not dry_run:
        raise UsageError("where to? give OUT, a new or empty folder (or --dry-run to write nothing)")
    if (expand or tensor is not None) and not dry_run and not graph:
        raise UsageError("--expand and --tensor say what is shown: they go with --dry-run or --graph FILE")
    from .api import plan as make_plan
    from .engine.host import resident_bytes
    from .graphs import check_asked, check_tensor
    from .loaders.folder import free_disk_bytes
    from .reports.reporting import moved_inputs
    from .runs.launching import launched, processes_of, started_alone
    from .views import dry_run as dry_run_view
    from .views import result as result_view
    from .views.graph_document import document
    from .views.progress import RunProgress

    check_asked(graph or [], recipe=recipe)
    planning: dict[str, Any] = {
        "memory": options.size(memory, "--memory"),
        "workers": workers,
        "device": device,
        "device_memory": options.size(device_memory, "--device-memory"),
        "seed": seed,
        "shard_size": options.size(shard_size, "--shard-size") or 0,
        "maps": options.map_pairs(maps or []),
        "verify": verify,
        "strict": strict,
        "lenient": lenient,
    }
    launch = context.with_resource(launched())
    planning |= processes_of(launch, processes)
    if launch is not None and launch.number:
        raise typer.Exit(launch.join(recipe, out, planning, allow_nonfinite=allow_nonfinite))
    if launch is None and not quiet:
        result_view.show_warnings(filter(None, [started_alone()]))
    merge = make_plan(recipe, **planning)
    if tensor is not None:
        check_tensor(merge, tensor)
    for path in graph or []:
        merge.write_graph(path, expand=expand, tensor=tensor, out=out)
    if dry_run:
        if as_json:
            _print_json(merge.report() | ({"graph": document(merge, tensor=tensor)} if tensor is not None else {}))
        else:
            free_bytes = free_disk_bytes(out or Path.cwd())
            dry_run_view.show(merge, free_disk_bytes=free_bytes, tensor_name=tensor, verbose=verbose or expand)
        return
    assert out is not None
    if not quiet and not as_json:
        result_view.show_start(merge, out)
    elif not quiet:
        result_view.show_warnings(merge.warnings)
    held_bytes = partial(resident_bytes, children=processes > 1)
    with RunProgress(merge.parts.budget_bytes, held_bytes, enabled=not quiet) as progress:
        result = merge.run(
            out,
            overwrite=overwrite,
            resume=resume,
            allow_nonfinite=allow_nonfinite,
            verify=verify,
            profile=profile,
            progress=progress,
            launch=launch,
        )
    if not quiet:
        result_view.show_warnings(result.warnings[len(merge.warnings) :])
    if as_json:
        _print_json(result_view.as_json(result))
    elif not quiet:
        moved = moved_inputs(out, merge.folders)
        result_view.show(result, against=merge.donor.folder, moved=moved, verbose=verbose)
    if result.verification is not None and not result.verification.ok:
        from .views.verify import failure

        raise OutputError(*failure(result.verification, brief=quiet))


@app.command()
def verify(
    out: options.Finished,
    digests: options.Digests = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Check a finished folder against its manifest and itself; exit code 3 if something is wrong."""
    from .engine.host import resident_bytes
    from .reports.verification import verify as verify_folder
    from .views import verify as verify_view
    from .views.progress import RunProgress

    with RunProgress(None, resident_bytes, enabled=not quiet) as progress:
        report = verify_folder(out, digests, progress=progress)
    if as_json:
        _print_json(verify_view.as_json(report))
    elif not quiet:
        verify_view.show(report, verbose=verbose)
    if not report.ok:
        raise InputError(*verify_view.failure(report, brief=quiet))


@app.command()
def inspect(
    models: options.Models,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Show what model folders hold; reads headers only."""
    from .loaders.checkpoint import locate, open_model
    from .views import inspect as inspect_view

    opened = [open_model(model, locate(model, recipe_folder=Path.cwd(), maps=None)) for model in models]
    if as_json:
        _print_json({"models": [inspect_view.as_json(model) for model in opened]})
    else:
        inspect_view.show(opened, verbose=verbose)


@app.command()
def diff(
    a: options.ModelA,
    b: options.ModelB,
    html: options.Html = None,
    memory: options.Memory = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show how far apart two models are, per layer and kind of tensor."""
    from .engine.host import resident_bytes
    from .reports.comparison import plan_diff
    from .views import diff as diff_view
    from .views import diff_page
    from .views.page_file import check_page, write_page
    from .views.progress import RunProgress

    comparison = plan_diff(a, b, memory=options.size(memory, "--memory"), workers=workers)
    if html is not None:
        check_page(html, inputs=(comparison.a.folder, comparison.b.folder))
    with RunProgress(comparison.plan.budget_bytes, resident_bytes, enabled=not quiet) as progress:
        report = comparison.run(progress)
    if html is not None:
        write_page(html, diff_page.page(report))
    if as_json:
        _print_json(report.as_json())
    else:
        diff_view.show(report, verbose=verbose)


@app.command()
def report(
    out: options.Report,
    html: options.Html = None,
    headers_only: options.HeadersOnly = False,
    maps: options.MovedMaps = None,
    memory: options.Memory = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Show what a finished run did: time, memory, how far the result moved from each input."""
    from .engine.host import resident_bytes
    from .reports.reporting import plan_report
    from .views import report as report_view
    from .views import report_page
    from .views.page_file import check_page, write_page
    from .views.progress import RunProgress

    bound = options.size(memory, "--memory")
    planned = plan_report(
        out, maps=options.map_pairs(maps or []), headers_only=headers_only, memory=bound, workers=workers
    )
    if html is not None:
        check_page(html, inputs=planned.folders)
    with RunProgress(planned.budget_bytes, resident_bytes, enabled=not quiet) as progress:
        found = planned.run(progress)
    if html is not None:
        write_page(html, report_page.page(found))
    if as_json:
        _print_json(found.as_json())
    elif not quiet or html is None:
        report_view.show(found, verbose=verbose)


@app.command()
def methods(
    name: options.MethodName = None,
    as_json: options.AsJson = False,
    markdown: options.Markdown = False,
) -> None:
    """List the merge methods, or show one with its parameters."""
    from . import ops as _registered
    from .engine.methoddef import methods as all_methods
    from .engine.suggest import closest, did_you_mean
    from .engine.trial import try_out
    from .views import method_page
    from .views import methods as methods_view

    assert _registered
    known = all_methods()
    if name is not None and name not in known:
        raise UsageError(
            f"there is no method {name!r}; {did_you_mean(closest(name, known)) or 'plait methods lists them'}"
        )
    chosen = known if name is None else {name: known[name]}
    trials = {method.name: try_out(method) for method in chosen.values()}
    if as_json:
        _print_json({"methods": [methods_view.as_json(method, trials[method.name]) for method in chosen.values()]})
    elif markdown:
        text = method_page.page(known, trials) if name is None else method_page.section(known[name], trials[name])
        # A page of the docs is a file: UTF-8, whatever a terminal here would take.
        sys.stdout.buffer.write(text.encode())
    elif name is None:
        methods_view.show_all(known, trials)
    else:
        methods_view.show_one(known[name], trials[name])


@app.command()
def demo(
    folder: options.DemoFolder = None,
    memory: options.Memory = None,
) -> None:
    """Merge two small specialists and score the result; needs no network."""
    from .api import plan as make_plan
    from .engine.host import resident_bytes
    from .examples.specialists import FOLDER, MODELS, RECIPE, replaces
    from .examples.specialists.score import score_folder
    from .loaders.folder import free_disk_bytes
    from .reports.comparison import diff as compare
    from .reports.reporting import moved_inputs
    from .views import demo as demo_view
    from .views import dry_run as dry_run_view
    from .views import result as result_view
    from .views.progress import RunProgress

    out = folder or Path("demo-output")
    again = replaces(out)
    merge = make_plan(RECIPE, memory=options.size(memory, "--memory"))
    dry_run_view.show(merge, free_disk_bytes=free_disk_bytes(out))
    with RunProgress(merge.plan.budget_bytes, resident_bytes, enabled=True) as progress:
        result = merge.run(out, overwrite=again, progress=progress)
    result_view.show(result, moved=moved_inputs(out, merge.folders))
    scores = {name: score_folder(FOLDER / name) for name in MODELS}
    scores["merged"] = score_folder(out)
    demo_view.show_scores(scores, {name: compare(FOLDER / name, out).total.relative_l2 for name in MODELS})


def _print_json(value: dict[str, Any]) -> None:
    json.dump(value, sys.stdout, indent=2)  # in pieces: some objects are large
    sys.stdout.write("\n")


def main() -> None:
    """Run the command line and leave with its exit code."""
    with in_order():
        leave_with_code(app)
