"""`wherry wait`, `run`, `freeze` and the pages of CronJobs, against a real HTTP server: words and exit codes."""

from typing import Any

import pytest

from wherry.cli.main import main

from .api_stub import Answer, Request, Stub, allocation, listed, workload

NODE = {"name": "n1", "state": "ready", "allocations": 3, "message": ""}
CRON = {
    "schedule": "15 2 * * *",
    "timeZone": "Europe/Berlin",
    "suspend": False,
    "lastSlot": "2026-01-01T00:15:00.000Z",
    "lastJob": "backup-20260101-0015",
    "next": ["2126-01-02T01:15:00.000Z", "2126-01-03T01:15:00.000Z"],
    "active": ["backup-20260101-0015"],
    "jobs": [
        {"name": "backup-20260101-0015", "state": "active", "createdAt": "2026-01-01T00:15:00.000Z"},
        {"name": "backup-20251231-0015", "state": "failed", "createdAt": "2025-12-31T00:15:00.000Z"},
    ],
}
BACKUP = workload("backup", kind="CronJob", state="running", cron=CRON)


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answers["GET /v1/allocations"] = listed()
    return stub


def in_turn(*answers: Answer) -> Any:
    """Return what answers one after the other, and the last one for ever."""
    left = list(answers)

    def answer(_: Request) -> Answer:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def test_a_wait_ends_when_it_is_so(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web"] = in_turn(
        (200, workload("web", state="progressing")), (200, workload("web"))
    )
    assert main(["wait", "service/web", "--for", "healthy"]) == 0
    assert "service/web: healthy, 2/2 ready" in capsys.readouterr().err


def test_a_wait_that_takes_too_long_says_what_it_hangs_on(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web"] = (
        200,
        workload("web", state="waiting", messages=["waits for job migrate, which failed"]),
    )
    assert main(["wait", "service/web", "--timeout", "1ms"]) == 5
    assert "waits for job migrate, which failed" in capsys.readouterr().err


def test_a_wait_for_what_cannot_come_any_more_ends_at_once(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    failed = workload("sum", kind="Job", state="failed", messages=["index 0 is given up after 2 failures: exit 1"])
    stub.answers["GET /v1/workloads/default/job/sum"] = (200, failed)
    assert main(["wait", "job", "sum", "--for", "complete"]) == 1
    assert "index 0 is given up" in capsys.readouterr().err


def test_a_wait_for_what_is_not_there_ends_at_once(stub: Stub) -> None:
    stub.answers["GET /v1/workloads"] = listed()
    assert main(["wait", "job/sum"]) == 3
    assert main(["wait", "job/sum", "--for", "deleted"]) == 0


def test_a_deletion_is_waited_for_until_nothing_runs(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/allocations"] = in_turn(listed(allocation("web-0-a")), listed())
    assert main(["wait", "service/web", "--for", "deleted"]) == 0
    assert "stopping, 1 allocation left" in capsys.readouterr().err


@pytest.mark.parametrize(("condition", "state"), [("drained", "drained"), ("node-ready", "ready"), ("lost", "lost")])
def test_nodes_are_waited_for_too(stub: Stub, condition: str, state: str) -> None:
    other = "ready" if state != "ready" else "lost"
    stub.answers["GET /v1/nodes/n1"] = in_turn((200, {**NODE, "state": other}), (200, {**NODE, "state": state}))
    assert main(["wait", "node/n1", "--for", condition]) == 0


def test_several_are_waited_for_at_once_and_those_left_are_told(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/nodes/n1"] = (200, {**NODE, "state": "drained"})
    stub.answers["GET /v1/nodes/n2"] = (200, {**NODE, "name": "n2", "state": "draining"})
    assert main(["wait", "nodes", "n1", "n2", "--for", "drained", "--timeout", "1ms"]) == 5
    said = capsys.readouterr().err
    assert "1 node not done within" in said
    assert "node/n2: draining, 3 allocations" in said.split("error:")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["service/web", "--for", "helthy"], "did you mean 'healthy'?"),
        (["job/sum", "--for", "healthy"], "They get: complete, deleted."),
        (["node/n1", "--for", "complete"], "They get: ready, drained"),
        (["events"], "events can't be waited for"),
        (["services"], "which of the services?"),
    ],
)
def test_what_never_comes_is_refused(
    stub: Stub, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["wait", *words]) == 2
    assert said in capsys.readouterr().err
    assert stub.requests == []


def test_cron_jobs_are_listed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(BACKUP)
    assert main(["get", "cronjobs"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "SCHEDULE", "ZONE", "SUSPEND", "LAST", "NEXT", "ACTIVE", "STATE", "AGE"]
    assert row.startswith("backup  15 2 * * *  Europe/Berlin  no ")
    assert stub.requests[0].target == "/v1/workloads?namespace=default&kind=cronjob"


def test_jobs_name_their_owner(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    owned = workload("backup-20260101-0015", kind="Job", owner="cronjob/backup", state="complete")
    stub.answers["GET /v1/workloads"] = listed(owned, workload("sum", kind="Job", owner=None, state="complete"))
    assert main(["get", "jobs"]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert "cronjob/backup" in first
    assert " - " in second


def test_a_cron_job_s_page_has_its_next_times_and_its_jobs(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/cronjob/backup"] = (200, BACKUP)
    stub.answers["GET /v1/events"] = listed()
    assert main(["describe", "cronjob", "backup"]) == 0
    said = capsys.readouterr().out
    assert "15 2 * * *, in Europe/Berlin" in said
    assert "next 2126-01-02T01:15:00.000Z, in " in said
    assert "job/backup-20251231-0015: failed" in said


def test_a_run_names_its_job_and_waits_for_it(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"namespace": "default", "kind": "Job", "name": "backup-run-1a2b3c", "revision": 5}
    stub.answers["POST /v1/workloads/default/cronjob/backup/run"] = (201, made)
    stub.answers["GET /v1/workloads"] = listed(workload("backup-run-1a2b3c", kind="Job", state="complete"))
    assert main(["run", "cronjob/backup", "--wait"]) == 0
    assert capsys.readouterr().out == "job/backup-run-1a2b3c created\n"
    assert main(["run", "job/sum"]) == 2


def test_the_cluster_says_that_it_is_frozen_and_why(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = {"by": "admin token", "reason": "new switch", "since": "2026-11-24T12:00:00.000Z"}
    shown = {"cluster": "c1", "leader": "s1", "version": "0.1.0", "revision": 7, "frozen": frozen, "brake": None}
    stub.answers["GET /v1/cluster"] = (200, shown)
    assert main(["get", "cluster"]) == 0
    cells = capsys.readouterr().out.splitlines()[1].split(None, 5)
    assert cells[:5] == ["c1", "s1", "0.1.0", "7", "frozen"]
    assert cells[5] == "frozen since 2026-11-24T12:00:00.000Z, by admin token: new switch"
    assert main(["get", "cluster", "nodes"]) == 2


def test_a_freeze_carries_its_reason_and_every_warning_is_said_once(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.headers["Warning"] = '199 wherry "the cluster is frozen since noon by admin: new switch"'
    stub.answers["POST /v1/freeze"] = (200, {})
    stub.answers["POST /v1/unfreeze"] = (200, {})
    stub.answers["GET /v1/nodes"] = listed(NODE)
    assert main(["freeze", "--reason", "new switch"]) == 0
    assert stub.requests[0].body == {"reason": "new switch"}
    capsys.readouterr()
    assert main(["get", "nodes"]) == 0
    assert capsys.readouterr().err == "warning: the cluster is frozen since noon by admin: new switch\n"
    assert main(["unfreeze"]) == 0
