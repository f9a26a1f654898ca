"""The entry point: typos, usage errors, and that the fast commands load nothing heavy."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foundation.version import VERSION
from manifests.errors import UsageError
from wherry.cli.kinds import Target, read_one, read_targets
from wherry.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gte"], "did you mean 'get'?"),
        (["get", "nods"], "did you mean 'nodes'?"),
        (["get", "nodes", "--wtch"], "did you mean '--watch'?"),
        (["get", "nodes", "-o", "xml"], "invalid choice"),
        (["get"], "required"),
        (["apply"], "-f/--file"),
        (["apply", "-f", "x", "--timeout", "5"], "did you mean 5s?"),
        (["scale", "service/web"], "how many?"),
        (["scale", "job/mail", "3"], "has no replicas"),
        (["node", "drian", "n1"], "did you mean 'drain'?"),
        (["delete"], "name workloads or files"),
        (["delete", "nodes", "n1"], "wherry node delete"),
        (["server", "--listen", "7400"], "is not ADDRESS:PORT"),
        (["server", "--tls-cert", "c"], "go together"),
        (["agent", "--label", "x", "--server", "http://a"], "is not a label"),
        (["dev", "--nodes", "0"], "can't be had"),
        (["dev", "--docker", "tcp://x"], "is not a dockerd's socket"),
    ],
)
def test_a_wrong_command_is_exit_2_and_says_what_was_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_alone_it_prints_help_with_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert COMMANDS[name].example in capsys.readouterr().out


def test_the_connection_s_flags_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", "http://127.0.0.1:1", "get", "nodes"]) == 1
    assert "http://127.0.0.1:1: connection refused" in capsys.readouterr().err


def test_kinds_and_names_are_read_in_both_forms() -> None:
    assert read_targets(["svc", "a", "b"]) == [Target("services", ("a", "b"))]
    assert read_targets(["node/n1", "svc/a", "service/b"]) == [
        Target("nodes", ("n1",)),
        Target("services", ("a", "b")),
    ]
    with pytest.raises(UsageError):
        read_targets(["svc/a", "b"])
    with pytest.raises(UsageError):
        read_one(["svc", "a", "b"])


def test_get_loads_nothing_heavy() -> None:
    code = (
        "import sys; from wherry.cli.main import main; main(['--server', 'http://127.0.0.1:1', 'get', 'nodes']);"
        "print([m for m in ('aiohttp', 'pydantic', 'yaml', 'asyncio', 'dataclasses') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m wherry --help; echo code $? >&2"
    done = subprocess.run(
        ["sh", "-c", f"({command}) | true"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == "code 0\n"


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
