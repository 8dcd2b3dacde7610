"""Loading experts and changing their documents."""

import base64
import json
from pathlib import Path

import pytest
import redis

from experts.cards import read_catalogue
from experts.errors import BadCatalogue, BadDocument, CannotTrain
from jobs import catalogue, training_jobs
from jobs.catalogue import Loaded
from jobs.errors import BadInput, Failed
from storage import expert_versions, jobs
from storage.database import transact
from storage.errors import NotFound
from storage.jobs import ClaimedJob
from tests.unit.jobs.lines import rows
from tests.unit.jobs.trainer import add_version, write_examples
from tests.unit.storage.builders import Store
from worker.runtime import Runtime

CARD = "name: {name}\ntitle: {name}\ndescription: Knows {name}.\nkeywords: [{name}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two experts, one of them with documents."""
    made = tmp_path / "catalogue"
    for name in ("north", "south"):
        (made / name).mkdir(parents=True)
        (made / name / "card.yaml").write_text(CARD.format(name=name))
        (made / name / "exemplars.txt").write_text(f"Where is {name}?\n# a comment\n\nWhat is {name}?\n")
    (made / "north" / "documents" / "deep").mkdir(parents=True)
    (made / "north" / "documents" / "snow.md").write_text("# Snow\n\nIt is white.")
    (made / "north" / "documents" / "deep" / "ice.txt").write_text("It is cold.")
    (made / "outside.txt").write_text("Who won the match?\n")
    return made


def documents(client: Runtime, expert: str = "north") -> list[str]:
    query = "SELECT d.name FROM document d JOIN expert e ON e.id = d.expert_id WHERE e.name = :name ORDER BY 1"
    return [name for (name,) in rows(client.engine, query, name=expert)]


def claim(client: Runtime, job_id: int) -> ClaimedJob:
    claimed = transact(client.engine, lambda c: jobs.claim(c, job_id, owner="test", ttl_s=60, max_attempts=1))
    assert claimed is not None
    return claimed


def test_a_catalogue_is_stored(bare_client: Runtime, folder: Path) -> None:
    assert catalogue.load(bare_client, folder) == Loaded(["north", "south"], ["north", "south"], [])
    assert documents(bare_client) == ["deep/ice", "snow"]
    found = catalogue.listing(bare_client)
    assert found[0] == {
        "name": "north",
        "title": "north",
        "parent": None,
        "serving": False,
        "version": 1,
        "engine": "extractive",
        "knowledge": None,
        "documents": 2,
        "passages": 0,
        "exemplars": 2,
    }
    assert [expert["name"] for expert in found] == ["north", "south"]
    assert rows(bare_client.engine, "SELECT text FROM exemplar WHERE expert_id IS NULL") == [("Who won the match?",)]


def test_loading_again_changes_nothing(bare_client: Runtime, folder: Path) -> None:
    catalogue.load(bare_client, folder)
    assert catalogue.load(bare_client, folder) == Loaded(["north", "south"], [], [])


def test_only_what_changed_is_told(bare_client: Runtime, folder: Path) -> None:
    catalogue.load(bare_client, folder)
    (folder / "south" / "card.yaml").write_text(CARD.format(name="south") + "engine: echo\n")
    assert catalogue.load(bare_client, folder) == Loaded(["north", "south"], ["south"], [])
    assert [(e["version"], e["engine"]) for e in catalogue.listing(bare_client)] == [(1, "extractive"), (2, "echo")]


def test_experts_that_are_not_in_the_folder_stay(client: Runtime, folder: Path) -> None:
    catalogue.load(client, folder)
    assert [e["name"] for e in catalogue.listing(client)] == ["alpha", "beta", "gamma", "north", "south"]


def test_nothing_is_stored_unless_all_of_it_is_right(bare_client: Runtime, folder: Path) -> None:
    (folder / "south" / "card.yaml").write_text("name: south\n")
    with pytest.raises(BadCatalogue, match=r"south/card\.yaml: title: Field required$"):
        catalogue.load(bare_client, folder)
    assert catalogue.listing(bare_client) == []


def test_the_shipped_catalogue_loads(bare_client: Runtime) -> None:
    loaded = catalogue.load(bare_client, catalogue.SHIPPED)
    names, changed = loaded.experts, loaded.changed
    assert names == changed == ["code", "finance", "general", "legal", "medical", "nlp", "science", "technical"]


# Experts that learn


@pytest.fixture
def learning(folder: Path) -> Path:
    """Of the two experts south learns."""
    write_examples(folder / "south" / "train.jsonl")
    return folder


def test_an_expert_that_learns_is_stored_when_it_has(bare_client: Runtime, learning: Path) -> None:
    write_examples(learning / "south" / "test.jsonl", 10, first=90)

    loaded = catalogue.load(bare_client, learning)

    [(job, kind, subject, params)] = rows(bare_client.engine, "SELECT id, kind, subject, params FROM job")
    assert loaded == Loaded(["north", "south"], ["north"], [job])
    assert [expert["name"] for expert in catalogue.listing(bare_client)] == ["north"]
    assert (kind, subject, params["mode"], params["engine"]) == (
        "train_expert",
        "expert:south",
        "create",
        "transformers",
    )
    assert (params["card"]["title"], params["card"]["adapter"]) == ("south", True)
    assert params["exemplars"] == ["Where is south?", "What is south?"]
    assert [len(stored(bare_client, params[key])) for key in ("data", "validation")] == [24, 10]


def test_the_engine_on_its_card_trains_an_expert(bare_client: Runtime, learning: Path) -> None:
    (learning / "south" / "card.yaml").write_text(CARD.format(name="south") + "engine: openai\n")
    catalogue.load(bare_client, learning)
    assert rows(bare_client.engine, "SELECT params->>'engine', params->>'validation' FROM job") == [("openai", None)]


def test_an_expert_that_has_learned_is_not_trained_again(bare_client: Runtime, learning: Path) -> None:
    card = CARD.format(name="south") + "engine: transformers\n"
    (learning / "south" / "card.yaml").write_text(card)
    learned = read_catalogue(learning).experts[1]
    given = learned.card.model_dump(mode="json", exclude={"name", "engine"})
    add_version(Store(bare_client.engine), "south", live=True, card=given)

    assert catalogue.load(bare_client, learning).jobs == []
    assert [e["version"] for e in catalogue.listing(bare_client) if e["name"] == "south"] == [1]

    (learning / "south" / "card.yaml").write_text(card.replace("title: south", "title: The south"))
    assert catalogue.load(bare_client, learning) == Loaded(["north", "south"], ["south"], [])
    changed = transact(bare_client.engine, lambda c: expert_versions.version(c, "south", None))
    assert (changed.number, changed.card["title"], changed.card["adapter"]) == (2, "The south", True)
    assert changed.adapter is not None


def test_an_expert_that_has_learned_keeps_its_engine(bare_client: Runtime, learning: Path) -> None:
    """Its card names none; the engine of experts that learn nothing could not use its adapter."""
    given = read_catalogue(learning).experts[1].card.model_dump(mode="json", exclude={"name", "engine"})
    add_version(Store(bare_client.engine), "south", live=True, card=given)
    assert catalogue.load(bare_client, learning).changed == ["north", "south"]  # its exemplars are new
    assert [(e["version"], e["engine"]) for e in catalogue.listing(bare_client)][1] == (1, "transformers")


def test_an_expert_that_did_not_pass_is_not_put_live_without_its_adapter(bare_client: Runtime, learning: Path) -> None:
    add_version(Store(bare_client.engine), "south")
    assert catalogue.load(bare_client, learning) == Loaded(["north", "south"], ["north"], [])
    found = transact(bare_client.engine, lambda c: expert_versions.versions(c, "south"))
    assert [(view.number, view.state) for view in found] == [(1, "candidate")]


def test_loading_again_while_an_expert_learns_names_the_same_job(bare_client: Runtime, learning: Path) -> None:
    first = catalogue.load(bare_client, learning)
    assert catalogue.load(bare_client, learning) == Loaded(["north", "south"], [], first.jobs)
    assert len(rows(bare_client.engine, "SELECT id FROM job")) == 1


def test_nothing_is_stored_unless_every_expert_can_learn(bare_client: Runtime, learning: Path) -> None:
    write_examples(learning / "north" / "train.jsonl")
    write_examples(learning / "south" / "train.jsonl", 3)
    east = learning / "east"
    east.mkdir()
    (east / "card.yaml").write_text(CARD.format(name="east"))
    (east / "exemplars.txt").write_text("Where is east?\n")
    with pytest.raises(CannotTrain, match=r"^3 usable examples are too few"):
        catalogue.load(bare_client, learning)
    assert catalogue.listing(bare_client) == []
    assert rows(bare_client.engine, "SELECT id FROM job") == []


def test_the_documents_of_an_expert_that_learns_go_with_its_job(bare_client: Runtime, learning: Path) -> None:
    write_examples(learning / "north" / "train.jsonl")
    catalogue.load(bare_client, learning)
    found = rows(bare_client.engine, "SELECT params->'documents' FROM job ORDER BY subject")
    assert found == [
        (
            [
                {"name": "deep/ice", "title": "ice", "text": "It is cold."},
                {"name": "snow", "title": "Snow", "text": "It is white."},
            ],
        ),
        ([],),
    ]


def stored(client: Runtime, place: str) -> list[bytes]:
    with client.store.open(place) as file:
        return file.read().splitlines()


# Documents


def test_documents_are_added_from_files_and_folders(bare_client: Runtime, folder: Path, tmp_path: Path) -> None:
    catalogue.load(bare_client, folder)
    more = tmp_path / "more"
    more.mkdir()
    (more / "b.md").write_text("# B\n\nText.")
    (more / "a.txt").write_text("Text.")
    (more / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "c.md").write_text("Text.")
    assert catalogue.add_documents(bare_client, "north", [more, tmp_path / "c.md"]) == ["a", "b", "c"]
    assert documents(bare_client) == ["a", "b", "c", "deep/ice", "snow"]


def test_a_document_of_the_same_name_is_brought_up_to_date(bare_client: Runtime, folder: Path, tmp_path: Path) -> None:
    catalogue.load(bare_client, folder)
    (tmp_path / "snow.md").write_text("# Snow\n\nIt melts.")
    catalogue.add_documents(bare_client, "north", [tmp_path / "snow.md"])
    assert rows(bare_client.engine, "SELECT text FROM document WHERE name = 'snow'") == [("It melts.",)]


def test_documents_that_cannot_be_added_are_refused_as_a_whole(
    bare_client: Runtime, folder: Path, tmp_path: Path
) -> None:
    catalogue.load(bare_client, folder)
    good = tmp_path / "good.md"
    good.write_text("Text.")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadInput, match=r"missing: no such file or folder$"):
        catalogue.add_documents(bare_client, "north", [good, tmp_path / "missing"])
    with pytest.raises(BadInput, match=r"other holds no documents \("):
        catalogue.add_documents(bare_client, "north", [good, other])
    (other / "good.txt").write_text("Text.")
    with pytest.raises(BadInput, match=r"would be stored under one name: good$"):
        catalogue.add_documents(bare_client, "north", [good, other])
    (other / "good.txt").write_bytes(b"a\x00b")
    with pytest.raises(BadDocument, match="holds NUL characters"):
        catalogue.add_documents(bare_client, "north", [good, other])
    with pytest.raises(BadDocument, match=r"card\.yaml"):
        catalogue.add_documents(bare_client, "north", [good, folder / "north" / "card.yaml"])
    with pytest.raises(NotFound, match=r"^no expert 'east'; there are: north, south$"):
        catalogue.add_documents(bare_client, "east", [good])
    assert documents(bare_client) == ["deep/ice", "snow"]


def test_a_document_whose_name_is_no_utf8_is_refused(bare_client: Runtime, folder: Path, tmp_path: Path) -> None:
    catalogue.load(bare_client, folder)
    path = tmp_path / "\udcff.md"
    path.write_text("Text.")
    with pytest.raises((BadInput, BadDocument)):
        catalogue.add_documents(bare_client, "north", [path])


def test_documents_are_removed(bare_client: Runtime, folder: Path) -> None:
    catalogue.load(bare_client, folder)
    assert catalogue.remove_documents(bare_client, "north", ["snow"]) == ["snow"]
    assert documents(bare_client) == ["deep/ice"]


def test_none_is_removed_where_one_is_not_there(bare_client: Runtime, folder: Path) -> None:
    catalogue.load(bare_client, folder)
    with pytest.raises(BadInput, match=r"^north has no document rain, wind; `moe experts docs list north` lists "):
        catalogue.remove_documents(bare_client, "north", ["snow", "wind", "rain"])
    assert documents(bare_client) == ["deep/ice", "snow"]
    with pytest.raises(NotFound):
        catalogue.remove_documents(bare_client, "east", ["snow"])


# Jobs


def test_a_refresh_is_a_job_and_a_message(bare_client: Runtime, jobs_redis: str) -> None:
    with redis.Redis.from_url(jobs_redis) as server:
        server.flushdb()
        job_id = catalogue.refresh(bare_client)
        [message] = server.lrange("moe:training", 0, -1)
    assert json.loads(base64.b64decode(json.loads(message)["body"]))[:2] == [[job_id], {}]
    assert rows(bare_client.engine, "SELECT id, kind, state FROM job") == [(job_id, "refresh", "queued")]


def test_a_job_that_ended_is_returned_with_its_story(bare_client: Runtime) -> None:
    job_id = catalogue.refresh(bare_client)
    claimed = claim(bare_client, job_id)
    transact(bare_client.engine, lambda c: jobs.report(c, job_id, "one"))
    transact(bare_client.engine, lambda c: jobs.report(c, job_id, "two"))
    transact(bare_client.engine, lambda c: jobs.succeed(c, claimed, {"router_version": 3}))
    heard: list[str] = []
    job = training_jobs.wait_for_job(bare_client, job_id, on_event=heard.append, timeout_s=0)
    assert (job.state, job.result, heard) == ("succeeded", {"router_version": 3}, ["one", "two"])


def test_a_job_that_failed_is_told(bare_client: Runtime) -> None:
    job_id = catalogue.refresh(bare_client)
    claimed = claim(bare_client, job_id)
    transact(bare_client.engine, lambda c: jobs.fail(c, claimed, "bad_catalogue", "There is nothing to train."))
    with pytest.raises(Failed, match=rf"^job {job_id} failed \(bad_catalogue\): There is nothing to train\.$"):
        training_jobs.wait_for_job(bare_client, job_id)


def test_a_job_nobody_does_is_told(bare_client: Runtime) -> None:
    job_id = catalogue.refresh(bare_client)
    complaint = rf"^job {job_id} did not end within 0 s; it is queued\. Does a training worker run\?$"
    with pytest.raises(Failed, match=complaint):
        training_jobs.wait_for_job(bare_client, job_id, timeout_s=0)


def test_an_unknown_job_is_told(bare_client: Runtime) -> None:
    with pytest.raises(NotFound, match=r"^no job '12345'$"):
        training_jobs.wait_for_job(bare_client, 12345)
