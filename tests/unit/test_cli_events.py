"""`wherry events`, and what else tells of the past, as a user runs it against a real HTTP server."""

import json

import pytest

from wherry.cli.main import main

from .api_stub import Answer, Request, Stub, allocation, listed, workload

LONG_AGO = "2026-01-01T00:00:00.000Z"
CREATED = {
    "id": "default/service/web/created-1",
    "revision": 3,
    "at": LONG_AGO,
    "firstAt": LONG_AGO,
    "count": 1,
    "subject": "service/web",
    "namespace": "default",
    "reason": "created",
    "message": "created at version 1",
    "allocation": "",
    "by": "admin token of s1",
}
EXITED = {**CREATED, "id": "e", "reason": "exited", "count": 40, "message": "web-0-1, attempt 7, ended", "by": "",
          "allocation": "web-0-1"}  # fmt: skip


def test_events_tell_what_how_often_why_and_who(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/events"] = listed(CREATED, EXITED)
    assert main(["events"]) == 0
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["AGE", "TIMES", "SUBJECT", "REASON", "MESSAGE"]
    assert first.endswith("created at version 1, by admin token of s1")
    assert second.split()[1:4] == ["40x", "service/web", "exited"]
    assert "/v1/events?limit=200" in stub.requests[0].target


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--for", "service/web"], "for=service%2Fweb"),
        (["--for", "svc/web", "-n", "prod"], "for=service%2Fprod%2Fweb&namespace=prod"),
        (["--for", "config/site", "-n", "prod"], "for=config%2Fprod%2Fsite&namespace=prod"),
        (["--for", "service/prod/web"], "for=service%2Fprod%2Fweb"),
        (["--for", "node/n1", "--since", "1h"], "for=node%2Fn1&since=3600"),
        (["--for", "alloc/web-0-1", "--limit", "5"], "for=allocation%2Fweb-0-1&limit=5"),
        (["-n", "prod"], "namespace=prod"),
    ],
)
def test_what_is_asked_for_is_asked_of_the_server(stub: Stub, words: list[str], asked: str) -> None:
    stub.answers["GET /v1/events"] = listed()
    assert main(["events", *words]) == 0
    assert asked in stub.requests[0].target


def test_what_has_no_events_is_refused_in_words(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "--for", "events/web"]) == 2
    assert "have no events of their own" in capsys.readouterr().err
    assert stub.requests == []


def test_a_watch_goes_on_after_the_list_and_shows_what_is_asked_for(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(event: dict[str, object], revision: int) -> str:
        return json.dumps({"type": "event", "action": "put", "revision": revision, "object": event})

    other = {**CREATED, "subject": "service/api"}
    lines = [change(other, 6), '{"type": "progress", "revision": 9}', change({**EXITED, "count": 41}, 10)]
    answers: list[Answer] = [(200, "\n".join(lines).encode() + b"\n"), (401, {"title": "the token is over"})]

    def watch(_: Request) -> Answer:
        return answers.pop(0)

    stub.answers["GET /v1/events"] = listed(EXITED)
    stub.answers["GET /v1/watch"] = watch
    assert main(["events", "--for", "service/web", "--watch"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown[1:]] == ["40x", "41x"]
    watches = [r.target for r in stub.requests if "watch" in r.target]
    assert [("after=5" in t, "after=10" in t) for t in watches] == [(True, False), (False, True)]


def test_a_watch_as_json_is_one_event_a_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/events"] = listed(CREATED)
    stub.answers["GET /v1/watch"] = (401, {"title": "the token is over"})
    assert main(["events", "--watch", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == CREATED


def test_ended_allocations_are_listed_on_request(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    gone = allocation("web-0-1", phase="failed", message="node n1 was lost", isGone=True)
    stub.answers["GET /v1/allocations"] = listed(gone)
    assert main(["get", "allocations", "--finished"]) == 0
    assert "failed" in capsys.readouterr().out
    assert main(["get", "allocations", "--all"]) == 0
    assert main(["get", "allocations"]) == 0
    assert ["ended=only" in stub.requests[0].target, "ended=true" in stub.requests[1].target] == [True, True]
    assert "ended" not in stub.requests[2].target


@pytest.mark.parametrize("words", [["nodes", "--all"], ["allocations", "--all", "--watch"]])
def test_only_lists_of_allocations_have_ended_ones(
    stub: Stub, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", *words]) == 2
    assert "--finished" in capsys.readouterr().err


def test_describe_tells_recent_ends_with_what_they_wrote_last(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    ending = {"attempt": 3, "exitCode": 3, "reason": "exited", "message": "exit code 3", "finishedAt": LONG_AGO,
              "logTail": ["starting", "no such table: \x1b[31musers"]}  # fmt: skip
    gone = allocation("web-0-0", phase="failed", stopReason="it failed on node n1: exit code 3", lastEnding=ending,
                      restarts=2, finishedAt=LONG_AGO)  # fmt: skip

    def allocations(request: Request) -> Answer:
        return listed(gone) if "ended=only" in request.target else listed()

    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web"))
    stub.answers["GET /v1/allocations"] = allocations
    stub.answers["GET /v1/events"] = listed(CREATED, EXITED)
    assert main(["describe", "service", "web"]) == 0
    page = capsys.readouterr().out
    for line in ("Recent ends", "web-0-0 on n1: failed", "2 restarts", "| starting", "| no such table: users", "40x"):
        assert line in page
    assert "for=service%2Fweb" in next(r.target for r in stub.requests if "events" in r.target)


def test_a_history_too_short_to_be_of_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--keep-history", "10s"]) == 2
    assert "at least 60s" in capsys.readouterr().err
