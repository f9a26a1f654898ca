"""Deadlines: L6 of drains, L7 of rollouts. None passes unheeded, and none is said to have passed before it has.

Leaders count from when they first looked, and anew after each other: so do these checkers.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from control_plane import keys
from manifests.allocations import Desired
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import DaemonSpec, ServiceSpec
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step

GRACE_S = 10.0  # after a drain's deadline all that is left is stopped, and has so long for it
SLACK_S = 5.0  # to see, to decide, and to be told
CLOCKS_S = 0.05


def no_rollout_fails_early(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """L7: a rollout fails, or turns back, no sooner than progressDeadline after its last word or leader."""
    for w in written:
        record = records.workloads.get(w.id) if isinstance(w.new, WorkloadStatus) else None
        if record is None or step.began_s is None or not _has_given_up(w, record.uid):
            continue
        spec = record.workload.spec
        if not isinstance(spec, ServiceSpec | DaemonSpec):
            continue
        causes = ((keys.WORKLOADS, w.id), (keys.LEADER, ""), (keys.FREEZE, ""))
        since_s = max(records.began_s.get(cause, 0.0) for cause in causes)
        if step.began_s - since_s < spec.update.progress_deadline_s - CLOCKS_S:
            yield Breach("L7", f"{w.id} was given up after {step.began_s - since_s:.2f} s")


def _has_given_up(w: Written, uid: str) -> bool:
    new = w.new.rollout if isinstance(w.new, WorkloadStatus) and w.new.ref.uid == uid else None
    old = w.old.rollout if isinstance(w.old, WorkloadStatus) and w.old.ref.uid == uid else None
    if new is None or (old is not None and old.state is RolloutState.FAILED):
        return False  # it had failed before, and what it lacked to turn back is there now
    was_back = old is not None and old.version == new.version and old.is_reverting
    return new.state is RolloutState.FAILED or (new.is_reverting and not was_back)


@dataclass(slots=True)
class _Best:
    of: Hashable  # which rollout, under which leader
    available: int
    old: int
    since_s: float


class Deadlines:
    """L6, L7: look now and then while nothing keeps the leader from its work, and learn what is overdue."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._drains: dict[str, tuple[Hashable, float]] = {}
        self._rollouts: dict[str, _Best] = {}

    def look(self, now_s: float) -> Iterator[Breach]:
        if not self._records.leader or self._records.freeze:
            self._drains.clear()
            self._rollouts.clear()
            return
        yield from self._late_drains(now_s)
        yield from self._late_rollouts(now_s)

    def _late_drains(self, now_s: float) -> Iterator[Breach]:
        for name, intent in self._records.intents.items():
            node = self._records.nodes.get(name)
            if node is None or not intent.is_draining or intent.drain_deadline_s is None:
                self._drains.pop(name, None)
                continue
            of = (intent.drain_deadline_s, self._records.leader_created_at, node.liveness, node.trouble)
            known = self._drains.get(name)
            if known is None or known[0] != of:
                known = self._drains[name] = (of, now_s)
            left = [a.id for a in self._records.holding(name)]
            if left and now_s - known[1] > intent.drain_deadline_s + GRACE_S + SLACK_S:
                yield Breach("L6", f"{left[0]} holds {name}, whose drain's deadline passed long ago")

    def _late_rollouts(self, now_s: float) -> Iterator[Breach]:
        for id_, status in self._records.workload_statuses.items():
            record, rollout = self._records.workloads.get(id_), status.rollout
            spec = record.workload.spec if record is not None else None
            if record is None or rollout is None or not isinstance(spec, ServiceSpec | DaemonSpec):
                continue
            if rollout.state is not RolloutState.PROGRESSING or status.generation != record.generation:
                self._rollouts.pop(id_, None)
                continue
            best = self._best(id_, record.uid, rollout, now_s)
            if self._may_stand_still(record.uid, status):
                best.since_s = now_s
            if now_s - best.since_s > spec.update.progress_deadline_s + spec.update.min_healthy_s + SLACK_S:
                yield Breach("L7", f"{id_} makes no progress, and its deadline passed long ago")

    def _may_stand_still(self, uid: str, status: WorkloadStatus) -> bool:
        """Say whether something of the target finds no place, while all of it that is there serves."""
        assert status.rollout is not None
        target = status.rollout.target
        here = [a for a in self._records.of_workload[uid].values() if a.version == target and a.desired is Desired.RUN]
        serving = [a for a in here if (s := self._records.statuses.get(a.id)) and s.is_ready]
        return len(serving) == len(here) and any(b.version == target for b in status.blocked)

    def _best(self, id_: str, uid: str, rollout: Rollout, now_s: float) -> _Best:
        """Return how far it was at best, and since when: as its leader would, but for who has just become ready."""
        record = self._records.workloads[id_]
        of = (uid, record.generation, rollout.target, rollout.promoted, self._records.leader_created_at)
        mine = self._records.of_workload[uid].values()
        ready = (s for a in mine if (s := self._records.statuses.get(a.id)) and a.version == rollout.target)
        available = sum(s.is_ready for s in ready)
        old = sum(a.version != rollout.target and not self._records.has_ended(a.id) for a in mine)
        best = self._rollouts.get(id_)
        if best is None or best.of != of:
            best = self._rollouts[id_] = _Best(of, available, old, now_s)
        if available > best.available or old < best.old:
            best.since_s = now_s
        best.available, best.old = max(available, best.available), min(old, best.old)
        return best
