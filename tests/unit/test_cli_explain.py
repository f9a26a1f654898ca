"""`wherry explain`, as a user runs it against a real HTTP server: what it prints, and how it helps with names."""

import json
from typing import Any

import pytest

from wherry.cli.explanation import explanation_page
from wherry.cli.main import main
from wherry.cli.text import Style

from .api_stub import Stub, allocation, listed, workload

LACKS = {"code": "memory", "needed": "512Mi", "found": "410Mi", "sentence": "needs 512Mi memory, has 410Mi free"}
TAINT = {"code": "taint", "needed": "gpu", "found": "gpu:noSchedule", "sentence": "has the taint gpu:noSchedule"}
WHY = {
    "score": 0.61,
    "parts": [["bestFit", 0.61]],
    "runnersUp": [{"node": "n2", "score": 0.4}],
    "rejections": [{"node": "n3", "code": "lost", "needed": "", "found": "", "sentence": "is lost"}],
    "moreRejections": 4,
}
THERE = {"id": "web-0-1f", "node": "n1", "version": 1, "why": WHY, "sentence": "score 0.61"}


def group(count: int, names: list[str], *faults: dict[str, str]) -> dict[str, Any]:
    nodes = [{"node": name, "faults": [{**f, "node": name} for f in faults]} for name in names]
    common = [{**f, "sentence": f"lack {f['code']}"} for f in faults]
    return {"count": count, "nodes": nodes, "faults": common, "sentence": f"{count} nodes"}


def explanation(**changes: Any) -> dict[str, Any]:
    """Return what the API says of a service of which one runs and one is blocked."""
    remedies = [
        {"node": "n2", "ofTheWorkload": True, "changes": [], "sentence": "fits n2 if memory <= 410Mi"},
        {"node": "n3", "ofTheWorkload": False, "changes": [], "sentence": "fits n3 once it is uncordoned"},
    ]
    return {
        "revision": 9,
        "namespace": "default",
        "kind": "Service",
        "name": "web",
        "allocation": None,
        "askedNode": None,
        "version": 1,
        "state": "blocked",
        "blocked": [{"version": 1, "count": 1, "sentence": "1 can't be placed: n1 lacks memory"}],
        "messages": [],
        "there": [THERE],
        "moreThere": 0,
        "fits": 0,
        "goesTo": None,
        "note": "",
        "groups": [group(1, ["n2"], LACKS), group(2, ["n1", "node3"], LACKS, TAINT)],
        "moreNodes": 0,
        "remedies": remedies,
        **changes,
    }


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_all_of_it_is_told_in_plain_lines_in_a_pipe(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, explanation())
    assert main(["explain", "service/web"]) == 0
    assert shown(capsys) == [
        "service/web in default, version 1: blocked",
        "",
        "What it waits for",
        "  version 1: 1 can't be placed: n1 lacks memory",
        "",
        "One more of it (by the cluster of this moment)",
        "  fits none of 3 nodes",
        "",
        "Why not there",
        "  n2     needs 512Mi memory, has 410Mi free",
        "  n1     needs 512Mi memory, has 410Mi free; has the taint gpu:noSchedule",
        "  node3  needs 512Mi memory, has 410Mi free; has the taint gpu:noSchedule",
        "",
        "What would change it (for one more of it, the best first)",
        "  manifest  fits n2 if memory <= 410Mi",
        "  cluster   fits n3 once it is uncordoned",
        "",
        "Why there (as recorded when it was placed)",
        "  web-0-1f on n1: score 0.61 (bestFit 0.61)",
        "    runners-up: n2 0.40",
        "    ruled out: n3 (is lost), 4 more",
    ]


def test_on_a_terminal_each_reason_has_a_line_and_none_is_wider_than_it() -> None:
    lines = explanation_page(explanation(), Style(has_colour=True, width=50))
    assert "  n1     needs 512Mi memory, has 410Mi free" in lines
    assert "         has the taint gpu:noSchedule" in lines
    assert "\x1b[1mWhy not there\x1b[0m" in lines
    long = "x " * 60
    remedies = [{"ofTheWorkload": False, "sentence": long}]
    narrow = explanation_page(explanation(messages=[long], remedies=remedies), Style(width=60))
    assert max(map(len, narrow)) <= 60
    assert "            x x" in [line[:15] for line in narrow], "it goes on under its beginning"
    assert sum(line.count("x") for line in narrow if line.strip("x ") in ("", "cluster")) == 120


def test_where_it_would_go_is_told_with_its_score(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    goal = {"node": "n2", "why": WHY, "sentence": "score 0.61"}
    answer = explanation(
        fits=2, goesTo=goal, groups=[group(1, ["n3"], TAINT)], remedies=[], blocked=[], state="healthy"
    )
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, answer)
    assert main(["explain", "svc", "web"]) == 0
    lines = shown(capsys)
    assert "  would go to n2: score 0.61 (bestFit 0.61)" in lines
    assert "  fits 2 of 3 nodes" in lines
    assert not any("What would" in line for line in lines)


def test_an_allocation_that_is_where_it_would_go_would_stay(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    goal = {"node": "n1", "why": WHY, "sentence": "score 0.61"}
    answer = explanation(allocation="web-0-1f", state=None, blocked=[], fits=1, goesTo=goal, groups=[], remedies=[])
    stub.answers["GET /v1/allocations/web-0-1f/explain"] = (200, answer)
    for words in (["allocation/web-0-1f"], ["alloc", "web-0-1f"]):
        assert main(["explain", *words]) == 0
        lines = shown(capsys)
        assert lines[0] == "allocation/web-0-1f of service/web in default, version 1"
        assert "  would stay on n1: score 0.61 (bestFit 0.61)" in lines


def test_one_node_is_asked_about_by_name(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/prod/service/web/explain"] = (200, explanation(askedNode="n2"))
    assert main(["explain", "service/web", "-n", "prod", "--node", "n2"]) == 0
    assert "  does not fit n2" in shown(capsys)
    assert stub.requests[0].target.endswith("/explain?node=n2")


def test_of_many_nodes_a_few_of_each_kind_are_named(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    many = [group(9_000, [f"n{i}" for i in range(50)], LACKS, TAINT)]
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, explanation(groups=many, moreNodes=7))
    assert main(["explain", "service/web"]) == 0
    lines = shown(capsys)
    assert "  fits none of 9007 nodes" in lines
    assert "  8996 more  lack memory; lack taint" in lines
    assert "  7 more     for other reasons" in lines
    assert sum("has 410Mi free" in line for line in lines) == 4


def test_of_many_that_run_the_first_few_are_told_of(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    there = [{**THERE, "id": f"web-{i}"} for i in range(50)]
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, explanation(there=there, moreThere=25))
    assert main(["explain", "service/web"]) == 0
    lines = shown(capsys)
    assert lines[-1] == "  and 65 more: `wherry explain allocation/ID` tells of one"
    assert sum(" on n1: score" in line for line in lines) == 10


def test_json_is_the_api_s_own_answer(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, explanation())
    assert main(["explain", "service/web", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == explanation()


def test_a_name_alone_is_a_workload_or_else_an_allocation(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web"), workload("db"))
    stub.answers["GET /v1/workloads/default/service/web/explain"] = (200, explanation())
    stub.answers["GET /v1/allocations/web-0-1f/explain"] = (200, explanation(allocation="web-0-1f"))
    assert main(["explain", "web"]) == 0
    assert shown(capsys)[0].startswith("service/web")
    assert main(["explain", "web-0-1f"]) == 0
    assert shown(capsys)[0].startswith("allocation/web-0-1f")
    assert main(["explain", "wbe"]) == 3
    assert "there is no workload 'wbe'; did you mean 'web'?" in capsys.readouterr().err


def test_a_name_of_two_kinds_must_be_told_apart(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web"), workload("web", kind="Job"))
    assert main(["explain", "web"]) == 2
    assert "'web' is a service and a job" in capsys.readouterr().err


def test_mistyped_names_are_answered_with_the_nearest(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/workloads"] = listed(workload("web"))
    stub.answers["GET /v1/workloads/default/service/web"] = (200, workload("web"))
    stub.answers["GET /v1/allocations"] = listed(allocation("web-0-1f"))
    stub.answers["GET /v1/nodes"] = listed({"name": "node1", "state": "ready"})
    cases = {
        ("service/wbe",): "there is no service 'wbe' in the namespace default; did you mean 'web'?",
        ("service/web", "--node", "nod1"): "there is no node 'nod1'; did you mean 'node1'?",
        ("allocation/web-0-2f",): "there is no allocation 'web-0-2f'; did you mean 'web-0-1f'?",
    }
    for words, said in cases.items():
        assert main(["explain", *words]) == 3
        assert said in capsys.readouterr().err


def test_what_has_no_place_is_refused_in_words(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "config/site"]) == 2
    assert "configs can't be explained" in capsys.readouterr().err
    assert stub.requests == []


def test_an_allocation_that_is_gone_is_not_taken_for_a_mistake(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"title": "there is no allocation x to explain", "detail": "it is gone, and why is not kept"}
    stub.answers["GET /v1/allocations/x/explain"] = (404, problem)
    assert main(["explain", "allocation/x"]) == 3
    assert "it is gone" in capsys.readouterr().err


def test_who_makes_room_is_told_before_what_would_change_it() -> None:
    rooms = [{"node": "n2", "sentence": "n2: would fit once etl-0 is evicted, which is\x1b[31m done for it"}]
    page = explanation_page(explanation(rooms=rooms), Style())
    at = page.index("Who makes room (by priority)")
    assert page[at + 1] == "  n2: would fit once etl-0 is evicted, which is done for it"
    assert at < page.index("What would change it (for one more of it, the best first)")
    assert "Who makes room (by priority)" not in explanation_page(explanation(rooms=[]), Style())
