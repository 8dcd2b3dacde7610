import json
import logging
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from worker import logs
from worker.settings import Settings

SECRET = "how do I hide my assets"


def settings(**changed: Any) -> Settings:
    return Settings.model_construct(**{"log_format": "json", **changed})


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged, every line of it as JSON; nothing goes to standard output."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_line_of_json_with_what_it_belongs_to(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(), role="expert")
    with bound_contextvars(run="batch_1", chunk=7):
        structlog.get_logger("tasks.answer").info("chunk.answered", queries=3)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "chunk.answered",
        "level": "info",
        "logger": "tasks.answer",
        "role": "expert",
        "run": "batch_1",
        "chunk": 7,
        "queries": 3,
    }


def test_messages_of_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(), role="router")
    logging.getLogger("celery.beat").warning("late by %d s", 5)
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("late by 5 s", "warning", "celery.beat")
    assert line["role"] == "router"


def test_a_text_with_line_breaks_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings())
    structlog.get_logger().info("two\nlines", more="a\r\nb\u2028c")
    (line,) = lines(capsys)
    assert (line["event"], line["more"]) == ("two\nlines", "a\r\nb\u2028c")


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_is_important_enough_is_said(level: str, heard: int, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(log_level=level))
    log = structlog.get_logger("worker.test")
    for say in (log.debug, log.info, log.warning, log.error):
        say("something")
    assert len(lines(capsys)) == heard


@pytest.mark.parametrize("chatty", ["kombu", "celery.app.trace", "celery.worker.strategy", "sentence_transformers"])
def test_libraries_that_say_every_step_are_heard_from_warnings_on(
    chatty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(settings())
    logging.getLogger(chatty).info("a step")
    logging.getLogger(chatty).warning("trouble")
    assert [line["event"] for line in lines(capsys)] == ["trouble"]


def test_away_from_a_terminal_the_form_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(log_format="auto"))
    structlog.get_logger().warning("said")
    assert [line["event"] for line in lines(capsys)] == ["said"]


def test_on_request_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(log_format="console"))
    structlog.get_logger().warning("said", number=7)
    said = capsys.readouterr().err
    assert "said" in said
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)


def test_configuring_twice_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings(), role="expert")
    logs.configure(settings(), role="router")
    structlog.get_logger().info("said")
    (line,) = lines(capsys)
    assert line["role"] == "router"


def test_what_was_bound_before_does_not_leak_into_the_next_process_role(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.contextvars.bind_contextvars(run="batch_old")
    logs.configure(settings())
    structlog.get_logger().info("said")
    (line,) = lines(capsys)
    assert "run" not in line


def answer_one() -> None:
    raise ValueError(f"cannot digest {SECRET!r}")


def answer_all() -> None:
    answer_one()


def test_an_error_is_described_by_its_kind_and_place_and_never_by_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(settings())
    try:
        answer_all()
    except ValueError as error:
        structlog.get_logger().error("item.failed", **logs.describe(error))
    said = capsys.readouterr().err
    line = json.loads(said)
    assert line["error"] == "ValueError"
    places = [place.split(" ") for place in line["where"].split(" > ")]
    assert [function for _, function in places][-2:] == ["answer_all", "answer_one"]
    assert all(place.startswith("test_logs.py:") for place, _ in places)
    assert SECRET not in said


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert logs.describe(KeyError(SECRET)) == {"error": "KeyError", "where": ""}
