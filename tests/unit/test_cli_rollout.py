"""Rollouts and configs as a user sees them, against a real HTTP server: what is printed, and the exit codes."""

from pathlib import Path
from typing import Any

import pytest

from wherry.cli.main import main

from .api_stub import Request, Stub, allocation, listed, workload

PATH = "/v1/workloads/default/service/web"
WEB = "apiVersion: wherry/v1\nkind: Service\nmetadata: {name: web}\nspec: {image: a}\n"
RESULT = {"namespace": "default", "kind": "Service", "name": "web", "action": "changed", "version": 3, "changes": []}


def rollout(state: str, **changes: object) -> dict[str, Any]:
    return {
        "state": state,
        "version": 2,
        "target": 2,
        "message": "",
        "healthyVersion": 1,
        "paused": False,
        "updated": 1,
        "ready": 1,
        "old": 1,
        **changes,
    }


def web(state: str, **changes: object) -> dict[str, Any]:
    return workload("web", version=2, rollout=rollout(state, **changes), revision=9)


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answers["GET /v1/watch"] = (200, b'{"type": "synced", "revision": 5}\n' * 3)
    stub.answers["GET /v1/allocations"] = listed(allocation("web-0-1", phase="starting", health="unknown"))
    return stub


def test_status_follows_a_rollout_until_it_is_complete(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    steps = iter([web("progressing"), web("progressing"), web("complete", updated=2, ready=2, old=0)])
    stub.answers[f"GET {PATH}"] = lambda request: (200, next(steps))
    assert main(["rollout", "status", "service/web"]) == 0
    captured = capsys.readouterr()
    assert "service/web: rollout progressing, 1/2 of version 2 ready, 1 of other versions" in captured.err
    assert "web-0-1 on n1: starting" in captured.err
    assert captured.out == "service/web: rollout complete, 2/2 of version 2 ready\n"


@pytest.mark.parametrize("state", ["failed", "reverted"])
def test_status_of_one_that_fails_or_reverts_is_exit_1_with_the_reason(
    stub: Stub, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "version 2 made no progress for 2m"
    stub.answers[f"GET {PATH}"] = (200, {**web(state, target=1), "messages": [said]})
    assert main(["rollout", "status", "service/web"]) == 1
    assert said in capsys.readouterr().err.rpartition("error:")[2]


def test_status_that_isn_t_over_in_time_is_exit_5(stub: Stub) -> None:
    stub.answers[f"GET {PATH}"] = (200, web("waiting"))
    assert main(["rollout", "status", "service/web", "--timeout", "300ms"]) == 5


def test_history_tells_what_changed_why_and_whether_it_was_healthy(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    change = {"path": "spec.image", "old": "a", "new": "b"}
    newest = {"version": 2, "cause": "its spec changed", "isPresent": True, "wasHealthy": False, "changes": [change]}
    first = {"version": 1, "cause": "created", "isTarget": True, "wasHealthy": True, "allocations": 2, "changes": []}
    stub.answers[f"GET {PATH}/versions"] = listed(newest, first)
    assert main(["rollout", "history", "service/web"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "VERSION     AGE  HEALTHY  ALLOCATIONS  BY  CAUSE",
        "2 (failed)  -    no       0            -   its spec changed: spec.image a -> b",
        "1 (runs)    -    yes      2            -   created",
    ]


def test_undo_goes_to_the_version_that_was_asked_for(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [{"path": "spec.image", "old": "b", "new": "a"}]
    stub.answers[f"POST {PATH}/rollout/undo"] = (200, {**RESULT, "makesVersion": True, "changes": changes})
    assert main(["rollout", "undo", "service/web", "--to", "1"]) == 0
    assert stub.requests[0].body == {"version": 1}
    assert capsys.readouterr().out == "service/web changed (version 3: spec.image b -> a)\n"


def test_pause_and_resume_say_what_is_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers[f"POST {PATH}/rollout/pause"] = (200, RESULT)
    stub.answers[f"POST {PATH}/rollout/resume"] = (200, {**RESULT, "action": "unchanged"})
    assert main(["rollout", "pause", "service/web"]) == 0
    assert main(["rollout", "resume", "service/web"]) == 0
    assert capsys.readouterr().out.splitlines() == ["service/web is paused", "service/web was resumed"]


def test_a_wrong_action_or_kind_never_reaches_the_server(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "statsu", "service/web"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err
    assert main(["rollout", "status", "job/sum"]) == 2
    assert main(["rollout", "pause", "service/web", "--to", "1"]) == 2
    assert stub.requests == []


def test_restart_waits_until_all_is_replaced(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers[f"POST {PATH}/rollout/restart"] = (200, {**RESULT, "revision": 9})
    stub.answers[f"GET {PATH}"] = (200, web("complete"))
    assert main(["restart", "service/web", "--wait"]) == 0
    assert capsys.readouterr().out == "service/web restarts (version 3)\n"


def test_apply_that_waits_ends_with_failure_when_the_rollout_goes_back(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web.yaml").write_text(WEB)
    said = "version 2 made no progress for 2m: 0 of 2 available. Back to version 1"
    stub.answers["POST /v1/apply"] = (200, {"revision": 5, "results": [RESULT]})
    stub.answers["GET /v1/workloads"] = listed({**web("progressing", target=1), "messages": [said]})
    assert main(["apply", "-f", str(tmp_path / "web.yaml"), "--wait"]) == 1
    assert said in capsys.readouterr().err


def test_apply_waits_for_workloads_and_not_for_configs(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(
        "apiVersion: wherry/v1\nkind: Config\nmetadata: {name: site}\nspec: {data: x}\n"
    )
    config = {**RESULT, "kind": "Config", "name": "site"}
    stub.answers["POST /v1/apply"] = (200, {"revision": 5, "results": [config, RESULT]})
    stub.answers["GET /v1/workloads"] = listed({**web("complete"), "state": "healthy"})
    assert main(["apply", "-f", str(tmp_path / "site.yaml"), "--wait"]) == 0


CONFIG = {
    "namespace": "default",
    "kind": "Config",
    "name": "site",
    "version": 4,
    "createdAt": None,
    "bytes": 5,
    "users": ["service/web"],
    "keptVersions": [3, 4],
    "manifest": {"spec": {"data": "a: b\n"}},
}


def test_configs_are_listed_described_and_deleted(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/configs"] = listed(CONFIG)
    stub.answers["GET /v1/configs/default/site"] = (200, CONFIG)
    stub.answers["DELETE /v1/configs/default/site"] = (200, {"revision": 9})
    assert main(["get", "configs"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME  VERSION  BYTES  AGE  MESSAGE",
        "site  4        5      -    used by service/web",
    ]
    assert main(["describe", "config", "site"]) == 0
    page = capsys.readouterr().out
    assert "versions 3, 4" in page
    assert "  a: b" in page
    assert main(["delete", "config/site"]) == 0
    assert capsys.readouterr().out == "config/site deleted\n"


def test_files_are_deleted_with_their_configs_last(stub: Stub, tmp_path: Path) -> None:
    text = "apiVersion: wherry/v1\nkind: Config\nmetadata: {name: site}\nspec: {data: x}\n---\n" + WEB
    (tmp_path / "all.yaml").write_text(text)

    def gone(request: Request) -> tuple[int, object]:
        return 200, {"revision": 9}

    stub.answers["DELETE /v1/configs/default/site"] = stub.answers[f"DELETE {PATH}"] = gone
    assert main(["delete", "-f", str(tmp_path / "all.yaml")]) == 0
    assert [r.target for r in stub.requests] == [PATH, "/v1/configs/default/site"]


def test_describe_tells_where_the_rollout_stands(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers[f"GET {PATH}"] = (200, web("reverted", target=1, message="it failed", paused=True))
    stub.answers["GET /v1/events"] = listed()
    assert main(["describe", "service", "web"]) == 0
    page = capsys.readouterr().out
    for line in ("2, but version 1 is what it works towards", "it failed", "paused by its user", "version 1"):
        assert line in page
