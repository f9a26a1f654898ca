"""Just enough of a shell for simulated containers: what tests run in them, as steps that a runtime carries out.

Knows echo, sleep, exit, trap, seq, id, pwd, hostname, dd (which needs more memory than there is) and two loops. Nothing
else: a word that it doesn't know is a program that isn't there.
"""

import re
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

NOT_FOUND = 127
_FOREVER = re.compile(r"while :; do sleep [0-9.]+; done")
_FOR = re.compile(r"for (\w+) in ([^;]*); do ([^;]*); done")


@dataclass(frozen=True, slots=True)
class Write:
    stream: str  # stdout | stderr
    data: bytes


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Trap:
    """What a signal does from now on: end it with that code, or nothing (None)."""

    signal: str
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Devour:
    """It needs more memory than its limit: the kernel kills the main process, or only a child."""

    is_main: bool


@dataclass(frozen=True, slots=True)
class Exit:
    code: int


Step: TypeAlias = Write | Sleep | Trap | Devour | Exit
PROGRAMS = frozenset({"sh", "sleep", "seq", "echo", "true", "false", "ps", "check", "dd", "exit"})


def steps_of(command: Sequence[str], env: Mapping[str, str]) -> Iterator[Step]:
    """Yield what the command does, with its exit at the end unless it runs for ever."""
    if (command[0] == "sh" and command[1:2] == ["-c"]) or command[:2] == ("sh", "-c"):
        yield from _script(command[2], env)
    else:
        code = yield from _run(list(command), env)
        yield Exit(code)


def _script(script: str, env: Mapping[str, str]) -> Iterator[Step]:
    code = 0
    for statement in _statements(script):
        words = shlex.split(statement)
        if words[:1] == ["exec"]:
            words = words[1:]
            if words[:1] == ["dd"]:
                yield Devour(is_main=True)
        if words[:1] == ["exit"]:
            code = int(words[1]) if len(words) > 1 else code
            break
        code = yield from _run(words, env)
    yield Exit(code)


def _statements(script: str) -> Iterator[str]:
    script = _FOREVER.sub("sleep inf", script)
    script = _FOR.sub(lambda m: "; ".join(m[3].replace(f"${m[1]}", word) for word in m[2].split()), script)
    return (part.strip() for part in script.split(";") if part.strip())


def _run(words: list[str], env: Mapping[str, str]) -> Generator[Step, None, int]:
    """Yield one command's steps and return its exit code."""
    stream = "stderr" if words[-1:] == [">&2"] else "stdout"
    words = [word for word in words if word != ">&2"]
    match words:
        case ["echo", *rest]:
            text = " ".join(env.get(word[1:], "") if word.startswith("$") else word for word in rest)
            yield Write(stream, f"{text}\n".encode())
        case ["seq", first, last]:
            yield Write(stream, "".join(f"{n}\n" for n in range(int(first), int(last) + 1)).encode())
        case ["sleep", seconds]:
            yield Sleep(float(seconds))
        case ["trap", action, signal]:
            code = action.removeprefix("exit").strip()
            yield Trap(f"SIG{signal}", int(code) if action else None)
        case ["dd", *_]:
            yield Devour(is_main=False)
        case ["false"]:
            return 1
        case [name, *_] if name not in PROGRAMS:
            return NOT_FOUND
    return 0
