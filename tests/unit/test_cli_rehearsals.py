"""`wherry plan`, `apply --plan`, `simulate` and `rebalance`, against an HTTP server that answers by heart."""

import json
from pathlib import Path
from typing import Any

import pytest

from wherry.cli.main import main

from .api_stub import Stub

WEB = """apiVersion: wherry/v1
kind: Service
metadata: {name: web}
spec: {image: b}
"""
OF_WEB = {"namespace": "default", "kind": "Service", "name": "web"}


def there(node: str, version: int = 1, index: int = 0) -> dict[str, Any]:
    return {"allocation": f"web-{index}", "index": index, "version": version, "node": node, "why": "score 0.50"}


def answer(**changes: object) -> dict[str, Any]:
    amounts = {"cpu": "1", "memory": "1Gi", "pids": 10, "devices": {"gpu": 1}}
    return {
        "cluster": "c1",
        "generation": 1,
        "revision": 7,
        "results": [],
        "at": {"default/service/web": 5},
        "placements": [],
        **{part: [] for part in ("moves", "starts", "stops", "left", "blocked", "waiting", "steps")},
        "room": {"nodes": 2, "free": amounts, "of": {**amounts, "cpu": "4"}},
        "fits": True,
        "isWhole": True,
        **changes,
    }


CHANGE = {
    **OF_WEB,
    "action": "changed",
    "version": 2,
    "makesVersion": True,
    "changes": [{"path": "spec.image", "old": "a", "new": "b"}],
}
MOVE = {**OF_WEB, "from": there("n1"), "to": there("n2", version=2), "why": "version 2 replaces version 1"}
BLOCKED = {**OF_WEB, "noLongerFits": True, "blocked": [{"sentence": "1 can't be placed: n2 is cordoned"}]}
STEPS = {**OF_WEB, "count": 9, "steps": [{"up": 1, "down": 0}, {"up": 0, "down": 1}]}


@pytest.fixture
def web(tmp_path: Path) -> str:
    (tmp_path / "web.yaml").write_text(WEB)
    return str(tmp_path / "web.yaml")


def test_a_plan_tells_fields_places_and_steps(stub: Stub, web: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(results=[CHANGE], moves=[MOVE], steps=[STEPS], placements=[{"node": "n2"}])
    stub.answers["POST /v1/rehearse"] = (200, told)
    assert main(["plan", "-f", web]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "service/web would be changed (version 2)",
        "  spec.image a -> b",
        "Allocations: 1 would be replaced",
        "  service/web [0]: version 1 on n1 -> version 2 on n2: version 2 replaces version 1",
        "service/web: 9 steps: 1 up, 1 down, …",
    ]
    assert stub.requests[0].body["documents"][0]["metadata"]["name"] == "web"


def test_the_exit_code_says_that_something_would_change_only_if_asked_to(stub: Stub, web: str) -> None:
    stub.answers["POST /v1/rehearse"] = (200, answer(results=[CHANGE]))
    assert main(["plan", "-f", web]) == 0
    assert main(["plan", "-f", web, "--exit-code"]) == 6
    stub.answers["POST /v1/rehearse"] = (200, answer(results=[{**CHANGE, "action": "unchanged"}]))
    assert main(["plan", "-f", web, "--exit-code"]) == 0


def test_a_plan_file_is_applied_with_what_it_rests_on(
    stub: Stub, web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["POST /v1/rehearse"] = (200, answer(results=[CHANGE]))
    assert main(["plan", "-f", web, "-o", "json"]) == 0
    file = tmp_path / "web.plan"
    file.write_text(capsys.readouterr().out)
    stub.answers["POST /v1/apply"] = (200, {"revision": 8, "results": [CHANGE]})
    assert main(["apply", "--plan", str(file)]) == 0
    assert "service/web changed (version 2" in capsys.readouterr().out
    sent = stub.requests[-1].body
    assert sent["documents"] == json.loads(file.read_text())["documents"]
    assert sent["plan"] == {
        "cluster": "c1",
        "generation": 1,
        "revision": 7,
        "at": {"default/service/web": 5},
        "placements": [],
    }
    stub.answers["POST /v1/apply"] = (409, {"title": "the plan is out of date", "detail": "web has moved"})
    assert main(["apply", "--plan", str(file)]) == 4
    assert "web has moved" in capsys.readouterr().err


def test_what_is_no_plan_is_refused(stub: Stub, web: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("[]")
    assert main(["apply", "--plan", web]) == 1
    assert main(["apply", "--plan", str(tmp_path / "list")]) == 1
    assert main(["apply", "--plan", str(tmp_path / "nothing")]) == 3
    assert main(["apply"]) == 2
    assert main(["apply", "--plan", web, "-f", web]) == 2
    assert stub.requests == []


def test_a_simulation_tells_what_has_no_place_and_fails_then(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    left = {**OF_WEB, "at": there("n1"), "why": "a daemon's"}
    told = answer(starts=[{**OF_WEB, "to": there("n2", index=1)}], left=[left], blocked=[BLOCKED], isWhole=False)
    stub.answers["POST /v1/rehearse"] = (200, told)
    words = ["--lose", "n1", "--drain", "zone=a", "--add", "2x4cpu/8Gi", "--at-revision", "5"]
    assert main(["simulate", *words]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "Allocations: 1 would start, 1 would stay behind",
        "  service/web [1]: starts on n2",
        "  service/web [0]: stays on n1: a daemon's",
        "service/web stays blocked (and no longer fits): 1 can't be placed: n2 is cordoned",
        "It goes on after that: only the first part was rehearsed.",
        "Room left on 2 nodes: cpu 1 of 4, memory 1Gi of 1Gi, pids 10 of 10, gpu 1 of 1",
    ]
    assert "service/web would not fit any more" in captured.err
    assert stub.requests[0].body == {"lose": ["n1"], "drain": ["zone=a"], "add": ["2x4cpu/8Gi"], "atRevision": 5}


def test_a_simulation_in_which_all_fits_is_done(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stops = [{**OF_WEB, "from": there("n1"), "why": "too many"}]
    waiting = [{**OF_WEB, "messages": ["waits for job migrate, which is progressing"]}]
    stub.answers["POST /v1/rehearse"] = (200, answer(stops=stops, waiting=waiting))
    assert main(["simulate", "--lose", "n1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "  service/web [0]: stops on n1: too many",
        "service/web: waits for job migrate, which is progressing",
    ]
    assert main(["simulate", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


def test_long_lists_are_cut(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    starts = [{**OF_WEB, "to": there("n2", index=i)} for i in range(45)]
    stub.answers["POST /v1/rehearse"] = (200, answer(starts=starts))
    assert main(["simulate"]) == 0
    assert "  and 5 more; -o json tells all" in capsys.readouterr().out.splitlines()


def test_a_snapshot_is_of_one_revision(stub: Stub, tmp_path: Path) -> None:
    assert main(["simulate", "--snapshot", "x", "--at-revision", "5"]) == 2
    assert main(["simulate", "--snapshot", str(tmp_path / "x")]) == 3


MOVED = {**OF_WEB, "allocation": "web-0", "index": 0, "from": "n1", "to": "n2", "gain": 1.0, "why": "frees n1"}
NOTHING = {"revision": 7, "moves": [], "freed": [], "rooms": [], "short": 0, "hasMore": False}


def test_moves_are_told_with_their_gains_and_reasons(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/rebalance"] = (200, {**NOTHING, "moves": [MOVED], "freed": ["n1"], "hasMore": True})
    assert main(["rebalance", "--dry-run", "--max-moves", "1", "--at-revision", "5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Moves: 1",
        "  service/web [0]: n1 -> n2: frees n1 (gain 1.00)",
        "Nodes that become free: n1",
        "With more moves (--max-moves) more nodes may become free.",
    ]
    assert stub.requests[-1].body == {"goal": "pack", "maxMoves": 1, "dryRun": True, "atRevision": 5}
    assert main(["rebalance", "--dry-run", "--exit-code"]) == 6
    stub.answers["POST /v1/rebalance"] = (200, NOTHING)
    capsys.readouterr()
    assert main(["rebalance", "--dry-run", "--exit-code", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == NOTHING


def test_room_for_a_workload_is_told_with_what_is_still_lacking(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    told = {**NOTHING, "rooms": ["n2", "n1", "n2"], "short": 2, "hasMore": True}
    stub.answers["POST /v1/rebalance"] = (200, told)
    assert main(["rebalance", "--dry-run", "--for", "cronjob/mail", "-n", "shop"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Moves: none",
        "Room for cronjob/shop/mail: 1 on n1, 2 on n2",
        "2 would still have none; with more moves (--max-moves) more of them would have room.",
    ]
    assert stub.requests[-1].body["for"] == {"namespace": "shop", "kind": "CronJob", "name": "mail"}


def test_a_rebalance_that_cannot_be_asked_for_is_a_usage_error(stub: Stub, tmp_path: Path) -> None:
    assert main(["rebalance"]) == 2, "nobody is there to be asked"
    assert main(["rebalance", "--yes", "--at-revision", "5"]) == 2
    assert main(["rebalance", "--dry-run", "--for", "node/n1"]) == 2
    assert main(["rebalance", "--dry-run", "--snapshot", "x", "--at-revision", "5"]) == 2
    assert main(["rebalance", "--dry-run", "--snapshot", str(tmp_path / "x")]) == 3
    assert stub.requests == []


def test_moves_are_ordered_as_they_were_told_and_taken_back(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["POST /v1/rebalance"] = (200, {**NOTHING, "moves": [MOVED], "underWay": 0})
    stub.answers["POST /v1/moves"] = (202, {"revision": 8})
    assert main(["rebalance", "--yes"]) == 0
    assert "1 move ordered" in capsys.readouterr().err
    moves = [{"allocation": "web-0", "from": "n1", "to": "n2", "why": "frees n1"}]
    assert stub.requests[-1].body == {"revision": 7, "moves": moves}
    stub.answers["POST /v1/moves"] = (409, {"title": "the moves are out of date", "detail": "web-0: it is on n3"})
    assert main(["rebalance", "--yes"]) == 4
    stub.answers["POST /v1/rebalance"] = (200, {**NOTHING, "underWay": 2})
    assert main(["rebalance", "--yes"]) == 0
    assert "2 moves of before still to be made" in capsys.readouterr().out
    stub.answers["DELETE /v1/moves"] = (200, {"revision": 9})
    assert main(["rebalance", "--cancel"]) == 0
    assert stub.requests[-1].target == "/v1/moves"
