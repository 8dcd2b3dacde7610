"""The compose file and the Dockerfile as Docker reads them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent.parent
FOLDER = ROOT / "docker"

# ${NAME}, ${NAME:-default}, ${NAME:?message}, and $$ for a plain dollar sign.
_VARIABLE = re.compile(r"\$(?:(?P<plain>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<text>[^}]*))?\})")


class Required(Exception):
    """A variable without a default is not set; Docker Compose refuses to start then."""


def compose() -> dict[str, Any]:
    """The compose file with its anchors and merges resolved, its variables as written."""
    read: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return read


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run this program."""
    return {name: service for name, service in services().items() if service["image"].startswith("adaptive-moe")}


def strings(value: Any) -> Iterator[str]:
    """Every string in a part of the compose file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from strings(key)
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def variables(value: Any) -> dict[str, set[str | None]]:
    """name -> how it is used: `:?` required, `:-…` with that default, None plain."""
    found: dict[str, set[str | None]] = {}
    for text in strings(value):
        for match in _VARIABLE.finditer(text):
            if match["name"]:
                how = match["how"] if match["how"] != ":-" else ":-" + match["text"]
                found.setdefault(match["name"], set()).add(how)
    return found


def substitute(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its variables put in, as Compose does it. Raises Required."""

    def put(match: re.Match[str]) -> str:
        if match["plain"]:
            return "$"
        value = values.get(match["name"], "")
        if value or match["how"] is None:
            return value
        if match["how"] == ":?":
            raise Required(f"{match['name']}: {match['text']}")
        return str(match["text"])

    return _VARIABLE.sub(put, text)


def environment(service: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """What a container of the service finds in its environment: a variable without a value is passed on where it is
    set, and left out where it is not. Raises Required."""
    found = {}
    for name, value in service.get("environment", {}).items():
        if value is not None:
            found[name] = substitute(str(value), values)
        elif name in values:
            found[name] = values[name]
    return found


@dataclass(frozen=True)
class Stage:
    """One `FROM … AS name` of the Dockerfile: its instructions in order."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.instructions if name == instruction]


def stages() -> dict[str, Stage]:
    """The Dockerfile, stage by stage."""
    text = (FOLDER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: dict[str, Stage] = {}
    last = ""
    for logical in "\n".join(lines).replace("\\\n", " ").split("\n"):
        instruction, _, arguments = logical.strip().partition(" ")
        if instruction == "FROM":
            parent, _, last = arguments.partition(" AS ")
            found[last] = Stage(last, parent)
        else:
            found[last].instructions.append((instruction, arguments.strip()))
    return found


def effective(target: str, instruction: str) -> str | None:
    """The last such instruction that holds in an image: its own stage's, else that of the stages it is made from."""
    known = stages()
    while target in known:
        given = known[target].all(instruction)
        if given:
            return given[-1]
        target = known[target].parent
    return None


def exec_form(arguments: str | None) -> list[str]:
    """``["worker", "control"]`` as a list. Raises ValueError for the shell form."""
    if arguments is None:
        raise ValueError("there is no such instruction")
    parsed: list[str] = json.loads(arguments)
    return parsed


def image_environment(target: str) -> dict[str, str]:
    """What `ENV` sets in an image."""
    known, found = stages(), dict[str, str]()
    while target in known:
        for arguments in known[target].all("ENV"):
            for pair in arguments.split():
                name, _, value = pair.partition("=")
                found.setdefault(name, value)
        target = known[target].parent
    return found


def example() -> tuple[dict[str, str], dict[str, str]]:
    """``env.example``: (what must be filled in, what is shown with its default)."""
    required, shown = dict[str, str](), dict[str, str]()
    for line in (FOLDER / "env.example").read_text().splitlines():
        name, equals, value = line.removeprefix("#").strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Z_]+", name):
            continue
        (shown if line.startswith("#") else required)[name] = value
    return required, shown
