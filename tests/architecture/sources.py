"""What the tests of this folder look at: the program's own source files."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("experts", "jobs", "storage", "tasks", "worker")

# Alembic runs it inside a migration; it is no module anybody imports.
ALEMBIC_SCRIPT = "storage.migrations.env"


def files() -> list[Path]:
    """Every Python file of the five packages."""
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def name_of(file: Path) -> str:
    """``worker/app.py`` as ``worker.app``."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[str]:
    """Every module that can be imported."""
    return [name for name in map(name_of, files()) if name != ALEMBIC_SCRIPT]
