"""`wherry node` as operators run it, against a real HTTP server: what it sends, what it prints, and its exit codes."""

from datetime import UTC, datetime, timedelta

import pytest

from wherry.cli.main import main

from .api_stub import Stub, listed

NODE = {"name": "n1", "state": "ready", "reserved": {}, "allocatable": {}, "allocations": 0, "labels": {}}
BRAKE = {"nodes": ["n1", "n2", "n3"], "held": ["n1", "n2"], "there": 4, "sentence": "3 of 4 nodes fell silent at once"}


@pytest.fixture
def stub(stub: Stub) -> Stub:
    stub.answers |= {"PATCH /v1/nodes/n1": (200, NODE), "POST /v1/nodes/n1/drain": (200, NODE)}
    return stub


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["label", "n1", "disk=ssd", "zone-"], {"labels": {"disk": "ssd", "zone": None}}),
        (["label", "n1", "disk="], {"labels": {"disk": ""}}),
        (["annotate", "n1", "owner=Ann = room 12", "old-"], {"metadata": {"owner": "Ann = room 12", "old": None}}),
        (["taint", "n1", "gpu=a100:noSchedule", "x:noExecute"], {"addTaints": ["gpu=a100:noSchedule", "x:noExecute"]}),
        (["untaint", "n1", "gpu", "x:noExecute"], {"removeTaints": ["gpu", "x:noExecute"]}),
    ],
)
def test_a_change_is_sent_as_one_patch(stub: Stub, words: list[str], body: object) -> None:
    assert main(["node", *words]) == 0
    assert [(r.method, r.target, r.body) for r in stub.requests] == [("PATCH", "/v1/nodes/n1", body)]


def test_a_change_is_answered_with_how_the_node_is_now(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["PATCH /v1/nodes/n1"] = (200, {**NODE, "labels": {"disk": "ssd"}, "taints": ["a:noExecute"]})
    assert main(["node", "label", "n1", "disk=ssd"]) == 0
    assert main(["node", "taint", "n1", "a:noExecute"]) == 0
    assert main(["node", "annotate", "n1", "owner-"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "node/n1 labels: disk=ssd",
        "node/n1 taints: a:noExecute",
        "node/n1 metadata: none",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["label", "n1"],
        ["label", "n1", "disk"],
        ["label", "n1", "=x"],
        ["cordon"],
        ["confirm-lost"],
        ["confirm-lost", "n1", "--all"],
        ["cordon", "n1", "--deadline", "5m"],
        ["cordon", "n1", "--dry-run"],
        ["drain", "--all"],
        ["labell", "n1", "a=b"],
    ],
)
def test_what_makes_no_sense_is_exit_2_and_never_sent(stub: Stub, words: list[str]) -> None:
    assert main(["node", *words]) == 2
    assert stub.requests == []


def test_a_change_that_the_server_refuses_names_the_field(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [{"document": 0, "path": "labels.zone", "message": "can't be removed"}]
    stub.answers["PATCH /v1/nodes/n1"] = (422, {"title": "1 problem", "problems": problems})
    assert main(["node", "label", "n1", "zone-"]) == 1
    assert "labels.zone: can't be removed" in capsys.readouterr().err


def test_an_unknown_node_is_exit_3_with_the_nearest(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/nodes"] = listed(NODE)
    assert main(["node", "taint", "nn1", "a:noExecute"]) == 3
    assert "did you mean 'n1'?" in capsys.readouterr().err


def test_a_drain_can_have_a_deadline(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/nodes/n1/drain"] = (200, {**NODE, "allocations": 2, "drainDeadline": "5m"})
    assert main(["node", "drain", "n1", "--deadline", "5m"]) == 0
    assert stub.requests[0].body == {"deadline": "300s"}
    assert capsys.readouterr().out == "node/n1 is draining, 2 allocations to move, within 5m\n"


def test_a_dry_run_drains_nothing_and_says_what_would_go_where(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "moves": [{"allocation": "web-0-1", "to": "n2", "why": "score 0.50"}],
        "stays": [{"allocation": "db-0-1", "why": "1 can't be placed: n2 lacks memory"}],
        "stops": [{"allocation": "logs-0-1", "why": "a daemon's: it stops last"}],
    }
    stub.answers["POST /v1/nodes/n1/drain"] = (200, plan)
    assert main(["node", "drain", "n1", "--dry-run", "--wait"]) == 0
    assert [r.target for r in stub.requests] == ["/v1/nodes/n1/drain?dryRun=true"]
    assert capsys.readouterr().out.splitlines() == [
        "node/n1 would be drained: 1 would move, 1 would stay, 1 would just stop",
        "  web-0-1 -> n2: score 0.50",
        "  db-0-1 stays: 1 can't be placed: n2 lacks memory",
        "  logs-0-1 stops: a daemon's: it stops last",
    ]


def test_all_that_the_brake_holds_can_be_confirmed_at_once(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/cluster"] = (200, {"brake": BRAKE})
    for name in ("n1", "n2"):
        stub.answers[f"POST /v1/nodes/{name}/confirm-lost"] = (200, {**NODE, "name": name})
    assert main(["node", "confirm-lost", "--all"]) == 0
    assert capsys.readouterr().out == "node/n1 is confirmed as lost\nnode/n2 is confirmed as lost\n"


def test_nothing_can_be_confirmed_while_the_brake_is_off(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/cluster"] = (200, {"brake": None})
    assert main(["node", "confirm-lost", "--all"]) == 2
    assert "the brake on mass loss is off" in capsys.readouterr().err


def test_nodes_that_the_brake_holds_are_listed_with_a_word_about_it(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    until = (datetime.now(UTC) + timedelta(seconds=200)).isoformat()
    held = {**NODE, "state": "suspect", "message": "silent for 9s", "brake": {"since": until, "until": until}}
    stub.answers["GET /v1/nodes"] = listed(held)
    stub.answers["GET /v1/nodes/n1"] = (200, held)
    stub.answers["GET /v1/cluster"] = (200, {"brake": BRAKE})
    stub.answers["GET /v1/allocations"] = stub.answers["GET /v1/events"] = listed()
    assert main(["get", "nodes"]) == 0
    captured = capsys.readouterr()
    assert "suspect" in captured.out
    assert captured.err == "The brake on mass loss is on: 3 of 4 nodes fell silent at once.\n"
    assert main(["describe", "node", "n1"]) == 0
    assert "`wherry node confirm-lost n1` ends that for this node" in capsys.readouterr().out
