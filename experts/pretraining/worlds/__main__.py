"""Write the data of the bundled learned experts: ``python -m experts.pretraining.worlds --out DIR``."""

from argparse import ArgumentParser
from pathlib import Path
from random import Random

from experts.pretraining.worlds.harbour_facts import harbour_facts
from experts.pretraining.worlds.roman_numerals import roman_numerals
from experts.pretraining.worlds.shell_commands import shell_commands
from experts.pretraining.worlds.world import Maker, write_world

WORLDS: dict[str, Maker] = {
    "harbour_facts": harbour_facts,
    "roman_numerals": roman_numerals,
    "shell_commands": shell_commands,
}


def main(arguments: list[str] | None = None) -> None:
    """Write one folder per world; the same seed writes the same files."""
    parser = ArgumentParser(prog="python -m experts.pretraining.worlds", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into, one folder per world")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name, make in WORLDS.items():
        write_world(options.out / name, make(Random(f"{name} {options.seed}")))


if __name__ == "__main__":
    main()
