"""The sentences that people read about placements."""

import pytest

from manifests.reasons import Blocked, Choice, Code, Rejection, Runner, render_amount

ONE = [
    (Code.CPU, "1500m", "200m", "n1 lacks cpu (1500m needed, 200m free)"),
    (Code.MEMORY, "512Mi", "0", "n1 lacks memory (512Mi needed, 0 free)"),
    (Code.PIDS, "100", "7", "n1 lacks pids (100 needed, 7 free)"),
    (Code.HOST_PORT, "80/tcp", "web-0-aa", "n1 has host port 80/tcp taken by web-0-aa"),
    (Code.CONSTRAINT, "node.labels.disk == ssd", "not set", "n1 fails node.labels.disk == ssd (it is not set)"),
    (Code.TAINT, "gpu=a100", "gpu=a100:noSchedule", "n1 has the taint gpu=a100:noSchedule, which isn't tolerated"),
    (Code.MAX_PER_NODE, "2", "2", "n1 runs 2 already (maxPerNode is 2)"),
    (Code.CORDONED, "", "", "n1 is cordoned"),
    (Code.DRAINING, "", "", "n1 is being drained"),
    (Code.SUSPECT, "", "", "n1 has been silent for a while"),
    (Code.LOST, "", "", "n1 is lost"),
]
MANY = [
    (Code.CPU, "1500m", "200m", "lack cpu (1500m needed, at most 200m free)"),
    (Code.MEMORY, "512Mi", "0", "lack memory (512Mi needed, at most 0 free)"),
    (Code.PIDS, "100", "7", "lack pids (100 needed, at most 7 free)"),
    (Code.HOST_PORT, "80/tcp", "web-0-aa", "have host port 80/tcp taken"),
    (Code.CONSTRAINT, "node.labels.disk == ssd", "hdd", "fail node.labels.disk == ssd"),
    (Code.TAINT, "gpu=a100", "gpu=a100:noSchedule", "have the taint gpu=a100, which isn't tolerated"),
    (Code.MAX_PER_NODE, "2", "2", "have reached maxPerNode (2)"),
    (Code.CORDONED, "", "", "are cordoned"),
    (Code.DRAINING, "", "", "are being drained"),
    (Code.SUSPECT, "", "", "have been silent for a while"),
    (Code.LOST, "", "", "are lost"),
]


@pytest.mark.parametrize(("code", "needed", "found", "sentence"), ONE)
def test_one_node_has_its_own_sentence(code: Code, needed: str, found: str, sentence: str) -> None:
    assert Blocked(1, 1, (Rejection("n1", code, needed, found),)).sentence() == f"1 can't be placed: {sentence}"


@pytest.mark.parametrize(("code", "needed", "found", "rest"), MANY)
def test_several_nodes_share_a_sentence(code: Code, needed: str, found: str, rest: str) -> None:
    group = tuple(Rejection(name, code, needed, found) for name in ("n1", "n2", "n3"))
    assert Blocked(1, 4, group).sentence() == f"4 can't be placed: n1, n2 and n3 {rest}"
    more = (*group, Rejection("n4", code, needed, found))
    assert Blocked(1, 4, more).sentence() == f"4 can't be placed: 4 nodes {rest}"


@pytest.mark.parametrize(
    ("code", "found", "most"),
    [
        (Code.CPU, ["900m", "1", "0"], "1"),
        (Code.MEMORY, ["4095", "1Gi", "900Mi"], "1Gi"),
        (Code.PIDS, ["9", "10", "0"], "10"),
    ],
)
def test_the_most_free_is_the_most_by_size_not_by_text(code: Code, found: list[str], most: str) -> None:
    group = tuple(Rejection(f"n{i}", code, "x", f) for i, f in enumerate(found))
    assert f"at most {most} free" in Blocked(1, 1, group).sentence()


def test_two_different_ports_are_two_reasons() -> None:
    ports = (Rejection("n1", Code.HOST_PORT, "80/tcp", "a"), Rejection("n2", Code.HOST_PORT, "81/tcp", "b"))
    assert Blocked(1, 1, ports).sentence() == (
        "1 can't be placed: n1 has host port 80/tcp taken by a; n2 has host port 81/tcp taken by b"
    )


def test_without_nodes_the_note_says_why() -> None:
    assert Blocked(1, 1, ()).sentence() == "1 can't be placed: there are no nodes"
    assert Blocked(1, 1, (), "there is no node n9").sentence() == "1 can't be placed: there is no node n9"


def test_a_summary_lists_some_of_each_kind_and_counts_the_rest() -> None:
    lacks = [Rejection(f"m{i:03}", Code.MEMORY, "1Gi", f"{i}Mi") for i in range(1, 101)]
    cordoned = [Rejection(f"c{i:03}", Code.CORDONED) for i in range(30)]
    blocked = Blocked.summed_up(3, 2, [*cordoned, *lacks, Rejection("x", Code.LOST)])
    assert [sum(r.code is c for r in blocked.rejections) for c in (Code.MEMORY, Code.CORDONED, Code.LOST)] == [
        25,
        24,
        1,
    ]
    assert [(u.code, u.count, u.found) for u in blocked.unlisted] == [
        (Code.MEMORY, 75, "100Mi"),
        (Code.CORDONED, 6, ""),
    ]
    assert blocked.sentence() == (
        "2 can't be placed: 100 nodes lack memory (1Gi needed, at most 100Mi free); 30 nodes are cordoned; x is lost"
    )


def test_a_summary_of_more_kinds_than_are_listed_still_counts_every_node() -> None:
    ports = [Rejection(f"n{i:02}", Code.HOST_PORT, f"{i}/tcp", "a") for i in range(1, 61)]
    blocked = Blocked.summed_up(1, 1, ports)
    assert len(blocked.rejections) == 50
    assert sum(u.count for u in blocked.unlisted) == 10
    assert "1 node has host port 9/tcp taken by a" in blocked.sentence()


def test_a_choice_says_its_parts_the_next_best_and_the_ruled_out() -> None:
    rejections = (Rejection("n4", Code.CPU, "1", "200m"), Rejection("n5", Code.LOST))
    parts = (("bestFit", 0.61), ("siblings", -0.5))
    choice = Choice(0.11, parts, (Runner("n2", 0.1), Runner("n3", -1)), rejections)
    assert choice.sentence() == (
        "score 0.11 (bestFit 0.61, siblings -0.50); next n2 0.10, n3 -1.00; "
        "ruled out n4 (needs 1 cpu, has 200m free) and n5 (is lost)"
    )


def test_amounts_are_rendered_with_zero_as_an_amount() -> None:
    assert [render_amount(c, 0) for c in (Code.CPU, Code.MEMORY, Code.PIDS)] == ["0", "0", "0"]
    assert render_amount(Code.CPU, -5) == "0"
    assert render_amount(Code.MEMORY, 2**30) == "1Gi"
