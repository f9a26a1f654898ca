"""Makes long commands readable: what many of them have in common becomes a variable of the shell, set once. Pure.

Setting the variables and running a shortened command is the same as running the command.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_HEX = re.compile(r"\b[0-9a-f]{64}\b")
_DOCKER = re.compile(r"^docker -H (unix://[^\s'\"]+) ")
_WORD = re.compile(r"(?<=\s)/[^\s'\"]+")  # an absolute path that isn't quoted
_LEAST_SAVED = 60  # characters in all, for a folder to be worth a name
_MOST_FOLDERS = 3


class Shell(NamedTuple):
    """Variables in the order in which they are to be set."""

    variables: tuple[tuple[str, str], ...] = ()

    @property
    def lines(self) -> list[str]:
        """What to type first."""
        return [
            f"export {name}={value}" if name == "DOCKER_HOST" else f"{name}={value}" for name, value in self.variables
        ]

    def shorten(self, text: str) -> str:
        """Return a command with the variables in place of their values."""
        for name, value in self.variables:
            if name == "DOCKER_HOST":
                text = text.replace(f"docker -H {value} ", "docker ", 1)
            else:
                text = _replaced(text, value, f"${name}")
        return text

    def shorten_ids(self, text: str) -> str:
        """Return a value for people with the long ids in it, unless it is just that, as in commands."""
        for name, value in self.variables:
            if _HEX.fullmatch(value) and text not in (value, f"sha256:{value}"):
                text = text.replace(value, f"${name}")
        return text


def shell_of(commands: Iterable[str]) -> Shell:
    """Return variables for what is long and common in the commands."""
    found = list(commands)
    variables: list[tuple[str, str]] = []
    hosts = Counter(match.group(1) for command in found if (match := _DOCKER.match(command)))
    if hosts:
        variables.append(("DOCKER_HOST", hosts.most_common(1)[0][0]))
    found = [Shell(tuple(variables)).shorten(command) for command in found]
    ids = Counter(each for command in found for each in _HEX.findall(command) if _is_free(command, each))
    for number, (each, count) in enumerate(ids.most_common(2)):
        if count > 1:
            variables.append((("ID", "IMAGE")[number], each))
    found = [Shell(tuple(variables)).shorten(command) for command in found]
    for number in range(1, _MOST_FOLDERS + 1):
        folder = _best_folder(found)
        if folder is None:
            break
        variables.append((f"DIR{number}" if number > 1 else "DIR", folder))
        found = [_replaced(command, folder, f"${variables[-1][0]}") for command in found]
    return Shell(tuple(variables))


def _best_folder(commands: Sequence[str]) -> str | None:
    """Return the folder that saves most if it has a name; None if none is worth it."""
    saved: Counter[str] = Counter()
    for command in commands:
        for word in _WORD.findall(command):
            parts = word.split("/")
            for depth in range(3, len(parts)):
                folder = "/".join(parts[:depth])
                if _is_free(command, folder):
                    saved[folder] += len(folder) - len("$DIR2")
    if not saved:
        return None
    folder, most = max(saved.items(), key=lambda item: (item[1], item[0]))
    return folder if most >= _LEAST_SAVED + len(folder) else None


def _is_free(command: str, text: str) -> bool:
    """Say whether the text stands outside of quotes, where a variable would be replaced."""
    return _replaced(command, text, "$X") != command


def _replaced(command: str, value: str, variable: str) -> str:
    """Return the command with the value replaced where it is a whole part of a path outside of quotes."""
    whole = re.compile(rf"(?<![\w.-]){re.escape(value)}(?![\w.-])")
    pieces = re.split(r"('[^']*')", command)
    return "".join(piece if at % 2 else whole.sub(lambda _: variable, piece) for at, piece in enumerate(pieces))
