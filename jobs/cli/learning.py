"""``moe experts create | train | retrain | evaluate | versions | promote | rollback | retire``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from jobs import learning
from jobs.cli.console import JsonFlag, emit_json, note, printable, say, table
from jobs.cli.jobs import follow
from jobs.cli.session import runtime
from jobs.learning import Creation, Given
from jobs.training_jobs import succeeded, wait_for_job
from storage.expert_versions import VersionView

_SHOWN_BAD = 20

Name = Annotated[str, typer.Argument(metavar="NAME", help="An expert.")]
Which = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version the live one.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Examples: JSON Lines (instruction/input/output, messages, prompt/completion, question/answer) or CSV.",
    ),
]
Validation = Annotated[
    str | None,
    typer.Option("--validation", metavar="FILE", help="Examples to measure on; default: a fifth of the data."),
]
Rank = Annotated[int | None, typer.Option(min=1, max=512, help="Rank of the adapter; default: training.rank.")]
Complex = Annotated[bool, typer.Option("--complex", help="A difficult domain: a larger rank and twice the alpha.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is trained, measured and, if it passed, serving.")]


def create(
    name: Name,
    domain: Annotated[str, typer.Option(help="What it is about, in a few words.")],
    data: Data,
    validation: Validation = None,
    description: Annotated[str | None, typer.Option(help="What it can do, in a sentence.")] = None,
    exemplar: Annotated[
        list[str] | None,
        typer.Option(help="A question that belongs to it; may be given again. Default: questions of the data."),
    ] = None,
    keyword: Annotated[list[str] | None, typer.Option(help="A word that speaks for it; may be given again.")] = None,
    parent: Annotated[str | None, typer.Option(help="The expert above it.")] = None,
    rank: Rank = None,
    complex_domain: Complex = False,
    wait: Wait = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an expert of examples: trained, measured, and live only if it is better than the base."""
    new = Creation(
        name=name,
        domain=domain,
        data=data,
        validation=validation,
        description=description,
        exemplars=exemplar or (),
        keywords=keyword or (),
        parent=parent,
        rank=rank,
        complex_domain=complex_domain,
    )
    job, given = learning.create(runtime(), new)
    _told_and_waited(job, given, wait=wait, as_json=as_json)


def train(
    name: Name,
    data: Data,
    validation: Validation = None,
    rank: Rank = None,
    complex_domain: Complex = False,
    wait: Wait = False,
    as_json: JsonFlag = False,
) -> None:
    """Train an expert's next version on new examples."""
    job, given = learning.train(runtime(), name, data, validation=validation, rank=rank, complex_domain=complex_domain)
    _told_and_waited(job, given, wait=wait, as_json=as_json)


def retrain(name: Name, rank: Rank = None, wait: Wait = False, as_json: JsonFlag = False) -> None:
    """Train an expert's next version on what it learned from before and what people corrected since."""
    _told_and_waited(learning.retrain(runtime(), name, rank=rank), None, wait=wait, as_json=as_json)


def evaluate(
    which: Which,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Examples; default: its own evaluation set.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a version against the base: exact answers, F1 of words, likeness of meaning."""
    client = runtime()
    job = learning.evaluate(client, which, data=data)
    found = (
        wait_for_job(client, job, on_event=(lambda message: None) if as_json else note, timeout_s=86_400).result or {}
    )
    if as_json:
        emit_json({"job": job, **found})
        return
    _show_figures(found)
    table(
        ("line", "expected", "answered"), [(row["line"], row["expected"], row["answer"]) for row in found["wrong"][:10]]
    )


def list_versions(name: Name, as_json: JsonFlag = False) -> None:
    """List an expert's versions, the newest first, with what was measured and why they are live or not."""
    found = learning.versions(runtime(), name)
    if as_json:
        emit_json([_view(view) for view in found])
        return
    table(
        ("version", "state", "engine", "exact", "base", "F1", "adapter", "made", "why"),
        [
            (
                view.number,
                view.state,
                view.engine,
                (view.metrics or {}).get("exact_match"),
                (view.metrics or {}).get("base_exact_match"),
                (view.metrics or {}).get("token_f1"),
                None if view.adapter is None else view.adapter.sha256[:12],
                f"{view.created_at:%Y-%m-%d %H:%M}",
                "; ".join((view.verdict or {}).get("reasons", [])) or None,
            )
            for view in found
        ],
    )


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="As `moe experts versions` lists them.")],
    as_json: JsonFlag = False,
) -> None:
    """Make a version live, whatever the gate said. Chunks under way end with the version they began with."""
    client = runtime()
    view, refresh = learning.promote(client, name, version)
    if refresh is not None:
        wait_for_job(client, refresh, on_event=(lambda message: None) if as_json else note)
    _show_live(view, as_json=as_json)


def rollback(name: Name, as_json: JsonFlag = False) -> None:
    """Go back to the version that was live before."""
    _show_live(learning.rollback(runtime(), name), as_json=as_json)


def retire(name: Name, as_json: JsonFlag = False) -> None:
    """Take an expert out of service. Everything it was stays stored; `promote` brings it back."""
    client = runtime()
    job = learning.retire(client, name)
    if job is not None:
        wait_for_job(client, job, on_event=(lambda message: None) if as_json else note)
    if as_json:
        emit_json({"expert": name, "retired": True, "job": job})
    else:
        say(f"{name} is retired" if job is not None else f"{name} was retired already")


def register(app: typer.Typer) -> None:
    """Add the commands to ``moe experts``."""
    for command in (create, train, retrain, evaluate, promote, rollback, retire):
        app.command()(command)
    app.command("versions")(list_versions)


def _told_and_waited(job: int, given: Given | None, *, wait: bool, as_json: bool) -> None:
    told = {} if given is None else _told(given, as_json=as_json)
    if not wait:
        if as_json:
            emit_json({"job": job, **told})
        else:
            say(f"job {job} is queued; `moe jobs watch {job}` follows it")
        return
    client = runtime()
    found = succeeded(follow(client, job, quiet=as_json)).result or {}
    if found.get("refresh_job") is not None:
        wait_for_job(client, found["refresh_job"], on_event=(lambda message: None) if as_json else note)
    if as_json:
        emit_json({"job": job, **told, **found})
        return
    _show_figures({**found["metrics"], "expert": found["expert"], "version": found["version"]})
    version = f"{found['expert']}@{found['version']}"
    if found["promoted"]:
        say(f"{version} is live")
    else:
        say(f"[yellow]{version} stays a candidate:[/] {printable('; '.join(found['reasons']))}")


def _told(given: Given, *, as_json: bool) -> dict[str, Any]:
    """Say which rows are no examples; as data for scripts."""
    if not as_json:
        if given.duplicates:
            note(f"{given.duplicates:,} rows repeat others and count once")
        for row in given.bad[:_SHOWN_BAD]:
            say(f"[yellow]line {row.line}:[/] the row {printable(row.reason)}")
        if len(given.bad) > _SHOWN_BAD:
            say(f"[yellow]and {len(given.bad) - _SHOWN_BAD:,} more bad rows[/]")
    return {
        "examples": len(given.examples),
        "duplicates": given.duplicates,
        "bad_rows": [{"line": row.line, "reason": row.reason} for row in given.bad],
    }


def _show_figures(found: Mapping[str, Any]) -> None:
    keys = ("exact_match", "base_exact_match", "token_f1", "base_token_f1", "similarity", "base_similarity")
    table(
        ("version", "examples", "exact", "base", "F1", "base", "meaning", "base"),
        [(f"{found['expert']}@{found['version']}", found["n"], *(found.get(key) for key in keys))],
    )
    low, high = found["ci"]
    say(
        f"exact answers above the base: {found['exact_match'] - found['base_exact_match']:+.3f}, 95 % interval"
        f" {low:+.3f} to {high:+.3f}; base {'unchanged' if found['base_unchanged'] else '[red]CHANGED[/]'}"
    )
    matrix: Mapping[str, Mapping[str, Any]] = found.get("matrix") or {}
    if matrix:
        rows: Sequence[tuple[object, ...]] = [
            (name, cell["n"], cell["exact_match"], cell["base_exact_match"]) for name, cell in matrix.items()
        ]
        table(("on the examples of", "examples", "exact", "base"), rows)


def _show_live(view: VersionView, *, as_json: bool) -> None:
    if as_json:
        emit_json(_view(view))
    else:
        say(f"{view.expert}@{view.number} is live")


def _view(view: VersionView) -> dict[str, Any]:
    return {
        "expert": view.expert,
        "version": view.number,
        "state": view.state,
        "engine": view.engine,
        "adapter_sha256": None if view.adapter is None else view.adapter.sha256,
        "base_sha256": None if view.adapter is None else view.adapter.base_sha256,
        "metrics": view.metrics,
        "verdict": view.verdict,
        "job": view.job_id,
        "created_at": view.created_at.isoformat(),
        "promoted_at": None if view.promoted_at is None else view.promoted_at.isoformat(),
    }
