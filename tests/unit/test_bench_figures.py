"""What a benchmark says: verdicts, the table and the JSON; and that every benchmark on the list is there."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from bench.__main__ import SENTENCES, main, module_of
from bench.figures import Figure, at_least, at_most, below, reported, table, to_json


def test_a_figure_on_its_target_is_met_unless_it_must_be_below() -> None:
    assert at_most("ratio", 1.2, "x", 1.2).is_met
    assert at_least("rate", 1000, "/s", 1000).is_met
    assert not below("memory", 80.0, "MiB", 80.0).is_met
    assert not at_most("ratio", 1.21, "x", 1.2).is_met


def test_the_table_says_met_or_missed_only_where_there_is_a_target() -> None:
    lines = table([at_most("a", 1, "s", 2), at_most("b", 3, "s", 2), reported("c", 1234.5, "/s")]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["a", "1", "s", "2", "met"],
        ["b", "3", "s", "2", "missed"],
        ["c", "1,234", "/s", "-"],
    ]


def test_the_json_names_each_figure_by_its_benchmark() -> None:
    found = to_json({"deploy": [Figure("ratio", 1.25, "x", 1.2, False)], "store": [reported("ratio", 3, "x")]})
    assert json.loads(json.dumps(found)) == {
        "figures": {
            "deploy: ratio": {"value": 1.25, "unit": "x", "target": 1.2, "met": False},
            "store: ratio": {"value": 3, "unit": "x", "target": "-", "met": True},
        }
    }


def test_without_a_name_all_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SENTENCES)


@pytest.mark.parametrize("name", SENTENCES)
def test_every_benchmark_on_the_list_can_be_called(name: str) -> None:
    measure = importlib.import_module(module_of(name)).measure
    assert inspect.iscoroutinefunction(measure)
    assert list(inspect.signature(measure).parameters) == ["short"]


def test_what_cannot_be_measured_fails_the_run_and_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*, short: bool) -> list[Figure]:
        raise RuntimeError("no engine")

    async def missed(*, short: bool) -> list[Figure]:
        return [at_most("ratio", 2, "x", 1)]

    monkeypatch.setattr("bench.deploy.measure", broken)
    monkeypatch.setattr("bench.cli.measure", missed)
    written = tmp_path / "figures.json"
    assert main(["deploy", "--json", str(written)]) == 1
    assert "deploy could not be measured" in capsys.readouterr().err
    assert json.loads(written.read_text()) == {"figures": {}}
    assert main(["cli"]) == 0
