"""How layers are drawn, and that a shortened command is the same command."""

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.layer_tree import tree_lines
from wherry.cli.main import main
from wherry.cli.shell_words import Shell, shell_of
from wherry.cli.text import Style

from .api_stub import Stub, listed, workload

ID, IMAGE = "ab" * 32, "cd" * 32


def layer(kind: str, name: str, *below: dict[str, Any], command: str = "", facts: Any = ()) -> dict[str, Any]:
    shown = [{"name": n, "value": v, "note": "", "command": c, "isLive": False} for n, v, c in facts]
    return {"kind": kind, "name": name, "note": "", "command": command, "facts": shown, "below": list(below)}


TREE = layer(
    "manifest",
    "service/web",
    layer(
        "container",
        "main",
        layer("cgroup", f"/wherry/{ID}", facts=[("pids.max", "40", f"cat /sys/fs/cgroup/wherry/{ID}/pids.max")]),
        layer("processes", "1 process", command="ps"),
        command=f"docker -H unix:///x.sock inspect {ID}",
        facts=[("State.Status", "running", f"docker -H unix:///x.sock inspect --format '{{{{.State.Status}}}}' {ID}")],
    ),
    command="wherry get service web -o yaml",
)


def test_a_tree_is_drawn_with_its_commands_beside_it() -> None:
    gap = " " * 76
    lines = [line.replace("$ ", "@", 1) for line in tree_lines(TREE, Style())]
    assert lines == [
        f"{'manifest  service/web':76}@wherry get service web -o yaml",
        f"{'└─ container  main':76}@docker inspect $ID",
        f"{'   │' + gap:76.76}@export DOCKER_HOST=unix:///x.sock",
        f"{'   │' + gap:76.76}@ID={ID}",
        f"{'   │  State.Status  running':76}@docker inspect --format '{{{{.State.Status}}}}' $ID",
        "   ├─ cgroup  /wherry/$ID",
        f"{'   │     pids.max  40':76}@cat /sys/fs/cgroup/wherry/$ID/pids.max",
        f"{'   └─ processes  1 process':76}@ps",
    ]


def test_on_a_narrow_terminal_commands_stand_below() -> None:
    assert tree_lines(TREE, Style(width=80))[:2] == ["manifest  service/web", "    $ wherry get service web -o yaml"]


def test_without_commands_nothing_is_shortened() -> None:
    lines = tree_lines(TREE, Style(), has_commands=False)
    assert not any("$" in line for line in lines)
    assert any(ID in line for line in lines)


def test_colour_is_for_those_who_look() -> None:
    assert "\x1b[" not in "".join(tree_lines(TREE, Style()))
    painted = tree_lines(TREE, Style(has_colour=True, width=200))
    assert "\x1b[1mmanifest\x1b[0m" in painted[0]
    assert "\x1b[32mrunning\x1b[0m" in painted[4]


def test_escapes_in_what_a_container_says_of_itself_are_not_passed_on() -> None:
    wild = layer("process", "1", facts=[("command", "sh \x1b[31mred\x07\nline", "")])
    assert "\x1b" not in "".join(tree_lines(wild, Style()))


PARTS = st.lists(
    st.sampled_from([ID, IMAGE, "sys", "fs", "cgroup", "a b", "it's", "x.sock", "very-long-name-of-a-folder"])
)


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    from shlex import quote

    def one(parts: list[str], kind: int) -> str:
        path = quote("/" + "/".join(parts))
        shown = (f"printf '%s' {path}", f"printf '%s' '{{{{.State}}}}' {ID} {path}", f"printf '%s' {IMAGE}")
        return shown[kind]

    return [one(draw(PARTS), draw(st.integers(0, 2))) for _ in range(draw(st.integers(1, 8)))]


@given(commands())
def test_a_shortened_command_says_the_same_in_a_shell(found: list[str]) -> None:
    shell = shell_of(found)
    for command in found:
        assert expanded(shell, shell.shorten(command)) == command


def expanded(shell: Shell, command: str) -> str:
    """Return the command with the values of its variables, as a shell sees it."""
    values: dict[str, str] = {}
    for line in shell.lines:
        name, _, value = line.removeprefix("export ").partition("=")
        values[name] = substituted(value, values)
    return substituted(command, values)


def substituted(text: str, values: dict[str, str]) -> str:
    pieces = text.split("'")  # the shell leaves what is in quotes alone
    for name in sorted(values, key=len, reverse=True):
        pieces[::2] = [piece.replace(f"${name}", values[name]) for piece in pieces[::2]]
    return "'".join(pieces)


def test_a_real_shell_agrees() -> None:
    found = [f"printf '%s' /sys/fs/cgroup/memory/{ID}/memory.{name}" for name in ("max", "high", "low", "current")]
    shell = shell_of(found)
    assert shell.lines
    for command in found:
        script = "\n".join([*shell.lines, shell.shorten(command)])
        said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=10).stdout
        assert said == command.removeprefix("printf '%s' ")


def test_the_first_allocation_that_runs_stands_for_its_workload(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web"))
    waiting, running = {"id": "web-0-a", "phase": "pending"}, {"id": "web-1-b", "phase": "running"}
    stub.answers["GET /v1/allocations"] = listed(waiting, running)
    stub.answers["GET /v1/allocations/web-1-b/layers"] = (200, {"allocation": "web-1-b", "node": "n1", "layers": TREE})
    assert main(["inspect", "--layers", "service/web"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("manifest  service/web")
    assert "on node n1" in captured.err


def test_an_allocation_that_is_not_there_is_told(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/allocations"] = listed()
    assert main(["inspect", "web-9-z"]) == 3
    assert "there is no allocation 'web-9-z'" in capsys.readouterr().err
