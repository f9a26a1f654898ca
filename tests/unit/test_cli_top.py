"""`wherry top` as a user runs it, against a real HTTP server."""

import json
from typing import Any

import pytest

from wherry.cli.main import main

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
