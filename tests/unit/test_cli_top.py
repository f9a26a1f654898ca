"""`wherry top` as a user runs it, against a real HTTP server."""

import json
from typing import Any

import pytest

from wherry.cli.commands import top
from wherry.cli.main import main
from wherry.cli.text import Style

from .api_stub import Stub, listed, workload


def used(allocation: str, cpu_m: float | None, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "allocation": allocation,
        "container": "main",
        "namespace": "default",
        "kind": "service",
        "name": "web",
        "limit": {"cpuMillicores": 200, "memoryBytes": 64 * 2**20, "pids": 10},
        "cpuMillicores": cpu_m,
        "memoryBytes": 16 * 2**20,
        "memoryPeakBytes": 32 * 2**20,
        "pids": 3,
        "periods": 100,
        "throttledPeriods": 25,
        "cpuPressure": {"share10s": 0.385, "totalSeconds": 1.0},
        "memoryPressure": None,
        "ioPressure": None,
    }
    return plain | changes


MACHINE = {
    "cpuMillicores": 1000.0,
    "cores": 2,
    "memoryBytes": 2**30,
    "memoryTotalBytes": 2**32,
    "cpuPressure10s": 0.5,
    "memoryPressure10s": None,
    "ioPressure10s": 0.001,
}


def answer(*containers: dict[str, Any], silent: tuple[dict[str, str], ...] = ()) -> tuple[int, object]:
    items = [{"node": "n1", "at": "", "machine": MACHINE, "containers": list(containers)}]
    return 200, {"revision": 7, "items": items, "silent": list(silent)}


def test_allocations_are_listed_by_cpu(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/stats"] = answer(used("web-0-a", 3.1), used("web-1-b", 196.2), used("web-2-c", None))
    assert main(["top"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ALLOCATION  NODE  CPU   CPU%  MEMORY  MEM%  PEAK  PIDS  THROTTLED  PRESSURE",
        "web-1-b     n1    196m  98%   16Mi    25%   32Mi  3     25%        cpu 38%",
        "web-0-a     n1    3.1m  2%    16Mi    25%   32Mi  3     25%        cpu 38%",
        "web-2-c     n1    -     -     16Mi    25%   32Mi  3     25%        cpu 38%",
    ]
    assert stub.requests[0].target == "/v1/stats?namespace=default"


def test_a_group_is_the_sum_of_its_containers_or_each_of_them(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    two = used("web-0-a", 100, container="app"), used("web-0-a", 50, container="proxy", throttledPeriods=75)
    stub.answers["GET /v1/stats"] = answer(*two)
    assert main(["top", "allocations"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        *("web-0-a", "n1", "150m", "38%", "32Mi", "25%", "64Mi", "6", "50%", "cpu", "38%")
    ]
    assert main(["top", "--containers"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["web-0-a/app", "web-0-a/proxy"]


def test_one_workload_is_asked_for(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web"))
    stub.answers["GET /v1/stats"] = answer(used("web-0-a", 3.1))
    assert main(["top", "service/web", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["containers"][0]["allocation"] == "web-0-a"
    assert stub.requests[-1].target == "/v1/stats?namespace=default&kind=service&name=web"


def test_a_workload_that_is_not_there_is_told_with_the_nearest_name(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web"))
    assert main(["top", "service/wep"]) == 3
    assert "did you mean 'web'" in capsys.readouterr().err


def test_nodes_have_their_machine_beside_them_and_the_silent_are_told(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {"node": "n2", "why": "node n2 is not connected"}
    stub.answers["GET /v1/stats"] = answer(used("web-0-a", 500), silent=(gone,))
    stub.answers["GET /v1/nodes"] = listed({"name": "n1", "allocatable": {"cpu": "2", "memory": "1Gi"}})
    assert main(["top", "nodes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["n1", "500m", "25%", "16Mi", "2%", "1", "50%", "25%", "cpu", "50%"]
    assert lines[2].split() == ["n2", "node", "n2", "is", "not", "connected"]
    assert main(["top"]) == 0
    assert "n2 is not in this list: node n2 is not connected" in capsys.readouterr().err


def test_nothing_is_said_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/stats"] = answer()
    assert main(["top"]) == 0
    assert capsys.readouterr().err == "Nothing runs.\n"


def test_what_has_no_usage_is_refused(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "events"]) == 2
    assert "nodes, allocations or a workload" in capsys.readouterr().err


def lived(**changes: Any) -> dict[str, Any]:
    life = {
        "version": 2,
        "at": "2026-11-25T13:00:00.000Z",
        "since": "2026-11-25T10:00:00.000Z",
        "startedAt": "2026-11-25T10:00:00.000Z",
        "samples": 1080,
        "reserved": {"cpuMillicores": 100, "memoryBytes": 32 * 2**20, "pids": 10},
        "cpuMeanMillicores": 90.0,
        "cpuPeakMillicores": 180.0,
        "memoryUsedPeakBytes": 60 * 2**20,
        "pidsPeak": 3,
        "oomKills": 0,
        "throttledPeriods": 50,
        "cpuPressure": None,
    }
    return used("web-0-a", 100, **(life | changes))


def test_advice_tells_what_was_seen_and_the_patch(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/stats"] = answer(lived(), lived(version=1, oomKills=9))
    assert main(["top", "--advise"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "service/web  1 allocation, seen for 3h",
        "  memory  peak 32Mi of 32Mi reserved, limit 64Mi",
        "  cpu     mean 90m, peak 180m of 100m reserved, limit 200m, throttled in 50%",
        "  pids    peak 3, limit 10",
        "  -> raise the cpu limit from 200m to 400m: it was throttled in 50% of the periods in which it ran",
        "  the patch:",
        "    apiVersion: wherry/v1",
        "    kind: Service",
        "    metadata:",
        "      name: web",
        "      namespace: default",
        "    spec:",
        "      resources:",
        "        cpu: 100m",
        "      limits:",
        "        cpu: 400m",
    ]


def test_advice_says_when_it_has_seen_too_little(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/stats"] = answer(lived(since="2026-11-25T12:55:00.000Z", samples=30, throttledPeriods=0))
    assert main(["top", "--advise"]) == 0
    assert "seen too little: it was seen for 5 min only" in capsys.readouterr().out


def test_advice_as_yaml_is_the_manifest_with_the_patch(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    limits = {"memory": "64Mi", "cpu": "200m"}
    containers: list[dict[str, Any]] = [{"name": "app", "image": "a", "limits": limits}, {"name": "log", "image": "b"}]
    manifest = {"kind": "Service", "metadata": {"name": "web"}, "spec": {"replicas": 2, "containers": containers}}
    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web", manifest=manifest))
    stub.answers["GET /v1/stats"] = answer(lived(container="app"))
    assert main(["top", "--advise", "service/web", "-o", "yaml"]) == 0
    (shown,) = yaml.safe_load_all(capsys.readouterr().out)
    app, log = shown["spec"]["containers"]
    assert app == {**containers[0], "resources": {"cpu": "100m"}, "limits": {"memory": "64Mi", "cpu": "400m"}}
    assert log == containers[1]
    assert shown["spec"]["replicas"] == 2


def test_advice_as_json_has_each_finding(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/stats"] = answer(lived())
    assert main(["top", "--advise", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["after"] == 400
    assert found["patch"]["spec"]["limits"] == {"cpu": "400m"}


def test_watching_draws_anew_on_a_terminal_and_outlives_an_outage(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [answer(used("web-0-a", 3.1)), (503, {"title": "the store is away"}), answer(used("web-0-a", 9.0))]
    stub.answers["GET /v1/stats"] = lambda request: looks[len(stub.requests) - 1]
    pauses = iter([None, None])

    def pause(seconds: float) -> None:
        if next(pauses, "no more") is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(top, "style_of", lambda stream: Style(has_colour=True, width=100))
    monkeypatch.setattr("time.sleep", pause)
    assert main(["top", "--watch"]) == 130
    captured = capsys.readouterr()
    assert captured.out.count("\x1b[H\x1b[2J") == 2
    assert "3.1m" in captured.out
    assert "9m" in captured.out
    assert "trying again" in captured.err
