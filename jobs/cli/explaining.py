"""Showing a decision and an answer to a person."""

from typing import Any

from jobs.ask import Reply
from jobs.cli.console import printable, say, table


def show_reply(reply: Reply) -> None:
    """The answer, whose it is, what it rests on, and why it went there."""
    passport = reply.line["moe"]
    if reply.text is None:
        say(f"[red]failed[/]: {printable(reply.line['error']['message'])}")
    else:
        say(printable(reply.text))
        show_passages(passport["passages"] if passport["answered"] else [])
    say("")
    say(one_line(passport))
    say(f"why: {printable(passport['reason'])}")
    say(f"[dim]{reply.seconds:.2f} s; run {reply.run}[/]")


def one_line(passport: dict[str, Any]) -> str:
    """``finance 0.91 (version 1), legal 0.09 · confidence 0.97 · coverage 0.88``."""
    names = ", ".join(f"[bold]{e['name']}[/] {e['weight']:.2f} (version {e['version']})" for e in passport["experts"])
    scope = "" if passport["in_scope"] else " · [yellow]outside every domain[/]"
    return (
        f"{names or 'no expert'} · confidence {passport['confidence']:.2f} · coverage {passport['coverage']:.2f}{scope}"
    )


def show_passages(passages: list[dict[str, Any]]) -> None:
    """Where an answer stands: document and characters."""
    for number, passage in enumerate(passages, 1):
        place = f"{passage['document']}, characters {passage['start']}–{passage['end']}"
        source = f"{passage['expert']}/{printable(place)}"
        say(f"  \\[{number}] {printable(passage['title'])} ({source}; cosine {passage['score']:.2f})")


def show_otherwise(otherwise: dict[str, Any]) -> None:
    """What would have changed the decision."""
    if "runner_up" in otherwise:
        say(f"next is {otherwise['runner_up']}, {otherwise['margin']:.2f} behind")
    for part, expert in otherwise.get("alone", {}).items():
        say(f"{part}: would have chosen {expert}")
    if "coverage" in otherwise:
        side = "above" if otherwise["coverage"] >= 0 else "below"
        say(f"coverage lies {abs(otherwise['coverage']):.2f} {side} the threshold")


def show_decision(found: dict[str, Any]) -> None:
    """Every part of a decision."""
    say(one_line({**found, "experts": found["experts"]}))
    say(f"why: {printable(found['reason'])}")
    table(
        ("expert", "gate", "own assessment", "share", "load factor", "score", "priority", "wait s", "keywords"),
        [
            (
                name,
                *(s.get(key) for key in ("gate", "self", "share", "load", "final", "priority", "wait_s")),
                ", ".join(found["keywords"].get(name, [])),
            )
            for name, s in found["scores"].items()
        ],
    )
    if found["nearest"]:
        table(
            ("nearest examples", "expert", "cosine"),
            [(n["text"], n["expert"] or "none", n["cosine"]) for n in found["nearest"]],
        )
    show_otherwise(found.get("otherwise") or {})
    analysis = found["analysis"]
    flags = [name for name, key in (("context", "has_context"), ("code", "has_code")) if analysis[key]]
    say(
        f"task {analysis['task']}, complexity {analysis['complexity']:.2f}"
        + (f", with {' and '.join(flags)}" if flags else "")
    )
