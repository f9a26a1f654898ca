"""S12: of what serves, no more is stopped than may be missing. S21: a freeze holds. S22: canaries wait.

Judged by what the leader could see when it decided: what a fault takes after that is not of its making.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from control_plane import keys
from manifests.allocations import Allocation, Desired
from manifests.rollouts import Rollout
from manifests.status import WorkloadStatus
from manifests.workloads import DaemonSpec, ServiceSpec, WorkloadRecord
from tests.invariants.evictions import is_eviction
from tests.invariants.past import NodeThen
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step

CLOCKS_S = 0.05  # two clocks differ by less in a drain's time


def enough_serve(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S12: a service keeps replicas - maxUnavailable that serve, a daemon lacks maxUnavailable at most.

    A drain whose deadline has passed may take more, and so may a higher priority.
    """
    stopped: defaultdict[str, list[Allocation]] = defaultdict(list)
    for w in written:
        if is_eviction(w):
            continue
        if isinstance(w.old, Allocation) and w.old.desired is Desired.RUN and _is_stopped(w.new):
            stopped[w.old.workload.uid].append(w.old)
    for uid, gone in stopped.items():
        id_ = keys.id_of_ref(gone[0].workload)
        guesses = [_Then(step, written, records, id_, revision) for revision in records.past.of_decision(step)]
        found = [then.breach(uid, gone) for then in reversed(guesses)]
        if found and all(found):
            yield Breach("S12", str(found[0]))


def _is_stopped(new: object) -> bool:
    return isinstance(new, Allocation) and new.desired is Desired.STOP


class _Then:
    """One workload as it was at the revision at which its allocations may have been chosen to be stopped."""

    def __init__(self, step: Step, written: Sequence[Written], records: Records, id_: str, revision: int) -> None:
        self._step, self._written, self._records, self._revision = step, written, records, revision
        self._record: WorkloadRecord | None = records.past.workloads.at(id_, revision)
        now = records.workload_statuses.get(id_)
        before = next((w.old for w in written if isinstance(w.new, WorkloadStatus) and w.id == id_), None)
        said = (now, before if isinstance(before, WorkloadStatus) else None)
        self._rollouts: list[Rollout] = [one.rollout for one in said if one is not None and one.rollout is not None]

    def breach(self, uid: str, gone: Sequence[Allocation]) -> str:
        """Return what is wrong with stopping these, "" if nothing is."""
        if self._record is None or self._record.uid != uid:
            return ""  # the workload was deleted
        serving = [a for a in gone if self._serves(a) and not self._is_overdue(a)]
        match self._record.workload.spec:
            case ServiceSpec() as spec if serving:
                return self._of_service(uid, spec, gone)
            case DaemonSpec() as spec if serving:
                return self._of_daemon(uid, spec, serving)
            case _:
                return ""

    def too_many_canaries(self, placed: Allocation) -> str:
        """Return what is wrong with placing it, "" if nothing is."""
        record, version = self._record, placed.version
        spec = record.workload.spec if record is not None else None
        if record is None or record.uid != placed.workload.uid or not isinstance(spec, ServiceSpec):
            return ""
        is_tried = record.version == version and record.promoted != version and spec.update.canary > 0
        may_pass = spec.update.auto_promote  # else only a user's word counts, whatever the leader says
        if not is_tried or not self._rollouts or any(_is_past(r, version, may_pass=may_pass) for r in self._rollouts):
            return ""
        mine = self._records.of_workload[record.uid].values()
        count = sum(a.version == version and a.desired is Desired.RUN for a in mine)
        if count <= spec.update.canary:
            return ""
        return f"{count} of version {version} of {record.ref} are wanted, and {spec.update.canary} are to be tried"

    def _of_service(self, uid: str, spec: ServiceSpec, gone: Sequence[Allocation]) -> str:
        ids = {a.id for a in gone}
        left = sum(self._serves(a) for a in self._wanted(uid) if a.id not in ids)
        left += sum(self._serves(a) for a in gone if self._is_overdue(a))  # they go whatever is left
        stop_first = any(rollout.stop_first for rollout in self._rollouts)
        floor = spec.replicas - max(spec.update.max_unavailable, stop_first)
        if left >= floor:
            return ""
        return f"{sorted(ids)} were stopped, and {left} are left that serve, of at least {floor}"

    def _of_daemon(self, uid: str, spec: DaemonSpec, serving: Sequence[Allocation]) -> str:
        """Look at those that a version replaces, other than those that leave their node."""
        replaced = {a.id for a in serving if not self._leaves(a)}
        targets = {rollout.target for rollout in self._rollouts}
        begun = [a for a in self._wanted(uid) if a.version in targets and a.id not in replaced]
        missing = [a.id for a in begun if not self._serves(a) and not self._is_over(a) and not self._is_away(a)]
        most = spec.update.max_unavailable
        if not replaced or len(missing) + len(replaced) <= most:
            return ""
        return f"{sorted(replaced)} were stopped while {sorted(missing)} don't serve, and at most {most} may be missing"

    def _wanted(self, uid: str) -> Iterator[Allocation]:
        """Yield what is wanted once this step is done, and was there before it."""
        back = {w.id for w in self._written if isinstance(w.new, Allocation) and w.new.desired is Desired.RUN}
        for id_, a in self._records.past.allocations.all_at(self._revision):
            if a.workload.uid == uid and (a.desired is Desired.RUN or id_ in back):
                yield a

    def _node(self, a: Allocation) -> NodeThen | None:
        return self._records.past.nodes.at(a.node, self._revision)

    def _serves(self, a: Allocation) -> bool:
        return bool(self._records.past.ready.at(a.id, self._revision)) and not self._is_away(a)

    def _is_away(self, a: Allocation) -> bool:
        node = self._node(a)
        return node is None or node.is_lost

    def _is_over(self, a: Allocation) -> bool:
        return self._records.has_ended(a.id)

    def _leaves(self, a: Allocation) -> bool:
        node = self._node(a)
        return node is None or node.is_draining or node.is_cordoned

    def _is_overdue(self, a: Allocation) -> bool:
        node = self._node(a)
        if node is None or node.intent is None or node.intent.drain_deadline_s is None or not node.is_draining:
            return False
        since_s = self._records.began_s.get((keys.NODE_INTENTS, a.node))
        if since_s is None or self._step.began_s is None:
            return True  # who knows
        return self._step.began_s - since_s >= node.intent.drain_deadline_s - CLOCKS_S


def _is_past(rollout: Rollout, version: int, *, may_pass: bool) -> bool:
    """Say whether the version's canaries need no promotion, or not any more."""
    is_this = rollout.version == version and not rollout.is_reverting and not (rollout.promoted and may_pass)
    return not is_this or rollout.is_over or not rollout.healthy or version in rollout.healthy


def frozen(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S21: while the cluster is frozen, nothing is placed, stopped or forgotten, and no CronJob makes a job."""
    was_frozen = bool(_before(written, records.freeze))
    for w in written if was_frozen else ():
        is_cron = isinstance(w.new, WorkloadRecord) and w.old is None and w.new.owner is not None
        if w.table == keys.ALLOCATIONS or is_cron:
            yield Breach("S21", f"{w.id} was changed while the cluster was frozen")


def _before(written: Sequence[Written], now: Mapping[str, object]) -> object:
    changed = [w.old for w in written if w.table == keys.FREEZE]
    return changed[0] if changed else now.get("")


def canaries_wait(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S22: until someone promotes them, a version has no more allocations than canaries, beside all of the old."""
    for w in written:
        if w.old is not None or not isinstance(w.new, Allocation):
            continue
        id_ = keys.id_of_ref(w.new.workload)
        guesses = [_Then(step, written, records, id_, revision) for revision in records.past.of_decision(step)]
        found = [then.too_many_canaries(w.new) for then in reversed(guesses)]
        if found and all(found):
            yield Breach("S22", found[0])
