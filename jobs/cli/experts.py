"""``moe experts``: see them, load them, change what they know."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import catalogue
from jobs.cli.console import JsonFlag, emit_json, note, printable, say, table
from jobs.cli.learning import register
from jobs.cli.retrieval import bench_retrieval
from jobs.cli.session import runtime
from jobs.cli.standing import experts_status
from jobs.training_jobs import wait_for_job
from storage import catalogue as stored
from storage import rates
from storage.database import transact

app = typer.Typer(no_args_is_help=True, help="See experts, load them, change what they know.")
docs_app = typer.Typer(no_args_is_help=True, help="The documents of an expert's library.")
app.add_typer(docs_app, name="docs")
app.command("status")(experts_status)
app.command("bench-retrieval")(bench_retrieval)
register(app)

Name = Annotated[str, typer.Argument(metavar="NAME", help="An expert.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until the change serves.")]


@app.command("list")
def list_experts(as_json: JsonFlag = False) -> None:
    """List the experts."""
    found = catalogue.listing(runtime())
    if as_json:
        emit_json(found)
        return
    table(
        ("name", "title", "parent", "serving", "version", "engine", "knowledge", "documents", "passages", "exemplars"),
        [tuple(expert.values()) for expert in found],
    )


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show one expert's card, and what it did in the last 24 hours."""
    client = runtime()
    expert = transact(client.engine, lambda c: stored.expert(c, name))
    hours = transact(client.engine, lambda c: rates.expert_hours(c, expert.id))
    facts = next(facts for facts in catalogue.listing(client) if facts["name"] == name)
    if as_json:
        emit_json(facts | {"card": expert.card, "hours": [asdict(hour) for hour in hours]})
        return
    card = expert.card
    say(f"[bold]{printable(card['title'])}[/] ({name}, version {expert.version}, {expert.engine} engine)")
    say(printable(card["description"]))
    say(f"knows {expert.n_documents:,} documents, {expert.n_passages:,} passages; {expert.n_exemplars:,} exemplars")
    table(
        ("capability", "from confidence", "takes at once", "expected ms", "what"),
        [
            (c["name"], c["confidence_threshold"], c["max_load"], c["expected_latency_ms"], c["description"])
            for c in card["capabilities"]
        ],
    )
    say(f"keywords: {printable(', '.join(card['keywords']))}")
    for limit in card["limits"]:
        say(f"limit: {printable(limit)}")
    _show_hours(hours)


def _show_hours(hours: Sequence[rates.Hour]) -> None:
    if not hours:
        say("nothing was asked of it in the last 24 hours")
        return
    table(
        ("hour", "queries", "answered", "errors", "ms per query", "mean confidence"),
        [
            (
                f"{hour.hour:%Y-%m-%d %H:%M}",
                hour.n_queries,
                hour.n_answered,
                hour.n_errors,
                round(hour.busy_ms / max(hour.n_queries, 1), 2),
                None if hour.mean_confidence is None else round(hour.mean_confidence, 2),
            )
            for hour in hours
        ],
    )


@app.command()
def load(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A catalogue: one folder per expert, see the README.")],
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Load a catalogue of experts: store it, index its documents, train the router."""
    client = runtime()
    loaded = catalogue.load(client, folder)
    if not as_json:
        say(f"stored {', '.join(loaded.experts)}; changed: {', '.join(loaded.changed) or 'nothing'}")
        if loaded.jobs:
            say(f"learning, and serving when they have: jobs {', '.join(map(str, loaded.jobs))} (`moe jobs list`)")
    # While every expert still learns there is nothing to choose from; the first that has learned asks for a router.
    result = _bring_in_line(no_wait, as_json) if catalogue.listing(client) else {"job": None}
    if as_json:
        emit_json({"experts": loaded.experts, "changed": loaded.changed, "learning": loaded.jobs, **result})


@docs_app.command("add")
def add_docs(
    name: Name,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", help="Files (.md .txt .html .pdf .jsonl), or folders of them.")
    ],
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Add documents to an expert's library, or bring those of the same name up to date."""
    names = catalogue.add_documents(runtime(), name, paths)
    if not as_json:
        say(f"{name}: stored {', '.join(names)}")
    result = _bring_in_line(no_wait, as_json)
    if as_json:
        emit_json({"expert": name, "documents": names, **result})


@docs_app.command("list")
def list_docs(name: Name, as_json: JsonFlag = False) -> None:
    """List an expert's documents."""
    client = runtime()
    expert = transact(client.engine, lambda c: stored.expert(c, name))
    documents = transact(client.engine, lambda c: stored.documents(c, expert.id))
    rows = [{"name": d.name, "title": d.title, "characters": len(d.text), "sha256": d.sha256} for d in documents]
    if as_json:
        emit_json(rows)
    else:
        table(("name", "title", "characters"), [(r["name"], r["title"], r["characters"]) for r in rows])


@docs_app.command("remove")
def remove_docs(
    name: Name,
    documents: Annotated[list[str], typer.Argument(metavar="DOCUMENT…", help="Names as `docs list` shows them.")],
    no_wait: NoWait = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove documents from an expert's library."""
    removed = catalogue.remove_documents(runtime(), name, documents)
    if not as_json:
        say(f"{name}: removed {', '.join(removed)}")
    result = _bring_in_line(no_wait, as_json)
    if as_json:
        emit_json({"expert": name, "removed": removed, **result})


def _bring_in_line(no_wait: bool, quiet: bool) -> dict[str, Any]:
    """Start the refresh, and wait for it unless told not to."""
    client = runtime()
    job_id = catalogue.refresh(client)
    if no_wait:
        return {"job": job_id}
    job = wait_for_job(client, job_id, on_event=(lambda message: None) if quiet else note)
    if not quiet:
        say(f"router {(job.result or {}).get('router_version')} serves")
    return {"job": job_id, **(job.result or {})}
