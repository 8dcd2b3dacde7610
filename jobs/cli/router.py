"""``moe router``: where queries go and why, and the versions that decide it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import ask as asking
from jobs import router_bench, routers
from jobs.cli.console import JsonFlag, emit_json, note, printable, say, table
from jobs.cli.explaining import show_decision
from jobs.cli.session import runtime, settings
from jobs.cli.standing import router_alerts
from jobs.errors import BadInput
from jobs.reading.labelled import Columns
from jobs.reports.routing import write_routing_report
from jobs.writing import check_place, write_json
from storage.versions import RouterView

app = typer.Typer(no_args_is_help=True, help="Where queries go and why, and the versions that decide it.")
app.command("alerts")(router_alerts)

Question = Annotated[str, typer.Argument(metavar='"…"', help="A question.")]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, max=64, help="Experts asked.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="As `moe router versions` lists them.")]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="FILE", help="Labelled queries: JSON Lines with a text and its expert (or null)."),
]
Text = Annotated[str, typer.Option("--text", metavar="FIELD", help="Field of the text.")]
Label = Annotated[str, typer.Option("--label", metavar="FIELD", help="Field of the expert's name.")]
Promote = Annotated[bool, typer.Option("--promote", help="Make the new version live at once.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the end; print the job's number.")]


@app.command()
def explain(question: Question, top_k: TopK = None, as_json: JsonFlag = False) -> None:
    """Show where a question would go, and why. Nothing is answered or stored."""
    found = asking.explain(runtime(), question, top_k=top_k)
    if as_json:
        emit_json(found)
    else:
        show_decision(found)


@app.command()
def train(
    kind: Annotated[
        str | None, typer.Option(help="ensemble, neural, knn, centroid, heuristic or random; default routing.kind.")
    ] = None,
    data: Data = None,
    text: Text = "text",
    label: Label = "expert",
    promote: Promote = False,
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a router on the catalogue's exemplars, and on labelled queries of your own."""
    client = runtime()
    job = routers.train(client, kind=kind, data=data, columns=Columns(text, label), promote=promote)
    found = _ended(job, no_wait=no_wait, as_json=as_json)
    if found is None:
        return
    metrics = found["metrics"]
    say(f"router {found['router_version']} is {found['state']}")
    table(tuple(metrics), [tuple(metrics.values())])
    if not promote:
        note(f"it routes nothing yet: moe router promote {found['router_version']}")


@app.command()
def evaluate(
    versions: Annotated[list[int] | None, typer.Argument(metavar="[VERSION]…", help="Default: the live one.")] = None,
    data: Data = None,
    text: Text = "text",
    label: Label = "expert",
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure versions on labelled queries; without --data on the lines whose right expert people have said."""
    job = routers.evaluate(runtime(), versions or [], data=data, columns=Columns(text, label))
    found = _ended(job, no_wait=no_wait, as_json=as_json)
    if found is not None:
        _show_versions(found)


@app.command()
def compare(
    a: Annotated[int, typer.Argument(metavar="A", min=1)],
    b: Annotated[int, typer.Argument(metavar="B", min=1)],
    data: Data = None,
    text: Text = "text",
    label: Label = "expert",
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure two versions on the same labelled queries: their difference, with a 95 % interval."""
    job = routers.evaluate(runtime(), [a, b], data=data, columns=Columns(text, label))
    found = _ended(job, no_wait=no_wait, as_json=as_json)
    if found is None:
        return
    _show_versions(found)
    pair = found.get("paired")
    if pair is not None:
        low, high = pair["ci"]
        say(
            f"accuracy of {a} less that of {b}: {pair['difference']:+.4f}, 95 % interval {low:+.4f} to {high:+.4f},"
            f" p {pair['p']:.3g} (McNemar, exact)"
        )


@app.command()
def calibrate(
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", min=1, help="Default: the live one.")] = None,
    data: Data = None,
    text: Text = "text",
    label: Label = "expert",
    promote: Promote = False,
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Fit a version's probabilities to labelled queries of your own traffic: a new version with the same scores."""
    job = routers.calibrate(runtime(), version, data=data, columns=Columns(text, label), promote=promote)
    found = _ended(job, no_wait=no_wait, as_json=as_json)
    if found is None:
        return
    say(f"router {found['router_version']} is {found['state']}; it is router {found['from']}, calibrated anew")
    keys = ("ece", "oos_auroc", "accuracy")
    table(("", *keys), [(when, *(found[when][key] for key in keys)) for when in ("before", "after")])


@app.command("versions")
def list_versions(as_json: JsonFlag = False) -> None:
    """List every stored version, the newest first."""
    found = routers.listing(runtime())
    if as_json:
        emit_json([_view(view) for view in found])
        return
    table(
        ("version", "state", "kind", "encoder", "experts", "accuracy", "ece", "trained", "live since"),
        [
            (
                view.id,
                view.state,
                view.kind,
                view.encoder,
                len(view.experts),
                view.metrics.get("accuracy"),
                view.metrics.get("ece"),
                f"{view.created_at:%Y-%m-%d %H:%M}",
                None if view.promoted_at is None else f"{view.promoted_at:%Y-%m-%d %H:%M}",
            )
            for view in found
        ],
    )


@app.command()
def promote(version: Version, as_json: JsonFlag = False) -> None:
    """Make a version live. Shards under way end with the version they began with; no worker restarts."""
    _show_live(*routers.promote(runtime(), version), as_json=as_json)


@app.command()
def rollback(as_json: JsonFlag = False) -> None:
    """Go back to the version that was live before."""
    _show_live(*routers.rollback(runtime()), as_json=as_json)


@app.command()
def bench(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled queries, JSON Lines; - for stdin.")],
    text: Text = "text",
    label: Annotated[str, typer.Option("--label", metavar="FIELD", help="Field of the label.")] = "label",
    split: Annotated[str, typer.Option("--split", metavar="FIELD", help="Field of the split.")] = "split",
    oos_label: Annotated[
        str | None, typer.Option("--oos-label", help="Label of queries that no other label covers.")
    ] = None,
    train_split: Annotated[str | None, typer.Option("--train-split", help="Default: train.")] = None,
    dev_split: Annotated[str | None, typer.Option("--dev-split", help="Default: dev or val, if any.")] = None,
    test_split: Annotated[str | None, typer.Option("--test-split", help="Default: test.")] = None,
    group: Annotated[str | None, typer.Option("--group", metavar="FIELD", help="Figures per value of it.")] = None,
    shots: Annotated[int | None, typer.Option(min=2, help="Exemplars per label instead of all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each kind.")] = 1,
    leave_one_label_out: Annotated[
        bool, typer.Option("--leave-one-label-out", help="Can a label without exemplars be told from the others?")
    ] = False,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be given again.")] = None,
    world: Annotated[bool, typer.Option(help="Use the shipped sample of what else people ask.")] = True,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there; - for stdout.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write report.html and report.json.")] = None,
) -> None:
    """Train, calibrate and measure every kind of router on labelled queries of yours. Needs no stack."""
    options = router_bench.BenchOptions(
        columns=Columns(text, label, split, group, oos_label),
        train_split=train_split,
        dev_split=dev_split,
        test_split=test_split,
        kinds=kind or (),
        shots=shots,
        seeds=seeds,
        leave_one_label_out=leave_one_label_out,
        world=world,
    )
    if out is not None:
        _make_folder(out)
    if json_path is not None and json_path != Path("-"):
        check_place(json_path)
    found = router_bench.bench(file, settings().encoder, options, report=note)
    if json_path == Path("-"):
        emit_json(found)
    elif json_path is not None:
        write_json(json_path, found)
    if out is not None:
        write_json(out / "report.json", found)
        write_routing_report(found, out / "report.html")
        note(f"written to {out / 'report.html'}")
    if json_path != Path("-"):
        _show_bench(found)


def _ended(job: int, *, no_wait: bool, as_json: bool) -> dict[str, Any] | None:
    """The job's result; None when everything there is to say has been said."""
    if no_wait:
        if as_json:
            emit_json({"job": job})
        else:
            say(f"job {job} is queued")
        return None
    found = routers.result(runtime(), job, on_event=(lambda message: None) if as_json else note)
    if as_json:
        emit_json({"job": job, **found})
        return None
    return found


def _show_versions(found: Mapping[str, Any]) -> None:
    say(f"{found['queries']:,} labelled queries")
    measured = found["versions"]
    keys = ("accuracy", "ci", "macro_f1", "ece", "oos_auroc", "oos_fpr95")
    table(
        ("version", *keys), [(version, *(_cell(figures[key]) for key in keys)) for version, figures in measured.items()]
    )


def _show_live(view: RouterView, silent: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        emit_json({**_view(view), "not_serving": list(silent)})
        return
    say(f"router {view.id} ({view.kind}) is live")
    if silent:
        say(f"[yellow]it does not know {printable(', '.join(silent))}: not asked until a router does[/]")


def _view(view: RouterView) -> dict[str, Any]:
    return {
        "version": view.id,
        "state": view.state,
        "kind": view.kind,
        "encoder": view.encoder,
        "experts": view.experts,
        "metrics": view.metrics,
        "created_at": view.created_at.isoformat(),
        "promoted_at": None if view.promoted_at is None else view.promoted_at.isoformat(),
        "sha256": view.artefact_sha256,
    }


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: no folder can be made there ({error.strerror})") from None


def _show_bench(found: Mapping[str, Any]) -> None:
    data = found["data"]
    say(
        f"{len(data['labels'])} labels; {data['train']:,} queries to train, {data['dev']:,} to calibrate,"
        f" {data['test']:,} to test; {found['seeds']} seed(s); {found['seconds']:.0f} s"
    )
    keys = ("accuracy", "ci", "macro_f1", "ece", "oos_auroc", "oos_fpr95", "latency_ms", "train_seconds")
    names = ("accuracy", "95 %", "macro F1", "ECE", "outside AUROC", "FPR95", "ms a query", "training s")
    kinds = {kind: figures for kind, figures in found["results"].items() if kind != "default"}
    table(
        ("kind", *names),
        [
            (f"{kind} (default)" if kind == found["default"] else kind, *(_cell(figures[key]) for key in keys))
            for kind, figures in kinds.items()
        ],
    )
    for pair in found["paired"]:
        low, high = pair["ci"]
        say(f"{pair['a']} less {pair['b']}: {pair['difference']:+.4f} ({low:+.4f} to {high:+.4f}), p {pair['p']:.2g}")
    left_out = found["leave_one_label_out"]
    if left_out:
        table(
            ("a label left out: kind", "mean AUROC", "mean FPR95"),
            [(kind, mean["auroc"], mean["fpr95"]) for kind, mean in left_out["mean"].items()],
        )
    default = found["results"].get("default")
    if default and data["group_field"]:
        table(
            ("group", "queries", "accuracy", "ECE"),
            [(group, g["n"], g["accuracy"], g["ece"]) for group, g in default["groups"].items()],
        )


def _cell(value: Any) -> Any:
    return f"{value[0]:.4f}–{value[1]:.4f}" if isinstance(value, list) else value
