"""``moe experts bench-retrieval``: what routing costs or gains where passages are looked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs import retrieval_bench
from jobs.cli.console import emit_json, note, printable, say, table, working
from jobs.cli.session import settings
from jobs.writing import check_place, write_json

_STDOUT = Path("-")


def bench_retrieval(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines of passages and questions; - for stdin.")],
    top: Annotated[int, typer.Option(min=1, max=100, help="Recall is measured among the first N passages.")] = 5,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there as JSON; - for stdout.")
    ] = None,
) -> None:
    """Measure how well passages are found in many experts' libraries, against one index over all of them."""
    if json_path is not None and json_path != _STDOUT:
        check_place(json_path)
    with working("embedding and searching …"):
        found = retrieval_bench.bench(file, settings().encoder, top=top)
    if json_path == _STDOUT:
        emit_json(found)
        return
    if json_path is not None:
        write_json(json_path, found)
        note(f"written to {json_path}")
    for split, measured in found["splits"].items():
        _show(split, measured, found)


def _show(split: str, measured: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    asked = f"{measured['answerable']:,} answerable questions, {measured['unanswerable']:,} others"
    passages = f"{sum(found['data']['passages'].values()):,} passages of {len(found['data']['passages'])} domains"
    names = list(measured["routed_less_global"])
    table(
        ("method", *names, "passages read", "at most", "AUROC answerable", "ms per question"),
        [
            (
                method,
                *(_with_interval(figures[name]) for name in names),
                f"{figures['read']:.1%}",
                f"{figures['read_at_most']:.1%}",
                figures["auroc"],
                figures["ms"],
            )
            for method, figures in measured["methods"].items()
        ],
        title=f"{split}: {asked}, {passages}",
    )
    differences = ", ".join(
        f"{name} {_with_interval(value, '+')}" for name, value in measured["routed_less_global"].items()
    )
    say(f"routed less global: {printable(differences)} (95 % intervals)")
    for gap, n in measured["gaps"].items():
        scores = ", ".join(
            f"{method} {figures['auroc_by_gap'][gap]}"
            for method, figures in measured["methods"].items()
            if figures["auroc_by_gap"][gap] is not None
        )
        say(f"AUROC against {n:,} of {printable(gap)}: {scores or 'none'}")
    say(f"the router names the right domain first for {measured['router_accuracy']:.1%}")
    say("")


def _with_interval(estimate: Mapping[str, Any], sign: str = "") -> str | None:
    """``0.891 [0.869, 0.912]``; None where nothing could be measured."""
    if estimate["value"] is None:
        return None
    low, high = estimate["ci"]
    return f"{estimate['value']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
