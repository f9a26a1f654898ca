"""The commands as a user runs them, against a real HTTP server: what they print, and their exit codes."""

import json
from pathlib import Path

import pytest

from wherry.cli.commands.apply import result_line
from wherry.cli.main import main

from .api_stub import Request, Stub, allocation, listed, workload

NODE = {
    "name": "n1",
    "state": "ready",
    "reserved": {"cpu": "750m", "memory": "0"},
    "allocatable": {"cpu": "2", "memory": "1Gi"},
    "allocations": 3,
}
WEB = """apiVersion: wherry/v1
kind: Service
metadata: {name: web}
spec: {image: a}
"""
CREATED = {"namespace": "default", "kind": "Service", "name": "web", "action": "created", "version": 1, "changes": []}


@pytest.fixture
def web(tmp_path: Path) -> str:
    (tmp_path / "web.yaml").write_text(WEB)
    return str(tmp_path / "web.yaml")


def test_nodes_are_listed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/nodes"] = listed(NODE)
    assert main(["get", "nodes"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME  STATE  CPU     MEMORY  ALLOCATIONS  SINCE",
        "n1    ready  750m/2  0/1Gi   3            -",
    ]


def test_an_empty_list_is_no_failure_and_is_told_on_stderr(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed()
    assert main(["get", "svc"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "No services in namespace default.\n")
    assert stub.requests[0].target == "/v1/workloads?namespace=default&kind=service"


def test_json_is_the_api_s_own_list_or_object(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/nodes"] = listed(NODE)
    stub.answers["GET /v1/nodes/n1"] = (200, NODE)
    assert main(["get", "nodes", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"revision": 5, "items": [NODE]}
    assert main(["get", "node/n1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == NODE


def test_yaml_of_a_workload_can_be_applied_again(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web"))
    assert main(["get", "svc", "web", "-o", "yaml"]) == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    stub.answers["POST /v1/apply"] = (200, {"revision": 6, "results": [{**CREATED, "action": "unchanged"}]})
    assert main(["apply", "-f", str(tmp_path / "again.yaml")]) == 0
    assert capsys.readouterr().out == "service/web unchanged\n"


def test_an_unknown_name_is_exit_3_with_the_nearest(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web"), workload("database"))
    assert main(["get", "service", "wbe"]) == 3
    assert "there is no service 'wbe' in the namespace default; did you mean 'web'?" in capsys.readouterr().err


def test_a_name_of_another_namespace_is_found(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web", namespace="shop"))
    assert main(["describe", "service/web"]) == 3
    assert "add -n shop" in capsys.readouterr().err


def test_apply_sends_manifests_and_tells_results(stub: Stub, web: str, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/apply"] = (200, {"revision": 6, "results": [CREATED]})
    assert main(["apply", "-f", web, "--dry-run"]) == 0
    assert capsys.readouterr().out == "service/web would be created (version 1)\n"
    assert stub.requests[0].body["dryRun"] is True
    assert stub.requests[0].body["documents"][0]["spec"]["image"] == "a"


def test_a_manifest_that_the_server_refuses_is_named_by_file_and_line(
    stub: Stub, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [{"document": 0, "path": "spec.image", "message": "is not allowed here"}]
    stub.answers["POST /v1/apply"] = (422, {"title": "1 problem", "problems": problems})
    assert main(["apply", "-f", web]) == 1
    assert f"{web}:1: spec.image: is not allowed here" in capsys.readouterr().err


def test_a_wrong_manifest_never_reaches_the_server(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(WEB.replace("image", "imag"))
    assert main(["apply", "-f", str(tmp_path / "bad.yaml")]) == 1
    assert "did you mean 'image'?" in capsys.readouterr().err
    assert stub.requests == []


def test_apply_waits_until_the_change_is_known_and_well(
    stub: Stub, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    states = iter([(5, "healthy"), (6, "progressing"), (7, "healthy")])  # the first is from before the apply

    def show(request: Request) -> tuple[int, object]:
        revision, state = next(states)
        return listed(workload("web", state=state), revision=revision)

    stub.answers["POST /v1/apply"] = (200, {"revision": 6, "results": [CREATED]})
    stub.answers["GET /v1/workloads"] = show
    stub.answers["GET /v1/allocations"] = listed(allocation("web-0-1", phase="starting", health="unknown"))
    stub.answers["GET /v1/watch"] = (200, b'{"type": "synced", "revision": 5}\n' * 3)
    assert main(["apply", "-f", web, "--wait"]) == 0
    told = capsys.readouterr().err
    assert "web-0-1 on n1: starting" in told
    assert told.splitlines()[-1] == "service/web: healthy, 2/2 ready, 2/2 up to date"


def test_apply_that_never_gets_well_is_exit_5_with_the_reason(
    stub: Stub, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = workload("web", state="blocked", blocked=[{"sentence": "1 can't be placed: there are no nodes"}])
    stub.answers["POST /v1/apply"] = (200, {"revision": 5, "results": [CREATED]})
    stub.answers["GET /v1/workloads"] = listed(blocked)
    stub.answers["GET /v1/allocations"] = listed()
    assert main(["apply", "-f", web, "--wait", "--timeout", "300ms"]) == 5
    assert "1 can't be placed: there are no nodes" in capsys.readouterr().err.rpartition("error:")[2]


def test_apply_that_waits_for_a_job_which_fails_is_exit_1(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(WEB.replace("Service", "Job"))
    stub.answers["POST /v1/apply"] = (200, {"revision": 5, "results": [{**CREATED, "kind": "Job"}]})
    stub.answers["GET /v1/workloads"] = listed(workload("web", kind="Job", state="failed"))
    stub.answers["GET /v1/allocations"] = listed()
    assert main(["apply", "-f", str(tmp_path / "job.yaml"), "--wait"]) == 1
    assert "job/web failed" in capsys.readouterr().err


def test_results_tell_what_changed() -> None:
    changes = [{"path": "spec.image", "old": "a", "new": "b\x1b[2J"}, {"path": "spec.ports", "old": None, "new": [1]}]
    changed = {**CREATED, "action": "changed", "version": 2, "makesVersion": True, "changes": changes}
    assert result_line(changed) == "service/web changed (version 2: spec.image a -> b, spec.ports none -> [1])"
    scaled = {**changed, "makesVersion": False, "changes": [{"path": "spec.replicas", "old": 1, "new": 3}]}
    assert result_line(scaled, is_dry=True) == "service/web would be changed (spec.replicas 1 -> 3)"


def test_delete_of_what_is_not_there_fails_by_name_and_not_by_file(stub: Stub, web: str) -> None:
    stub.answers["GET /v1/workloads"] = listed()
    assert main(["delete", "service", "web"]) == 3
    assert main(["delete", "-f", web]) == 0


def test_delete_waits_until_its_allocations_have_ended(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    left = iter([[allocation("web-0-1", phase="stopping")], []])
    stub.answers["DELETE /v1/workloads/default/service/web"] = (202, {"revision": 6})
    stub.answers["GET /v1/allocations"] = lambda request: listed(*next(left))
    assert main(["delete", "service/web", "--wait"]) == 0
    assert "web-0-1 on n1: stopping" in capsys.readouterr().err


def test_scale_and_drain_say_what_they_did(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    result = {**CREATED, "action": "changed", "changes": [{"path": "spec.replicas", "old": 1, "new": 3}]}
    stub.answers["POST /v1/workloads/default/service/web/scale"] = (200, result)
    stub.answers["POST /v1/nodes/n1/drain"] = (200, {**NODE, "state": "draining"})
    assert main(["scale", "service/web", "3"]) == 0
    assert main(["node", "drain", "n1"]) == 0
    assert stub.requests[0].body == {"replicas": 3}
    assert capsys.readouterr().out.splitlines() == [
        "service/web changed (spec.replicas 1 -> 3)",
        "node/n1 is draining, 3 allocations to move",
    ]


def test_logs_of_several_allocations_carry_their_ids(stub: Stub, capfd: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/allocations"] = listed(allocation("web-0-1"), allocation("web-1-2", index=1))
    stub.answers["GET /v1/allocations/web-0-1/logs"] = (200, b"one\ntwo")
    stub.answers["GET /v1/allocations/web-1-2/logs"] = (200, b"three\n")
    assert main(["logs", "service/web", "--tail", "5"]) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["web-0-1 | one", "web-0-1 | two", "web-1-2 | three"]


def test_describe_tells_why_and_how_it_ended(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    ending = {"attempt": 1, "exitCode": 1, "reason": "exited", "message": "look at its logs", "finishedAt": None}
    why = {
        "score": 0.5,
        "parts": [["bestFit", 0.5]],
        "runnersUp": [{"node": "n2", "score": 0.4}],
        "rejections": [{"node": "n3", "code": "cordoned", "needed": "", "found": ""}],
    }
    stub.answers["GET /v1/allocations/web-0-1"] = (200, allocation("web-0-1", lastEnding=ending, why=why))
    stub.answers["GET /v1/events"] = listed()
    assert main(["describe", "alloc", "web-0-1"]) == 0
    page = capsys.readouterr().out
    for line in ("score 0.50 (bestFit 0.50)", "runner-up n2: 0.40", "ruled out n3: is cordoned", "exited (1)"):
        assert line in page


SERVERS = {
    "revision": 7,
    "items": [
        {"name": "s1", "isLeader": True, "version": "0.2.0", "agents": 3, "url": "http://10.0.0.1:7400"},
        {"name": "s2", "isLeader": False, "version": "0.2.0", "agents": 0, "url": "http://10.0.0.2:7400"},
    ],
    "store": [
        {"endpoint": "http://a:2379", "version": "3.4.23", "isLeader": True, "databaseBytes": 20480, "why": "",
         "warnings": ["3.4.23 is old"]},
        {"endpoint": "http://b:2379", "version": "", "isLeader": False, "databaseBytes": 0, "why": "it is away",
         "warnings": []},
        {"endpoint": "http://c:2379", "version": "3.4.23", "isLeader": False, "databaseBytes": 1, "why": "",
         "warnings": ["3.4.23 is old"]},
    ],
}  # fmt: skip


def test_servers_are_listed_with_their_store_and_each_warning_once(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["GET /v1/servers"] = 200, SERVERS
    assert main(["get", "servers"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "NAME  ROLE      VERSION  AGENTS  AGE  URL",
        "s1    leader    0.2.0    3       -    http://10.0.0.1:7400",
        "s2    follower  0.2.0    0       -    http://10.0.0.2:7400",
        "",
        "STORE          ROLE      VERSION  SIZE  STATE",
        "http://a:2379  leader    3.4.23   20Ki  healthy",
        "http://b:2379  -         -        -     unhealthy: it is away",
        "http://c:2379  follower  3.4.23   1     healthy",
    ]
    assert captured.err == "warning: etcd 3.4.23 is old\n"


def test_servers_can_t_be_watched(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "servers", "--watch"]) == 2
    assert "servers can only be shown whole" in capsys.readouterr().err


def test_a_later_answer_must_not_be_older_than_an_earlier_one(stub: Stub) -> None:
    stub.headers = {"Wherry-Generation": "1", "Wherry-Revision": "41"}
    stub.answers["GET /v1/nodes/n1"] = 200, NODE
    stub.answers["GET /v1/allocations/x"] = 200, allocation("x")
    assert main(["get", "nodes/n1", "allocations/x"]) == 0
    assert [r.min_revision for r in stub.requests] == ["", "41"]
