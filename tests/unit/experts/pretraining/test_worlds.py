"""The bundled learned experts: their data files, and what is said of them on their cards."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import experts
from experts.pretraining.corpus import FAMILIES
from experts.pretraining.worlds.__main__ import WORLDS, main
from experts.pretraining.worlds.harbour_facts import SHIPS

LEARNED = Path(experts.__file__).parent / "learned"
SPLITS = ("train", "validation", "test")


def rows(name: str, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (LEARNED / name / f"{split}.jsonl").read_text().splitlines()]


def from_roman(numeral: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}[sign] for sign in numeral]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def test_the_bundled_files_are_what_the_command_writes(tmp_path: Path) -> None:
    main(["--out", str(tmp_path)])
    for name in WORLDS:
        for split in SPLITS:
            assert (tmp_path / name / f"{split}.jsonl").read_bytes() == (LEARNED / name / f"{split}.jsonl").read_bytes()


def test_another_seed_writes_other_rows(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--seed", "1"])
    for name in WORLDS:
        assert (tmp_path / name / "train.jsonl").read_bytes() != (LEARNED / name / "train.jsonl").read_bytes()


@pytest.mark.parametrize("name", WORLDS)
def test_no_question_is_in_two_splits_and_there_are_enough(name: str) -> None:
    prompts = {split: [row["instruction"] for row in rows(name, split)] for split in SPLITS}
    assert all(set(row) == {"instruction", "output"} for split in SPLITS for row in rows(name, split))
    everything = [prompt for split in SPLITS for prompt in prompts[split]]
    assert len(everything) == len(set(everything))
    assert 300 <= len(prompts["train"]) <= 800
    assert len(prompts["test"]) >= 100
    assert len(prompts["validation"]) >= 50


@pytest.mark.parametrize("name", WORLDS)
def test_the_card_and_the_exemplars_are_those_of_a_catalogue(name: str) -> None:
    """The keys of a card, checked without the registry of engines."""
    card: dict[str, Any] = yaml.safe_load((LEARNED / name / "card.yaml").read_text())
    assert card["name"] == name
    assert card["engine"] == "transformers"
    assert set(card) == {"name", "title", "description", "engine", "capabilities", "keywords", "limits"}
    exemplars = (LEARNED / name / "exemplars.txt").read_text().splitlines()
    assert len(set(exemplars)) >= 40
    assert not set(exemplars) & {row["instruction"] for row in rows(name, "test")}


def test_roman_numerals_read_back_as_their_number_and_no_number_is_in_two_splits() -> None:
    numbers = []
    for split in SPLITS:
        for row in rows("roman_numerals", split):
            numbers.append(int(re.findall(r"\d+", row["instruction"])[0]))
            assert from_roman(row["output"]) == numbers[-1]
            assert not re.search(r"(.)\1{3}|VV|LL|DD", row["output"])
    assert len(numbers) == len(set(numbers))


def test_every_tested_fact_of_the_harbour_was_learned_in_another_wording() -> None:
    def facts(split: str) -> set[tuple[str, str]]:
        return {(ship, row["output"]) for row in rows("harbour_facts", split) for ship in ships(row["instruction"])}

    def ships(prompt: str) -> list[str]:
        return [ship for ship in SHIPS if ship in prompt]

    def wordings(split: str) -> set[str]:
        return {row["instruction"].replace(ships(row["instruction"])[0], "") for row in rows("harbour_facts", split)}

    assert facts("test") == facts("train") == {(ship, fact) for ship, known in SHIPS.items() for fact in known}
    assert not wordings("test") & wordings("train")


def test_the_names_in_a_shell_command_come_from_its_request() -> None:
    for split in SPLITS:
        for row in rows("shell_commands", split):
            names = re.findall(r"\w+\.(?:txt|log|csv|md|conf|json|dat|sh)\b", row["output"])
            assert all(name in row["instruction"] for name in names)
            assert re.match(r"[a-z]+( |$)", row["output"])


def test_the_base_was_taught_nothing_of_these_worlds() -> None:
    """Neither the ships nor the words "Roman" and "shell command" are anywhere in the sources of its training text."""
    families = Path(experts.__file__).parent / "pretraining" / "families"
    text = "\n".join(path.read_text() for path in sorted(families.glob("*.py")))
    assert len(FAMILIES) > 5
    assert not re.search(r"Roman\b|grep|chmod|Skarnmouth", text)
    assert not [ship for ship in SHIPS if ship in text]
