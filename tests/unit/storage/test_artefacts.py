"""Artefacts: what is fetched is what was stored, to the byte, or an error."""

import hashlib
import io
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.artefacts import MANIFEST, ArtefactStore, StoredFile, sha256_of
from storage.errors import ArtefactDamaged

FILES = {"index.bin": b"\x00\xff" * 1000, "meta.json": b"{}", "empty": b""}


@pytest.fixture(params=["folder", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, the same as an address, and a store that is no folder."""
    return {
        "folder": str(tmp_path / "store"),
        "file": f"file://{tmp_path / 'store'}",
        "memory": f"memory://{uuid.uuid4().hex}",
    }[str(request.param)]


@pytest.fixture
def artefacts(url: str, tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(url, tmp_path / "cache")


def listed(url: str) -> list[str]:
    """Every file of the store, relative to it."""
    fs, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root).lstrip("/") for path in fs.find(root))


def overwrite(url: str, path: str, data: bytes | None) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    if data is None:
        fs.rm_file(f"{root}/{path}")
    else:
        fs.pipe_file(f"{root}/{path}", data)


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- trees ----------------------------------------------------------------------------------------------------


def test_a_tree_comes_back_to_the_byte(artefacts: ArtefactStore, url: str, tmp_path: Path) -> None:
    sha256 = artefacts.put_tree("routers/1", FILES)

    assert listed(url) == sorted(f"routers/1/{name}" for name in (*FILES, MANIFEST))
    assert read_tree(artefacts.fetch_tree("routers/1", sha256)) == FILES
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [sha256]


def test_the_name_of_a_tree_is_the_hash_of_its_manifest(artefacts: ArtefactStore) -> None:
    sha256 = artefacts.put_tree("a", {"b": b"two", "a": b"one"})

    with artefacts.open(f"a/{MANIFEST}") as file:
        document = file.read()
    assert sha256 == hashlib.sha256(document).hexdigest()
    assert json.loads(document) == {
        "a": {"sha256": hashlib.sha256(b"one").hexdigest(), "size": 3},
        "b": {"sha256": hashlib.sha256(b"two").hexdigest(), "size": 3},
    }


def test_the_same_files_have_the_same_name_wherever_and_in_whatever_order(artefacts: ArtefactStore) -> None:
    first = artefacts.put_tree("a", FILES)

    assert artefacts.put_tree("b", dict(reversed(FILES.items()))) == first
    assert artefacts.put_tree("c", {**FILES, "empty": b"x"}) != first


@settings(deadline=None, max_examples=50, derandomize=True, database=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9._-]{0,9}", fullmatch=True).filter(lambda name: name != MANIFEST),
        st.binary(max_size=40),
        max_size=4,
    )
)
def test_any_files_come_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    store = ArtefactStore(f"memory://{uuid.uuid4().hex}", tmp_path_factory.mktemp("cache"))

    assert read_tree(store.fetch_tree("t", store.put_tree("t", files))) == files


@pytest.mark.parametrize("name", [*(name for name in FILES if FILES[name]), MANIFEST])
@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "missing"])
def test_a_changed_byte_is_found(artefacts: ArtefactStore, url: str, tmp_path: Path, name: str, how: str) -> None:
    sha256 = artefacts.put_tree("t", FILES)
    with artefacts.open(f"t/{name}") as file:
        data = file.read()
    changed = {
        "flipped": bytes([data[0] ^ 1]) + data[1:],
        "shorter": data[:-1],
        "longer": data + b" ",
        "missing": None,
    }[how]
    overwrite(url, f"t/{name}", changed)

    with pytest.raises(ArtefactDamaged) as damaged:
        artefacts.fetch_tree("t", sha256)

    assert damaged.value.code == "artefact_damaged"
    if how == "missing":
        assert str(damaged.value) == f"stored file t/{name} is missing"
    elif name == MANIFEST:
        assert str(damaged.value) == f"artefact t: its manifest is not the one that was stored (sha256 {sha256})"
    else:
        stored = hashlib.sha256(data).hexdigest()
        assert str(damaged.value) == f"artefact t: {name} is damaged: it is not what was stored (sha256 {stored})"
    # No half of it is left where the next fetch would trust it.
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_tree_that_was_put_right_is_fetched(artefacts: ArtefactStore, url: str) -> None:
    sha256 = artefacts.put_tree("t", FILES)
    overwrite(url, "t/meta.json", b"[]")
    with pytest.raises(ArtefactDamaged):
        artefacts.fetch_tree("t", sha256)

    artefacts.put_tree("t", FILES)

    assert read_tree(artefacts.fetch_tree("t", sha256)) == FILES


def test_a_tree_of_another_name_is_not_taken_for_it(artefacts: ArtefactStore) -> None:
    artefacts.put_tree("t", FILES)

    with pytest.raises(ArtefactDamaged):
        artefacts.fetch_tree("t", "0" * 64)


def test_what_was_fetched_once_is_not_asked_for_again(artefacts: ArtefactStore, url: str) -> None:
    sha256 = artefacts.put_tree("t", FILES)
    first = artefacts.fetch_tree("t", sha256)
    for name in (*FILES, MANIFEST):
        overwrite(url, f"t/{name}", None)

    assert artefacts.fetch_tree("t", sha256) == first


def test_many_fetches_at_once_end_with_one_copy(artefacts: ArtefactStore, tmp_path: Path) -> None:
    sha256 = artefacts.put_tree("t", FILES)
    ready = threading.Barrier(4)

    def fetch() -> Path:
        ready.wait()
        return artefacts.fetch_tree("t", sha256)

    with ThreadPoolExecutor(4) as pool:
        folders = [future.result() for future in [pool.submit(fetch) for _ in range(4)]]

    assert folders == [tmp_path / "cache" / sha256] * 4
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / sha256]
    assert read_tree(folders[0]) == FILES


# --- single files ---------------------------------------------------------------------------------------------


def test_a_file_is_described_as_it_was_written(artefacts: ArtefactStore, url: str) -> None:
    stored = artefacts.put_file("runs/r/1/output.jsonl", iter([b"one\n", b"", b"two\n"]))

    assert stored == StoredFile("runs/r/1/output.jsonl", hashlib.sha256(b"one\ntwo\n").hexdigest(), 8)
    assert listed(url) == ["runs/r/1/output.jsonl"]
    with artefacts.open("runs/r/1/output.jsonl") as file:
        assert file.read() == b"one\ntwo\n"


def test_a_file_without_blocks_is_there_and_empty(artefacts: ArtefactStore) -> None:
    assert artefacts.put_file("f", []) == StoredFile("f", hashlib.sha256(b"").hexdigest(), 0)
    with artefacts.open("f") as file:
        assert file.read() == b""


def test_a_file_that_is_written_again_is_replaced(artefacts: ArtefactStore, url: str) -> None:
    artefacts.put_file("f", [b"the first and longer one"])
    artefacts.put_file("f", [b"second"])

    assert listed(url) == ["f"]
    with artefacts.open("f") as file:
        assert file.read() == b"second"


def broken_off() -> Iterator[bytes]:
    yield b"half of"
    raise OSError("the source went away")


@pytest.mark.parametrize("before", [None, b"the old one"])
def test_a_file_that_breaks_off_is_not_seen(artefacts: ArtefactStore, url: str, before: bytes | None) -> None:
    if before is not None:
        artefacts.put_file("f", [before])

    with pytest.raises(OSError, match="the source went away"):
        artefacts.put_file("f", broken_off())

    assert listed(url) == ([] if before is None else ["f"])
    if before is not None:
        with artefacts.open("f") as file:
            assert file.read() == before


def test_what_a_killed_writer_left_is_cleared_away(artefacts: ArtefactStore, url: str) -> None:
    artefacts.put_file("f", [b"first"])
    overwrite(url, "f.999999.part", b"half")
    overwrite(url, "other.999999.part", b"half")

    artefacts.put_file("f", [b"second"])

    assert listed(url) == ["f", "other.999999.part"]


def test_a_missing_file_is_damage(artefacts: ArtefactStore) -> None:
    with pytest.raises(ArtefactDamaged, match=r"^stored file runs/x is missing$"), artefacts.open("runs/x"):
        pass


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/.."])
def test_a_path_that_leaves_the_store_is_refused(artefacts: ArtefactStore, path: str) -> None:
    with pytest.raises(ArtefactDamaged, match="leaves the store"):
        artefacts.put_file(path, [b""])
    with pytest.raises(ArtefactDamaged, match="leaves the store"), artefacts.open(path):
        pass
    with pytest.raises(ArtefactDamaged, match="leaves the store"):
        artefacts.locate(path)


def test_dots_inside_a_name_stay_in_the_store(artefacts: ArtefactStore) -> None:
    assert artefacts.put_file("a..b/...c", [b"x"]).size == 1


# --- places ---------------------------------------------------------------------------------------------------


def test_a_person_is_shown_a_path_or_an_address(tmp_path: Path) -> None:
    name = uuid.uuid4().hex

    assert ArtefactStore(str(tmp_path), tmp_path).locate("a/b") == f"{tmp_path}/a/b"
    assert ArtefactStore(f"file://{tmp_path}", tmp_path).locate("a/b") == f"{tmp_path}/a/b"
    assert ArtefactStore(f"memory://{name}", tmp_path).locate("a/b") == f"memory:///{name}/a/b"


def test_free_space_is_known_of_a_folder_only(tmp_path: Path) -> None:
    free = ArtefactStore(str(tmp_path / "new"), tmp_path).free_bytes()

    assert free is not None
    assert free > 0
    assert (tmp_path / "new").is_dir()
    assert ArtefactStore("memory://x", tmp_path).free_bytes() is None


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_of_a_file_is_that_of_all_its_bytes(size: int) -> None:
    data = bytes(size)

    assert sha256_of(io.BytesIO(data)) == hashlib.sha256(data).hexdigest()


def test_the_hash_is_of_what_is_left_to_read() -> None:
    file = io.BytesIO(b"headbody")
    file.seek(4)

    assert sha256_of(file) == hashlib.sha256(b"body").hexdigest()
