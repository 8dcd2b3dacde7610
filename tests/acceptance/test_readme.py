"""The README's commands, in their order, as a reader would type them; and the output line it shows."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import ROOT
from tests.support.servers import open_folder

pytestmark = pytest.mark.timeout(400)

README = (ROOT / "README.md").read_text()


def scripts() -> list[str]:
    """What follows the prompts of every console block, one script per command."""
    found: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif line.startswith("> "):
                found[-1] += "\n" + line[2:]
    return found


def shape(value: Any) -> Any:
    """Keys and types, without values; of a list its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def rounded(value: Any) -> Any:
    """Fractions to the first digit: the last ones differ between processors."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return pytest.approx(value, abs=0.05) if isinstance(value, float) else value


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as opened:
        yield opened
        run(opened, "moe down")


def run(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_every_command_of_the_readme_does_what_it_says(folder: Path) -> None:
    said: dict[str, str] = {}
    for script in scripts():
        done = run(folder, script)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        said[script.split("\n")[0]] = done.stdout
    assert "line 5: invalid_request: text: Field required" in said["moe batch submit questions.jsonl --dry-run"]
    assert "5 in = 4 output + 1 error" in said["moe batch status first"]
    assert "everything is accounted for" in said["moe batch verify first"]
    assert "5 in = 5 output + 0 error" in said["moe batch retry-failed first --edits mended.jsonl --wait"]
    assert "O(log n)" in said['moe ask "what is the time complexity of binary search?"']
    assert said['moe router explain "can my landlord keep the deposit?"'].startswith("legal ")
    assert "hedgehog" in said["moe gaps list --run first"]
    fed = said['moe ask "what should I feed a hedgehog in winter?" --model moe/science']
    assert fed.startswith("In autumn a hedgehog eats cat food")
    assert said["moe down"] == "stopped\n"
    answers = {line["custom_id"]: line for line in map(json.loads, (folder / "answers.jsonl").read_text().splitlines())}
    assert list(answers) == ["q1", "q2", "q3", "q4"]
    assert json.loads((folder / "errors.jsonl").read_text())["error"]["line"] == 5

    (shown,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL))
    assert shape(shown) == shape(answers["q2"])
    assert shown["response"]["body"]["choices"] == answers["q2"]["response"]["body"]["choices"]
    for key in (
        "line",
        "experts",
        "passages",
        "confidence",
        "coverage",
        "answered_by",
        "answer_confidence",
        "strategy",
    ):
        assert rounded(shown["moe"][key]) == rounded(answers["q2"]["moe"][key]), key
    assert shown["moe"]["reason"][:30] == answers["q2"]["moe"]["reason"][:30]


def test_the_readme_names_the_two_commands_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"`?make ([a-z]+)", README)

    assert {"demo", "test", "bench"} <= set(named) <= set(targets)
