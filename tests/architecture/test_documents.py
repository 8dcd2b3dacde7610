"""The documents say what is so: links lead somewhere, what is named exists, the example configuration loads."""

import re
from pathlib import Path

import pytest
import yaml

from storage.states import MOVES
from tests.architecture.sources import ROOT
from worker.settings import Settings, load, shown

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docker").glob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)\)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_architecture_names_every_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tables = re.findall(
        r'__tablename__ = "(\w+)"', "".join(p.read_text() for p in (ROOT / "storage/tables").glob("*.py"))
    )

    assert [table for table in {*tables, *MOVES} if f"`{table}`" not in text] == []


def test_the_example_configuration_holds_the_defaults(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies it as it is changes nothing."""
    example = ROOT / "moe.example.yaml"
    defaults = shown(Settings())
    monkeypatch.setenv("MOE_CONFIG", str(example))

    assert shown(load()) == defaults
    assert len(yaml.safe_load(example.read_text())) > 5


def test_every_section_of_the_decisions_is_numbered_in_order() -> None:
    numbers = re.findall(r"^## (\d+)\. ", (ROOT / "DECISIONS.md").read_text(), re.MULTILINE)

    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
