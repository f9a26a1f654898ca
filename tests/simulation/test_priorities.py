"""Histories of a cluster too small for all, in which what is urgent has others evicted: all promises hold still."""

import pytest

from manifests.workloads import Workload
from tests.simulation import users
from tests.simulation.history import Plan, run
from tests.simulation.wishes import first_workloads

PRIORITIES = {"monitor": 90, "checked": 80, "api": 70, "pair": 60, "batch": 40, "web": 20, "timed": 10}
LARGE = ("web", "batch")


def contested() -> list[Workload]:
    """Return what runs at first, of many priorities, and some of it too large for all to find room."""
    return [_of_rank(one) for one in first_workloads()]


def _of_rank(one: Workload) -> Workload:
    changes: dict[str, object] = {"priority": PRIORITIES.get(one.metadata.name, one.spec.priority)}
    if one.metadata.name in LARGE:
        changes["resources"] = one.spec.resources.model_copy(update={"cpu_m": 1300})
    return one.model_copy(update={"spec": one.spec.model_copy(update=changes)})


@pytest.mark.parametrize("seed", [3, 160, 214, 215])
def test_all_promises_are_kept_while_some_make_room_for_others(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "first_workloads", contested)
    verdict = run(Plan.drawn(seed))
    assert [str(breach) for breach in verdict.breaches] == []
    assert verdict.converged_s is not None
