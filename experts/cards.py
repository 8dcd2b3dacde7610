"""A catalogue: a folder with one folder per expert, and queries that belong to none of them.

catalogue/
  outside.txt                queries that no expert covers, one per line (optional)
  finance/
    card.yaml                who this expert is
    exemplars.txt            queries that belong to it, one per line
    documents/               what it knows: .md .txt .html .pdf .jsonl files (optional)
    train.jsonl              examples an adapter is trained on (optional)
    test.jsonl               examples it is measured on (optional; else a part of those above)
"""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from experts.documents import Document
from experts.errors import BadCatalogue, BadDocument, UnknownKind
from experts.kinds import ENGINES, check
from experts.reading.files import read_documents

NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
MAX_EXEMPLAR_CHARS = 2000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]


def _known_engine(name: str) -> str:
    try:
        check("engine", ENGINES, name)
    except UnknownKind as error:
        raise ValueError(str(error)) from None
    return name


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Capability(Part):
    """Something an expert can do, with the limits within which it does it."""

    name: Name
    description: Text
    confidence_threshold: Share = 0.5
    max_load: Annotated[int, Field(gt=0)] = 512
    expected_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200


class Card(Part):
    """Who an expert is, as written in ``card.yaml``.

    ``model`` is the name a server knows the expert's model or adapter by, for engines that ask one; the settings' own
    where it is missing. ``retrieval`` puts passages of the expert's documents into the prompts of engines that
    generate. ``adapter`` says that an adapter of its own makes the base model this expert.
    """

    name: Name
    title: Text
    description: Text
    parent: Name | None = None
    engine: Annotated[str, AfterValidator(_known_engine)] | None = None
    capabilities: list[Capability] = []
    keywords: list[Annotated[str, StringConstraints(to_lower=True, strip_whitespace=True, min_length=2, max_length=60)]]
    limits: list[Text] = []
    model: ModelName | None = None
    retrieval: bool = False
    adapter: bool = False


class CatalogueExpert(Part):
    """``train`` and ``test`` are the files of examples of an expert that learns."""

    card: Card
    exemplars: list[str]
    documents: list[Document]
    train: Path | None = None
    test: Path | None = None


class Catalogue(Part):
    experts: list[CatalogueExpert]
    outside: list[str]


def read_catalogue(folder: Path) -> Catalogue:
    """Read and check a whole catalogue; nothing is returned unless all of it is right. Raises BadCatalogue."""
    if not folder.is_dir():
        raise BadCatalogue(f"{folder} is not a folder; a catalogue has one folder per expert")
    if (folder / "card.yaml").exists():
        raise BadCatalogue(f"{folder} is one expert; a catalogue is the folder above it: {folder.resolve().parent}")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    if not folders:
        raise BadCatalogue(f"{folder} holds no expert; each expert is a folder with card.yaml and exemplars.txt")
    outside = folder / "outside.txt"
    return Catalogue(
        experts=[read_expert(path) for path in folders],
        outside=_lines(outside) if outside.exists() else [],
    )


def read_expert(folder: Path) -> CatalogueExpert:
    """Read one expert's folder. Raises BadCatalogue."""
    card = read_card(folder / "card.yaml")
    if card.name != folder.name:
        raise BadCatalogue(f"{folder / 'card.yaml'}: name is {card.name!r}, but the folder is called {folder.name!r}")
    exemplars = _lines(folder / "exemplars.txt")
    if not exemplars:
        raise BadCatalogue(f"{folder / 'exemplars.txt'} holds no queries; a router cannot be trained without them")
    train, test = folder / "train.jsonl", folder / "test.jsonl"
    return CatalogueExpert(
        card=card if not train.exists() else card.model_copy(update={"adapter": True}),
        exemplars=exemplars,
        documents=_documents(folder / "documents"),
        train=train if train.exists() else None,
        test=test if train.exists() and test.exists() else None,
    )


def read_card(path: Path) -> Card:
    """Read and check a card. Raises BadCatalogue naming the key that is wrong."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCatalogue(f"{path} is missing") from None
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError, OSError) as error:
        raise BadCatalogue(f"{path}: {error}") from None
    try:
        return Card.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadCatalogue(f"{path}: {where}: {first['msg']}") from None


def _documents(folder: Path) -> list[Document]:
    paths = sorted(path for path in folder.rglob("[!.]*") if path.is_file()) if folder.is_dir() else []
    found: dict[str, Document] = {}
    for path in paths:
        try:
            documents = read_documents(path, name=path.relative_to(folder).with_suffix("").as_posix())
        except BadDocument as error:
            raise BadCatalogue(str(error)) from None
        for document in documents:
            if document.name in found:
                raise BadCatalogue(f"{path}: a document named {document.name!r} is there already; names are used once")
            found[document.name] = document
    return list(found.values())


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise BadCatalogue(f"{path} is missing") from None
    except (UnicodeDecodeError, OSError) as error:
        raise BadCatalogue(f"{path}: {error}") from None
    texts = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > MAX_EXEMPLAR_CHARS or "\x00" in text:
            raise BadCatalogue(f"{path} line {number}: an exemplar has at most {MAX_EXEMPLAR_CHARS} plain characters")
        texts.append(text)
    return texts
