"""Every kind of router on labelled queries, with an encoder that needs no model."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from experts.errors import CannotTrain, UnknownKind
from jobs.errors import BadInput
from jobs.reading.labelled import Columns
from jobs.router_bench import BenchOptions, bench
from worker.settings import Encoder

LABELS = ("alpha", "beta", "gamma")
SIZES = {"train": 12, "dev": 6, "test": 6}
SPLIT = Columns(split="split")
FULL = Columns(split="split", group="lang", outside="oos")


def queries(split: str, n: int, labels: Iterable[str] = LABELS) -> list[dict[str, Any]]:
    """``n`` queries of each label, easily told apart, half of them in each of two languages."""
    return [
        {"text": f"{split} {i} about {label} and {label}s", "label": label, "split": split, "lang": ("en", "de")[i % 2]}
        for i in range(n)
        for label in labels
    ]


def outside(split: str, n: int) -> list[dict[str, Any]]:
    return [
        {"text": f"{split} bread number {i} with butter", "label": "oos", "split": split, "lang": "en"}
        for i in range(n)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "queries.jsonl"
    write(path, [row for split, n in SIZES.items() for row in queries(split, n) + outside(split, 3)])
    return path


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def measured(path: Path, columns: Columns = FULL, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"kinds": ["centroid"], "world": False} | options
    return bench(str(path), Encoder(name="hashing"), BenchOptions(columns, **given))


# --- what comes out -----------------------------------------------------------------------------------------------


def test_it_is_told_what_was_measured(file: Path) -> None:
    found = measured(file)

    assert found["data"] == {
        "file": "queries.jsonl",
        "rows": 81,
        "train": 39,
        "dev": 21,
        "test": 21,
        "labels": ["alpha", "beta", "gamma"],
        "oos_label": "oos",
        "group_field": "lang",
        "shots": None,
    }
    assert (found["encoder"], found["seeds"], found["default"]) == ("hashing", 1, "ensemble")
    assert found["seconds"] > 0
    json.dumps(found, allow_nan=False)


def test_queries_that_are_easily_told_apart_are(file: Path) -> None:
    result = measured(file)["results"]["centroid"]

    assert (result["n"], result["accuracy"], result["macro_f1"], result["ci"]) == (18, 1.0, 1.0, [1.0, 1.0])
    assert (result["n_outside"], result["oos_auroc"], result["oos_fpr95"]) == (3, 1.0, 0.0)
    assert result["confusion"] == {"labels": list(LABELS), "matrix": [[6, 0, 0], [0, 6, 0], [0, 0, 6]]}
    assert {group: (g["n"], g["n_outside"]) for group, g in result["groups"].items()} == {"de": (9, 0), "en": (9, 3)}
    assert result["confused"] == []


def test_a_label_that_was_swapped_in_the_test_split_shows_as_confused(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["split"] == "test" and row["label"] == "beta":
            row["label"] = "gamma"
    write(file, rows)

    result = measured(file)["results"]["centroid"]

    assert result["accuracy"] == round(12 / 18, 4)
    assert result["confusion"]["matrix"] == [[6, 0, 0], [0, 0, 0], [0, 6, 6]]
    [pair] = result["confused"]
    assert (pair["true"], pair["chosen"], pair["n"]) == ("gamma", "beta", 6)
    assert pair["examples"] == [f"test {i} about beta and betas" for i in range(3)]


def test_every_kind_is_measured_the_default_first_and_against_the_others(file: Path) -> None:
    found = measured(file, kinds=())

    assert list(found["results"]) == ["ensemble", "centroid", "heuristic", "knn", "neural", "random", "default"]
    assert found["results"]["default"] == found["results"]["ensemble"]
    assert [(pair["a"], pair["b"]) for pair in found["paired"]] == [
        ("ensemble", kind) for kind in ("centroid", "heuristic", "knn", "neural", "random")
    ]
    by_kind = {pair["b"]: pair["difference"] for pair in found["paired"]}
    assert (by_kind["centroid"], by_kind["knn"]) == (0.0, 0.0)
    assert by_kind["heuristic"] == round(1 - 1 / 3, 4)  # without keywords it always takes the first


def test_targets_are_of_the_default_kind(file: Path) -> None:
    assert measured(file)["targets"] == []

    found = measured(file, kinds=["ensemble"])

    default = found["results"]["default"]
    assert [(t["name"], t["value"], t["target"], t["met"]) for t in found["targets"]] == [
        ("routing accuracy", 1.0, 0.95, True),
        ("calibration error", default["ece"], 0.05, default["ece"] <= 0.05),
        ("outside recognised (AUROC)", default["oos_auroc"], 0.9, default["oos_auroc"] >= 0.9),
        ("milliseconds per query without embedding", default["latency_ms"], 5.0, default["latency_ms"] <= 5),
    ]


def test_what_cannot_be_measured_is_no_target(file: Path) -> None:
    write(file, [row for split, n in SIZES.items() for row in queries(split, n)])

    found = measured(file, kinds=["ensemble"])

    assert found["results"]["default"]["oos_auroc"] is None
    assert [target["name"] for target in found["targets"]] == [
        "routing accuracy",
        "calibration error",
        "milliseconds per query without embedding",
    ]


def test_each_label_is_left_out_in_turn(file: Path) -> None:
    left_out = measured(file, leave_one_label_out=True)["leave_one_label_out"]

    assert list(left_out["labels"]) == list(LABELS)
    assert left_out["mean"]["centroid"] == {"auroc": 1.0, "fpr95": 0.0}
    assert measured(file)["leave_one_label_out"] is None


def test_a_few_exemplars_of_each_label_may_do(file: Path) -> None:
    found = measured(file, shots=4)

    assert found["data"]["shots"] == 4
    assert found["data"]["train"] == 39
    assert found["results"]["centroid"]["accuracy"] == 1.0


def test_the_same_is_measured_twice(file: Path) -> None:
    def lasting(found: dict[str, Any]) -> dict[str, Any]:
        result = found["results"]["centroid"]
        return {key: value for key, value in result.items() if key not in ("latency_ms", "train_seconds")}

    assert lasting(measured(file)) == lasting(measured(file))


def test_progress_is_told(file: Path) -> None:
    heard: list[str] = []
    options = BenchOptions(FULL, kinds=["centroid", "knn"], world=False)

    bench(str(file), Encoder(name="hashing"), options, report=heard.append)

    assert heard[0] == "embedding 81 queries"
    assert [message.split(":")[0] for message in heard[1:]] == ["centroid", "knn"]


# --- splits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", ["train", "training"])
@pytest.mark.parametrize("dev", ["dev", "val", "valid", "validation"])
def test_splits_are_found_by_their_usual_names(file: Path, train: str, dev: str) -> None:
    write(file, [*queries(train, 8), *queries(dev, 6), *queries("test", 2), *queries("unused", 1)])

    data = measured(file)["data"]

    assert (data["rows"], data["train"], data["dev"], data["test"]) == (51, 24, 18, 6)


def test_splits_are_found_by_the_names_given(file: Path) -> None:
    write(file, [*queries("a", 8), *queries("b", 7), *queries("c", 2), *queries("train", 1), *queries("test", 1)])

    data = measured(file, train_split="a", dev_split="b", test_split="c")["data"]

    assert (data["train"], data["dev"], data["test"]) == (24, 21, 6)


def test_splits_may_be_named_by_another_field_and_by_numbers(file: Path) -> None:
    rows = [*queries("train", 8), *queries("test", 2)]
    write(file, [row | {"fold": int(row["split"] == "test")} for row in rows])

    data = measured(file, Columns(split="fold"), train_split="0", test_split="1")["data"]

    assert (data["train"], data["dev"], data["test"]) == (24, 0, 6)


def test_without_a_dev_split_parts_of_the_training_split_calibrate(file: Path) -> None:
    write(file, [*queries("train", 8), *queries("test", 2)])
    heard: list[str] = []

    found = bench(
        str(file), Encoder(name="hashing"), BenchOptions(SPLIT, kinds=["centroid"], world=False), report=heard.append
    )

    assert found["data"]["dev"] == 0
    assert heard[0] == "no dev split: probabilities are calibrated on parts of the training split left out in turn"
    assert found["results"]["centroid"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["dev", "test"], "no query is of split 'train'; there are: dev, test. Say which with --train-split"),
        (["train", "dev"], "no query is of split 'test'; there are: dev, train. Say which with --test-split"),
        (["Train", "TEST"], "no query is of split 'train'; there are: TEST, Train. Say which with --train-split"),
    ],
)
def test_a_split_that_is_missing_is_told(file: Path, splits: list[str], said: str) -> None:
    write(file, [row for split in splits for row in queries(split, 6)])

    with pytest.raises(BadInput) as raised:
        measured(file)

    assert str(raised.value) == f"{file}: {said}"


@pytest.mark.parametrize("which", ["train_split", "dev_split", "test_split"])
def test_a_split_that_was_named_and_is_not_there_is_told(file: Path, which: str) -> None:
    with pytest.raises(BadInput) as raised:
        measured(file, FULL, **{which: "another"})

    assert str(raised.value) == f"{file}: no query is of split 'another'; there are: dev, test, train"


def test_of_many_splits_ten_are_named(file: Path) -> None:
    write(file, [row for n in range(12) for row in queries(f"s{n:02}", 1)])

    with pytest.raises(BadInput, match=r"there are: s00, s01, s02, s03, s04, s05, s06, s07, s08, s09\. Say"):
        measured(file)


# --- what cannot be measured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["alpha"], []], ids=["one", "none"])
def test_a_single_label_leaves_nothing_to_choose(file: Path, labels: list[str]) -> None:
    write(file, [row for split in SIZES for row in queries(split, 6, labels) + outside(split, 3)])

    with pytest.raises(CannotTrain) as raised:
        measured(file)

    assert str(raised.value) == (
        f"the training split has {len(labels)} labels; two are the least there is to choose between"
    )


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_label_that_was_never_trained_is_told(file: Path, split: str) -> None:
    with file.open("a") as more:
        for label in ("delta", "epsilon"):
            more.write(json.dumps(queries(split, 1, [label])[0]) + "\n")

    with pytest.raises(CannotTrain) as raised:
        measured(file)

    assert str(raised.value) == (
        f"labels of the {split} split that the training split does not have: ['delta', 'epsilon']"
    )


def test_a_label_with_too_few_queries_is_told(file: Path) -> None:
    with file.open("a") as more:
        more.write(json.dumps(queries("train", 1, ["delta"])[0]) + "\n")

    with pytest.raises(CannotTrain, match=r"^expert 'delta' has 1 exemplars; two are the least"):
        measured(file)


def test_an_unknown_kind_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownKind, match=r"^unknown router kind 'psychic'"):
        measured(tmp_path / "missing.jsonl", kinds=["centroid", "psychic"])


def test_a_test_split_of_queries_outside_only_has_no_accuracy(file: Path) -> None:
    write(file, [*queries("train", 8), *outside("train", 4), *outside("test", 4)])

    result = measured(file)["results"]["centroid"]

    assert (result["accuracy"], result["macro_f1"], result["ece"]) == (None, None, None)
    assert (result["n_outside"], result["oos_auroc"]) == (4, None)


def test_what_was_measured_of_any_label_can_be_written(file: Path) -> None:
    """Labels are whatever a file holds."""
    odd = [r"a\ud800b", "<b>", "[red]"]
    text = "".join(json.dumps(row) + "\n" for split in SIZES for row in queries(split, 6, ["PLACE", *odd[1:]]))
    file.write_text(text.replace("PLACE", odd[0]))

    found = measured(file)

    json.dumps(found, ensure_ascii=False).encode()
