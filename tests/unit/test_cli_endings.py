"""How the command line shows crash loops, last lines and the containers of a group."""

from typing import Any

from wherry.cli.description import allocation_page, workload_page
from wherry.cli.kinds import ALLOCATIONS
from wherry.cli.tables import View
from wherry.cli.text import Style, until

ENDING = {
    "attempt": 3,
    "reason": "exited",
    "exitCode": 7,
    "message": "exited with code 7",
    "container": "app",
    "logTail": ["starting", "out of \x1b[31mluck\x1b[0m"],
    "finishedAt": "1970-01-01T00:01:30Z",
}
LOOPING: dict[str, Any] = {
    "id": "web-0-a",
    "namespace": "default",
    "kind": "Service",
    "name": "web",
    "version": 1,
    "index": 0,
    "node": "n1",
    "nodeState": "ready",
    "desired": "run",
    "phase": "backoff",
    "health": "unknown",
    "attempt": 4,
    "restarts": 3,
    "failures": 3,
    "crashLooping": True,
    "createdAt": "1970-01-01T00:00:00Z",
    "nextAttemptAt": "1970-01-01T00:01:48Z",
    "lastEnding": ENDING,
    "containers": [
        {"name": "app", "phase": "backoff", "health": "unknown", "attempt": 4, "lastEnding": ENDING},
        {"name": "log", "phase": "running", "health": "healthy", "attempt": 1},
    ],
}
NOW_S = 100.0


def test_an_allocation_tells_its_crash_loop_and_what_it_wrote_last() -> None:
    page = "\n".join(allocation_page(LOOPING, (), NOW_S, Style()))
    for said in (
        "crash loop     3 failures in a row",
        "next attempt   in 8s",
        "attempt 3 of container app ended 10s ago: exited (7)",
        "  | starting\n  | out of luck\n",
        "container app: backoff, 3 restarts, last exited (7)",
        "container log: running, healthy",
    ):
        assert said in page, page
    assert "\x1b" not in page


def test_a_workload_tells_it_of_its_allocations() -> None:
    item = {"kind": "Service", "name": "web", "namespace": "default", "state": "crashLoop"}
    page = "\n".join(workload_page(item, [LOOPING], NOW_S, Style()))
    assert "web-0-a on n1: backoff, 3 restarts, 3 failures in a row, next attempt in 8s" in page
    assert "    container app: backoff" in page
    assert "    | out of luck" in page


def test_the_table_says_when_it_is_tried_again() -> None:
    row = View(ALLOCATIONS, is_wide=False, has_namespace=False, now_s=NOW_S).row(LOOPING)
    assert row[-1] == "attempt 3 ended: exited (7): exited with code 7; next attempt in 8s"


def test_a_time_to_come_is_told_in_words() -> None:
    assert (until("1970-01-01T00:01:48Z", NOW_S), until(None, NOW_S), until("x", NOW_S)) == ("in 8s", "", "?")
