"""What holds of every source file: the import contracts, the sizes, and what is never used."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, files, modules, name_of

MAX_LINES = 400


def test_the_import_contracts_are_kept() -> None:
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports"
    done = subprocess.run(
        [linter, "--no-logo", "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_package_has_files_to_look_at() -> None:
    """The other tests of this file would pass on an empty list."""
    assert {"worker.app", "tasks.answer", "jobs.cli.main", "storage.database", "experts.knowledge"} <= set(modules())


def test_every_package_init_is_empty() -> None:
    assert [name_of(file) for file in files() if file.name == "__init__.py" and file.read_text() != ""] == []


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {file.parent for file in files()}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {name_of(file): len(file.read_text().splitlines()) for file in files()}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "numpy.load", "np.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load"}
# What makes one of these calls safe: an argument with a constant value.
MADE_SAFE = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
MADE_SAFE["np.load"] = MADE_SAFE["numpy.load"]


def unsafe(source: str) -> list[str]:
    """What the source uses that could run code out of data: pickle under any name, eval, exec."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            argument, value = MADE_SAFE.get(called, (None, None))
            safe = any(
                keyword.arg == argument and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
                for keyword in node.keywords
            )
            if called in ("eval", "exec", "compile", "__import__") or (called in UNSAFE_CALLS and not safe):
                found.append(called)
    return found


def test_nothing_stored_or_sent_is_ever_run_as_code() -> None:
    found = {name_of(file): unsafe(file.read_text()) for file in files()}
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("import joblib.numpy_pickle as j", ["joblib.numpy_pickle"]),
        ("torch.load(f)", ["torch.load"]),
        ("torch.load(f, weights_only=False)", ["torch.load"]),
        ("torch.load(f, weights_only=True)", []),
        ("np.load(f, allow_pickle=True)", ["np.load"]),
        ("np.load(f, allow_pickle=False)", []),
        ("yaml.load(f)", ["yaml.load"]),
        ("yaml.safe_load(f)", []),
        ("eval(text)", ["eval"]),
        ("model.eval()", []),
    ],
)
def test_unsafe_code_would_be_found(source: str, found: list[str]) -> None:
    assert unsafe(source) == found


def test_the_word_pickle_names_only_what_is_refused() -> None:
    """A serializer can also be chosen by its name in a string."""
    named = {
        name_of(file): [
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "pickle" in node.value
        ]
        for file in files()
    }
    assert {name: strings for name, strings in named.items() if strings} == {}
