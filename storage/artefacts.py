"""Files the system keeps: indexes, routers, output files. Any place that fsspec can address, verified by hash.

An artefact is a set of files under one path with a ``manifest.json`` that lists their sizes and hashes. The hash of
the manifest names the artefact: who has it in the database can prove every byte.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage.errors import ArtefactDamaged

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was written; `sha256` in hex, `size` in bytes."""

    path: str
    sha256: str
    size: int


class ArtefactStore:
    """Artefacts below ``url`` (a folder, or anything fsspec knows, such as ``s3://bucket/prefix``).

    ``cache`` is a local folder for verified copies; what lies there is used without asking again.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._cache = cache

    def put_tree(self, path: str, files: Mapping[str, bytes]) -> str:
        """Store the files as one artefact under ``path``; the hash that names it. The manifest goes last."""
        manifest = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in sorted(files.items())
        }
        for name, data in files.items():
            self._write(f"{path}/{name}", [data])
        document = json.dumps(manifest, sort_keys=True).encode()
        self._write(f"{path}/{MANIFEST}", [document])
        return hashlib.sha256(document).hexdigest()

    def fetch_tree(self, path: str, sha256: str) -> Path:
        """A local folder with the artefact's files, every byte checked. Raises ArtefactDamaged."""
        local = self._cache / sha256
        if local.is_dir():
            return local
        document = self._read(f"{path}/{MANIFEST}")
        if hashlib.sha256(document).hexdigest() != sha256:
            raise ArtefactDamaged(f"artefact {path}: its manifest is not the one that was stored (sha256 {sha256})")
        self._cache.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=self._cache, prefix="fetch-"))
        try:
            for name, expected in json.loads(document).items():
                data = self._read(f"{path}/{name}")
                if hashlib.sha256(data).hexdigest() != expected["sha256"]:
                    raise ArtefactDamaged(
                        f"artefact {path}: {name} is damaged: it is not what was stored (sha256 {expected['sha256']})"
                    )
                (building / name).parent.mkdir(parents=True, exist_ok=True)
                _write_synced(building / name, data)
            try:
                _sync_folder(building)
                building.rename(local)
            except OSError:  # another process was first, with the same bytes
                if not local.is_dir():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return local

    def put_file(self, path: str, blocks: Iterable[bytes]) -> StoredFile:
        """Write a file in one piece: it is there complete (and on disk), or not at all."""
        return self._write(path, blocks)

    def remove_folder(self, path: str) -> None:
        """Delete everything under ``path``. Does nothing where nothing is there."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._full(path), recursive=True)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A stored file for reading. Raises ArtefactDamaged when it is missing."""
        try:
            file = self._fs.open(self._full(path), "rb")
        except FileNotFoundError:
            raise ArtefactDamaged(f"stored file {path} is missing") from None
        with file:
            yield cast(BinaryIO, file)

    def locate(self, path: str) -> str:
        """Where a person finds the file: a plain path on a local store, else an address."""
        full = self._full(path)
        return full if isinstance(self._fs, LocalFileSystem) else str(self._fs.unstrip_protocol(full))

    def free_bytes(self) -> int | None:
        """Free space of a local store; None where that is not known."""
        if not isinstance(self._fs, LocalFileSystem):
            return None
        Path(self._root).mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    def _full(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ArtefactDamaged(f"artefact path {path!r} leaves the store")
        return f"{self._root}/{path}"

    def _read(self, path: str) -> bytes:
        with self.open(path) as file:
            return file.read()

    def _write(self, path: str, blocks: Iterable[bytes]) -> StoredFile:
        full = self._full(path)
        digest, size = hashlib.sha256(), 0
        local = isinstance(self._fs, LocalFileSystem)
        part = f"{full}.{os.getpid()}.part"
        self._fs.makedirs(full.rsplit("/", 1)[0], exist_ok=True)
        try:
            with self._fs.open(part, "wb") as file:
                for block in blocks:
                    digest.update(block)
                    size += len(block)
                    file.write(block)
                if local:
                    file.flush()
                    os.fsync(file.fileno())
            if local:
                Path(part).replace(full)
                _sync_folder(Path(full).parent)
            else:
                self._fs.mv(part, full)
        finally:
            # Also what a writer that was killed left behind; one that still runs fails at its rename, and its bytes
            # would have been the same.
            for leftover in self._fs.glob(f"{full}.*.part"):
                self._fs.rm_file(leftover)
        return StoredFile(path, digest.hexdigest(), size)


def _write_synced(path: Path, data: bytes) -> None:
    """A cache is trusted later without a look, so its bytes must be on the disk before its name is."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(file: BinaryIO) -> str:
    """Hash of what is left to read, in constant memory."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
