"""Reading a test collection: what is wrong is named, with its line and field."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from experts.evaluation.collection import Passage, Question
from jobs.errors import BadInput
from jobs.retrieval_bench import bench, read
from worker.settings import Encoder

CODE = {"type": "passage", "id": "p1", "domain": "code", "title": "Sorting", "text": "Quicksort picks a pivot."}
LAW = {"type": "passage", "id": "p2", "domain": "law", "text": "A lease ends with notice."}
ASKED = {
    "type": "question",
    "id": "q1",
    "domain": "code",
    "text": "what does quicksort pick",
    "gold": ["p1"],
    "answerable": True,
    "split": "dev",
}
OPEN = {**ASKED, "id": "q2", "gold": [], "answerable": False, "gap": "passage-removed", "split": "test"}


def written(folder: Path, *rows: object) -> str:
    """A file of these lines; text stands as it is."""
    path = folder / "questions.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_a_collection_is_read_in_any_order(tmp_path: Path) -> None:
    """Blank lines and keys of no interest are passed over."""
    found = read(written(tmp_path, ASKED, "", {**CODE, "source": "here"}, OPEN, LAW))
    assert found.passages == (
        Passage("code", "Sorting", "Quicksort picks a pivot."),
        Passage("law", "", "A lease ends with notice."),
    )
    assert found.questions == (
        Question("code", "what does quicksort pick", frozenset({0}), None, "dev"),
        Question("code", "what does quicksort pick", frozenset(), "passage-removed", "test"),
    )
    assert found.domains == ("code", "law")
    assert [question.answerable for question in found.questions] == [True, False]


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl.gz"
    path.write_bytes(gzip.compress(Path(written(tmp_path, CODE, LAW, ASKED)).read_bytes()))
    assert len(read(str(path)).passages) == 2


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 3: is not JSON"),
        ('"text"', "line 3: is not a JSON object"),
        ("[1]", "line 3: is not a JSON object"),
        ({"text": "a", "label": "b"}, "line 3: type: must be 'passage' or 'question'"),
        ({**LAW, "type": "document"}, "line 3: type: must be 'passage' or 'question'"),
        ({**LAW, "type": ["passage"]}, "line 3: type: must be 'passage' or 'question'"),
        (without(LAW, "domain"), "line 3: domain: Field required"),
        (without(LAW, "id"), "line 3: id: Field required"),
        ({**LAW, "id": 7}, "line 3: id: Input should be a valid string"),
        ({**LAW, "id": "p1"}, "line 3: id: 'p1' was used in line 1"),
        ({**LAW, "id": " "}, "line 3: id: is empty"),
        ({**LAW, "id": "p3", "text": " \n"}, "line 3: text: is empty"),
        ({**LAW, "id": "p3", "domain": ""}, "line 3: domain: is empty"),
        ({**LAW, "id": "p3", "title": 1}, "line 3: title: Input should be a valid string"),
        ({**ASKED, "id": "q1", "text": ""}, "line 3: text: is empty"),
        ({**ASKED, "split": "train"}, "line 3: split: Input should be 'dev' or 'test'"),
        (without(ASKED, "split"), "line 3: split: Field required"),
        (without(ASKED, "answerable"), "line 3: answerable: Field required"),
        ({**ASKED, "answerable": "yes"}, "line 3: answerable: Input should be a valid boolean"),
        ({**ASKED, "gold": "p1"}, "line 3: gold: Input should be a valid list"),
        ({**ASKED, "gold": [1]}, "line 3: gold.0: Input should be a valid string"),
        ({**ASKED, "id": "q9", "gold": ["p1", "p8"]}, "line 3: gold: 'p8' is no passage of this file"),
        ({**ASKED, "id": "q9", "gold": []}, "line 3: gold: is empty, though the question is answerable"),
        ({**ASKED, "id": "q9", "answerable": False}, "line 3: gold: names passages, though"),
        ({**ASKED, "id": "q9", "domain": "art"}, "line 3: domain: 'art' has no passages; there are code, law"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path: Path, line: object, said: str) -> None:
    path = written(tmp_path, CODE, "", line, {**LAW, "id": "p4"}, ASKED | {"id": "q8"})
    with pytest.raises(BadInput) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}, {said}")


def test_a_question_that_was_asked_before_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, CODE, LAW, ASKED, OPEN, ASKED)
    with pytest.raises(BadInput) as refused:
        read(path)
    assert str(refused.value) == f"{path}, line 5: id: 'q1' was used in line 3"


def test_a_name_of_any_length_is_shown_in_short(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        read(written(tmp_path, CODE, LAW, {**ASKED, "gold": ["x" * 10_000]}))
    assert len(str(refused.value)) < 300


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.retrieval_bench._MAX_LINE_BYTES", 1 << 20)
    path = written(tmp_path, CODE, {**LAW, "text": "x" * (1 << 20)}, ASKED)
    with pytest.raises(BadInput, match="line 2: is longer than 1 MiB"):
        read(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((), "holds no passage"),
        ((ASKED,), "holds no passage"),
        ((CODE, LAW), "holds no answerable question"),
        ((CODE, LAW, OPEN), "holds no answerable question"),
        ((CODE, {**CODE, "id": "p3"}, ASKED), "line 1: domain: all passages are of 'code'"),
    ],
)
def test_a_file_that_cannot_be_measured_is_refused(tmp_path: Path, rows: tuple[object, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read(written(tmp_path, *rows))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read(str(tmp_path / "nowhere.jsonl"))


def test_a_file_is_measured_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, CODE, LAW, ASKED, OPEN | {"split": "dev"})
    found = bench(path, Encoder(name="hashing"), top=3)
    assert (found["file"], found["encoder"], found["top"]) == (path, "hashing", 3)
    assert found["data"] == {"passages": {"code": 1, "law": 1}, "questions": 2}
    figures = found["splits"]["dev"]["methods"]
    assert list(figures) == ["global", "oracle", "top1", "top2", "routed", "exhaustive"]
    assert {name: figures[name]["recall@1"]["value"] for name in figures} == dict.fromkeys(figures, 1.0)
    assert figures["global"]["auroc"] == 0.5
    assert capfd.readouterr() == ("", "")
