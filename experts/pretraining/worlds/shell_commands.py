"""Requests in plain words and the shell command that fulfils them; the names in the tested ones are new."""

from random import Random

from experts.pretraining.items import Item
from experts.pretraining.words import COMMON, identifier, invented
from experts.pretraining.worlds.world import World, drawn

_SIZES = (800, 60, 150)
_ENDINGS = ("txt", "log", "csv", "md", "conf", "json", "dat", "sh")

# Ways to ask -> the command; f and g are files, d and e folders, w is a word, n a number.
_COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("show the last {n} lines of {f}", "print the final {n} lines of the file {f}"), "tail -n {n} {f}"),
    (("show the first {n} lines of {f}", "print the top {n} lines of the file {f}"), "head -n {n} {f}"),
    (("count the lines of {f}", "how many lines are in the file {f}"), "wc -l {f}"),
    (("find {w} in {f}", "search the file {f} for {w}", "which lines of {f} contain {w}"), "grep {w} {f}"),
    (("search all files under {d} for {w}", "find {w} in every file below {d}"), "grep -r {w} {d}"),
    (("copy {f} to {d}", "put a copy of the file {f} into the folder {d}"), "cp {f} {d}/"),
    (("rename {f} to {g}", "change the name of the file {f} to {g}"), "mv {f} {g}"),
    (("move {f} into {d}", "put the file {f} into the folder {d}"), "mv {f} {d}/"),
    (("delete the file {f}", "remove {f}"), "rm {f}"),
    (("delete the folder {d} with everything in it", "remove the whole directory {d}"), "rm -r {d}"),
    (("make a folder called {d}", "create the directory {d}"), "mkdir {d}"),
    (("list the files in {d} with their sizes", "show what is in the folder {d} in detail"), "ls -l {d}"),
    (("list hidden files in {d} too", "show all files of {d}, hidden ones as well"), "ls -a {d}"),
    (("go to the folder {d}", "change into the directory {d}"), "cd {d}"),
    (("make {f} executable", "let me run the script {f}"), "chmod +x {f}"),
    (("sort the lines of {f}", "put the lines of the file {f} in order"), "sort {f}"),
    (("show the differences between {f} and {g}", "compare the files {f} and {g}"), "diff {f} {g}"),
    (("pack the folder {d} into an archive", "make a compressed archive of {d}"), "tar -czf {d}.tar.gz {d}"),
    (("how much disk space does {d} use", "show the total size of the folder {d}"), "du -sh {d}"),
    (("find files named {f} below {d}", "where under {d} is the file {f}"), "find {d} -name {f}"),
    (("replace {w} by {v} in {f}", "change every {w} to {v} in the file {f}"), "sed -i s/{w}/{v}/g {f}"),
    (("follow the file {f} as it grows", "keep showing new lines of {f}"), "tail -f {f}"),
)
_OPENINGS = ("", "", "", "in the shell, ", "shell command: ", "on the terminal, ")
# Before what is not a question already.
_OPENINGS_OF_ORDERS = (*_OPENINGS, "please ", "how do I ")
_QUESTIONS = ("how", "which", "where")


def shell_commands(rng: Random) -> World:
    """Every command in a few wordings, with random names in them."""
    return drawn(rng, _request, _SIZES)


def _request(rng: Random) -> Item:
    prompts, command = rng.choice(_COMMANDS)
    slots = {
        "f": _file(rng),
        "g": _file(rng),
        "d": _word(rng),
        "w": _word(rng),
        "v": _word(rng),
        "n": str(rng.randint(1, 99)),
    }
    request = rng.choice(prompts).format(**slots)
    prompt = rng.choice(_OPENINGS if request.startswith(_QUESTIONS) else _OPENINGS_OF_ORDERS) + request
    return Item(prompt[0].upper() + prompt[1:] if rng.random() < 0.5 else prompt, command.format(**slots))


def _word(rng: Random) -> str:
    return rng.choice((rng.choice(COMMON), rng.choice(COMMON), invented(rng), identifier(rng)))


def _file(rng: Random) -> str:
    return f"{_word(rng)}.{rng.choice(_ENDINGS)}"
