"""``moe feedback`` and ``moe gaps``: what people say of answers, and what nobody could answer for."""

from typing import Annotated

import typer

from jobs.cli.console import JsonFlag, emit_json, say, table
from jobs.cli.session import runtime
from jobs.errors import BadInput
from storage import catalogue, runs
from storage import feedback as stored
from storage.database import transact

gaps_app = typer.Typer(no_args_is_help=True, help="Questions that no expert covers.")

_TEXT_SHOWN = 100


def feedback(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, beginning of an id, or name of a run.")],
    custom_id: Annotated[str, typer.Argument(metavar="CUSTOM_ID", help="The line that is judged.")],
    positive: Annotated[bool | None, typer.Option("--positive/--negative", help="Whether the answer was good.")] = None,
    expert: Annotated[str | None, typer.Option(help="The expert that should have answered.")] = None,
    answer: Annotated[str | None, typer.Option(help="What should have been answered.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge an answer. Experts that are judged well weigh more when answers are combined."""
    if positive is None and expert is None and answer is None:
        raise BadInput("say --positive or --negative, the right --expert, or the right --answer")
    client = runtime()
    if expert is not None:
        transact(client.engine, lambda c: catalogue.expert(c, expert))
    view = transact(client.engine, lambda c: runs.find(c, run))
    judged = transact(
        client.engine,
        lambda c: stored.add(c, view, custom_id, positive=positive, correct_expert=expert, correct_answer=answer),
    )
    if as_json:
        emit_json({"run": view.public_id, "custom_id": custom_id, "expert": judged})
    else:
        say(f"noted for {judged}")


@gaps_app.command("list")
def list_gaps(
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """List questions that no expert covers."""
    client = runtime()
    run_id = None if run is None else transact(client.engine, lambda c: runs.find(c, run)).id
    found = transact(client.engine, lambda c: stored.gaps(c, run_id=run_id, limit=limit))
    if as_json:
        emit_json(
            [
                {
                    "run": gap.run,
                    "custom_id": gap.custom_id,
                    "text": gap.text,
                    "coverage": round(gap.coverage, 4),
                    "nearest": gap.nearest,
                }
                for gap in found
            ]
        )
        return
    table(
        ("coverage", "question", "nearest", "run", "custom_id"),
        [(round(g.coverage, 2), g.text[:_TEXT_SHOWN], g.nearest, g.run, g.custom_id) for g in found],
    )
