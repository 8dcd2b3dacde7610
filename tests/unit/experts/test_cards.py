"""Catalogues: what is accepted, and what is refused by file, line and key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from experts.cards import Card, read_card, read_catalogue, read_expert
from experts.documents import Document
from experts.errors import BadCatalogue

CARD: dict[str, Any] = {
    "name": "bank",
    "title": "Banking",
    "description": "Answers questions about loans.",
    "keywords": ["mortgage", "loan"],
}
CAPABILITY = {"name": "loans", "description": "Explains loans."}


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def expert_files(name: str = "bank", **card: Any) -> dict[str, str | bytes]:
    """A sound expert; keys of the card can be given or, as None, taken away."""
    keys = {key: value for key, value in ({**CARD, "name": name} | card).items() if value is not None}
    return {f"{name}/card.yaml": yaml.safe_dump(keys), f"{name}/exemplars.txt": "what is a loan\n"}


class TestCard:
    def test_a_full_card_is_read_as_written(self, tmp_path: Path) -> None:
        full = CARD | {
            "parent": "professional",
            "engine": "echo",
            "capabilities": [
                CAPABILITY | {"confidence_threshold": 0.4, "max_load": 100, "expected_latency_ms": 20},
                {"name": "cards", "description": "Explains cards."},
            ],
            "limits": ["No advice."],
            "model": "org/loans-lora",
            "retrieval": True,
            "adapter": True,
        }
        card = read_card(write(tmp_path, {"card.yaml": yaml.safe_dump(full)}) / "card.yaml")
        defaults = {"confidence_threshold": 0.5, "max_load": 512, "expected_latency_ms": 200}
        full["capabilities"] = [defaults | capability for capability in full["capabilities"]]
        assert card.model_dump() == full

    def test_a_short_card_has_defaults(self, tmp_path: Path) -> None:
        card = read_card(write(tmp_path, {"card.yaml": yaml.safe_dump(CARD)}) / "card.yaml")
        assert (card.parent, card.engine, card.capabilities, card.limits) == (None, None, [], [])
        assert (card.model, card.retrieval, card.adapter) == (None, False, False)

    def test_keywords_are_lower_case_without_space_around(self) -> None:
        assert Card(**CARD | {"keywords": ["  Credit Card ", "C++"]}).keywords == ["credit card", "c++"]

    def test_a_card_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Card(**CARD).title = "Other"  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"name": "Bank"}, "name"),
            ({"name": "9bank"}, "name"),
            ({"name": "bank\n"}, "name"),
            ({"name": "../bank"}, "name"),
            ({"name": "b" * 51}, "name"),
            ({"name": None}, "name"),
            ({"title": " "}, "title"),
            ({"title": ["Bank"]}, "title"),
            ({"description": "x" * 2001}, "description"),
            ({"description": None}, "description"),
            ({"parent": "Money & More"}, "parent"),
            ({"model": " "}, "model"),
            ({"model": 7}, "model"),
            ({"retrieval": "perhaps"}, "retrieval"),
            ({"adapter": "loans"}, "adapter"),
            ({"engine": "oracle"}, "engine"),
            ({"adapter": "perhaps"}, "adapter"),
            ({"retrieval": [1]}, "retrieval"),
            ({"keywords": None}, "keywords"),
            ({"keywords": "loan"}, "keywords"),
            ({"keywords": ["loan", "x"]}, "keywords.1"),
            ({"keywords": ["x" * 61]}, "keywords.0"),
            ({"keywords": [7]}, "keywords.0"),
            ({"limits": [""]}, "limits.0"),
            ({"colour": "red"}, "colour"),
            ({"capabilities": [{"name": "loans"}]}, "capabilities.0.description"),
            ({"capabilities": [CAPABILITY | {"name": "All loans"}]}, "capabilities.0.name"),
            ({"capabilities": [CAPABILITY | {"confidence_threshold": 1.1}]}, "capabilities.0.confidence_threshold"),
            ({"capabilities": [CAPABILITY | {"confidence_threshold": -0.1}]}, "capabilities.0.confidence_threshold"),
            (
                {"capabilities": [CAPABILITY | {"confidence_threshold": float("nan")}]},
                "capabilities.0.confidence_threshold",
            ),
            ({"capabilities": [CAPABILITY | {"max_load": 0}]}, "capabilities.0.max_load"),
            ({"capabilities": [CAPABILITY | {"max_load": 1.5}]}, "capabilities.0.max_load"),
            ({"capabilities": [CAPABILITY | {"expected_latency_ms": 0}]}, "capabilities.0.expected_latency_ms"),
            (
                {"capabilities": [CAPABILITY | {"expected_latency_ms": float("inf")}]},
                "capabilities.0.expected_latency_ms",
            ),
            ({"capabilities": [CAPABILITY | {"speed": 3}]}, "capabilities.0.speed"),
        ],
        ids=str,
    )
    def test_a_wrong_key_is_named(self, tmp_path: Path, change: dict[str, Any], where: str) -> None:
        keys = {key: value for key, value in (CARD | change).items() if value is not None}
        path = write(tmp_path, {"card.yaml": yaml.safe_dump(keys)}) / "card.yaml"
        with pytest.raises(BadCatalogue) as caught:
            read_card(path)
        assert str(caught.value).startswith(f"{path}: {where}: ")

    def test_an_unknown_engine_is_answered_with_those_there_are(self, tmp_path: Path) -> None:
        path = write(tmp_path, {"card.yaml": yaml.safe_dump(CARD | {"engine": "oracle"})}) / "card.yaml"
        with pytest.raises(
            BadCatalogue, match=r"unknown engine 'oracle'; there are: echo, extractive, openai, transformers"
        ):
            read_card(path)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"- a list",
            b"just text",
            b"name: [unclosed",
            b"name: caf\xe9",
            b"name: a\x00b",
            b"&a [*a, *a]",
            b"!!python/object/apply:os.getcwd []",
            b"[" * 5000,
        ],
        ids=["empty", "a list", "text", "unclosed", "Latin-1", "NUL", "an alias", "a Python object", "deeply nested"],
    )
    def test_a_file_that_holds_no_card_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = write(tmp_path, {"card.yaml": content}) / "card.yaml"
        with pytest.raises(BadCatalogue) as caught:
            read_card(path)
        assert str(caught.value).startswith(f"{path}: ")

    def test_a_missing_card_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(BadCatalogue, match=r"card\.yaml is missing"):
            read_card(tmp_path / "card.yaml")


class TestExpert:
    def test_its_parts_are_read_together(self, tmp_path: Path) -> None:
        files = expert_files() | {
            "bank/exemplars.txt": "\ufeffwhat is a loan\r\n\r\n# a remark\n  why  \n",
            "bank/documents/b.md": "# Bees\n\nBees hum.",
            "bank/documents/a.txt": "Ants walk.",
            "bank/documents/deep/er/c-d.md": "Cats sleep.",
            "bank/documents/many.jsonl": '{"id": "lines", "title": "Lions", "text": "Lions roar."}\n',
            "bank/documents/page.html": "<title>Pigs</title><p>Pigs dig.</p>",
            "bank/documents/.DS_Store": b"\x00\x01",
        }
        expert = read_expert(write(tmp_path, files) / "bank")
        assert expert.card == Card(**CARD)
        assert expert.exemplars == ["what is a loan", "why"]
        assert expert.documents == [
            Document("a", "a", "Ants walk."),
            Document("b", "Bees", "Bees hum."),
            Document("deep/er/c-d", "c d", "Cats sleep."),
            Document("lines", "Lions", "Lions roar."),
            Document("page", "Pigs", "Pigs dig."),
        ]

    def test_documents_are_optional(self, tmp_path: Path) -> None:
        assert read_expert(write(tmp_path, expert_files()) / "bank").documents == []

    def test_a_card_that_names_another_folder_is_refused(self, tmp_path: Path) -> None:
        files = expert_files() | {"bank/card.yaml": yaml.safe_dump(CARD | {"name": "code"})}
        with pytest.raises(BadCatalogue, match="name is 'code', but the folder is called 'bank'"):
            read_expert(write(tmp_path, files) / "bank")

    @pytest.mark.parametrize("content", ["", "\n \n", "# only a remark\n"])
    def test_an_expert_without_exemplars_is_refused(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(BadCatalogue, match="holds no queries"):
            read_expert(write(tmp_path, expert_files() | {"bank/exemplars.txt": content}) / "bank")

    def test_a_missing_file_of_exemplars_is_named(self, tmp_path: Path) -> None:
        files = expert_files()
        del files["bank/exemplars.txt"]
        with pytest.raises(BadCatalogue, match=r"exemplars\.txt is missing"):
            read_expert(write(tmp_path, files) / "bank")

    @pytest.mark.parametrize("line", ["x" * 2001, "a\x00b"], ids=["too long", "NUL"])
    def test_a_bad_exemplar_is_named_by_its_line(self, tmp_path: Path, line: str) -> None:
        files = expert_files() | {"bank/exemplars.txt": f"fine\n\n{line}\n"}
        with pytest.raises(BadCatalogue, match=r"exemplars\.txt line 3: "):
            read_expert(write(tmp_path, files) / "bank")

    def test_an_exemplar_at_the_limit_is_taken(self, tmp_path: Path) -> None:
        files = expert_files() | {"bank/exemplars.txt": "x" * 2000}
        assert read_expert(write(tmp_path, files) / "bank").exemplars == ["x" * 2000]

    def test_exemplars_are_cut_at_line_feeds_only(self, tmp_path: Path) -> None:
        files = expert_files() | {"bank/exemplars.txt": "one\u2028still\x0bone\x85still\ntwo"}
        assert read_expert(write(tmp_path, files) / "bank").exemplars == ["one\u2028still\x0bone\x85still", "two"]

    def test_exemplars_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        files = expert_files() | {"bank/exemplars.txt": b"caf\xe9\n"}
        with pytest.raises(BadCatalogue, match=r"exemplars\.txt: "):
            read_expert(write(tmp_path, files) / "bank")

    def test_an_expert_without_examples_does_not_learn(self, tmp_path: Path) -> None:
        """Examples to measure on alone teach nothing."""
        expert = read_expert(write(tmp_path, expert_files() | {"bank/test.jsonl": "{}\n"}) / "bank")
        assert (expert.train, expert.test, expert.card.adapter) == (None, None, False)

    @pytest.mark.parametrize("test", [True, False], ids=["and to measure on", "only"])
    def test_an_expert_with_examples_learns_an_adapter(self, tmp_path: Path, test: bool) -> None:
        """The files are read where they are trained on, not here."""
        files = expert_files(retrieval=True) | {"bank/train.jsonl": "not JSON\n"}
        folder = write(tmp_path, files | ({"bank/test.jsonl": ""} if test else {})) / "bank"
        expert = read_expert(folder)
        assert (expert.train, expert.test) == (folder / "train.jsonl", folder / "test.jsonl" if test else None)
        assert expert.card == Card(**CARD, adapter=True, retrieval=True)

    @pytest.mark.parametrize(
        ("name", "content"),
        [("empty.md", b""), ("table.xlsx", b"PK")],
    )
    def test_a_bad_document_makes_the_catalogue_bad_and_is_named(
        self, tmp_path: Path, name: str, content: bytes
    ) -> None:
        files = expert_files() | {f"bank/documents/{name}": content}
        with pytest.raises(BadCatalogue, match=name):
            read_expert(write(tmp_path, files) / "bank")

    @pytest.mark.parametrize(
        "other",
        [
            {"bank/documents/a.txt": "Apes climb."},
            {"bank/documents/z.jsonl": '{"id": "a", "text": "Apes climb."}\n'},
        ],
        ids=["of another kind", "of another file's line"],
    )
    def test_two_documents_of_one_name_are_refused(self, tmp_path: Path, other: dict[str, str | bytes]) -> None:
        """A document's name tells it apart from the expert's others."""
        files = expert_files() | {"bank/documents/a.md": "Ants walk."} | other
        with pytest.raises(BadCatalogue, match="a document named 'a' is there already"):
            read_expert(write(tmp_path, files) / "bank")

    def test_documents_whose_names_hold_full_stops_stay_apart(self, tmp_path: Path) -> None:
        files = expert_files() | {"bank/documents/v1.1.md": "One.", "bank/documents/v1.2.md": "Two."}
        assert [d.name for d in read_expert(write(tmp_path, files) / "bank").documents] == ["v1.1", "v1.2"]


class TestCatalogue:
    def test_experts_come_by_name_and_hidden_folders_are_passed_over(self, tmp_path: Path) -> None:
        files = (
            expert_files("code") | expert_files("bank") | {".git/config": "x", "_drafts/x.md": "x", "readme.md": "x"}
        )
        catalogue = read_catalogue(write(tmp_path, files))
        assert [expert.card.name for expert in catalogue.experts] == ["bank", "code"]
        assert catalogue.outside == []

    def test_queries_outside_every_domain_are_read(self, tmp_path: Path) -> None:
        files = expert_files() | {"outside.txt": "# a remark\nbake bread\n\nfeed the dog\n"}
        assert read_catalogue(write(tmp_path, files)).outside == ["bake bread", "feed the dog"]

    def test_one_bad_expert_makes_the_whole_catalogue_bad(self, tmp_path: Path) -> None:
        with pytest.raises(BadCatalogue, match=r"code.*title"):
            read_catalogue(write(tmp_path, expert_files("bank") | expert_files("code", title="")))

    def test_a_folder_without_experts_and_a_file_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"empty/readme.md": "x"})
        with pytest.raises(BadCatalogue, match="holds no expert"):
            read_catalogue(tmp_path / "empty")
        for path in (tmp_path / "missing", tmp_path / "empty" / "readme.md"):
            with pytest.raises(BadCatalogue, match="is not a folder"):
                read_catalogue(path)
