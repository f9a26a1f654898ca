"""Whether all that happened had a cause: each lost node, each stop, each end and each restart of a container. Pure.

A cause is a fault that excuses it, a user's change, or a reason in the store which itself has a cause. What has none is
a violation, told in a sentence.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, groupby

from agent.drivers.docker_codec import to_seconds
from control_plane import keys
from control_plane.store.protocol import Change
from manifests.allocations import Allocation, AllocationStatus, Desired, Phase
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.status import WorkloadStatus
from manifests.workloads import DaemonSpec, Kind, ServiceSpec, WorkloadRecord
from tests.chaos.fault import LOST_S, Fault
from tests.lab.chronicle import Heard, clock_of
from tests.lab.truth import Life

SETTLED_S = 20.0  # after a fault was healed, until all that it causes has happened
TOLD_S = 10.0  # from a user's change until the last stop that was decided before it
TOGETHER_S = 20.0  # for so long two allocations of a slot may run, one of them on its way out
INIT = "init"  # the name of containers that end by themselves
ENDS_SEEN_S = 0.5  # after it ended, at the latest
SEEN_S = 1.5  # how far apart one moment may be seen by two observers


def unexplained(heard: Sequence[Heard], lives: Sequence[Life], faults: Sequence[Fault]) -> tuple[str, ...]:
    """Return a sentence for everything that had no cause. `heard` begins with the store's first revision."""
    story = _Story(faults)
    found: list[str] = []
    for revision, group in groupby(heard, key=lambda h: h.change.revision):
        said = list(group)
        when = f"{clock_of(said[0].at_s)}, revision {revision}"
        found += [f"{when}: {sentence}" for sentence in story.step(said)]
    return (*found, *story.of_ends(lives), *story.of_doubles(lives))


class _Excuses:
    """What the faults excuse, and when: until some time after they were healed."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults

    def loss(self, node: str, at_s: float) -> bool:
        return any(node in f.silences for f in self._around(at_s, SETTLED_S))

    def failure(self, node: str, at_s: float) -> bool:
        return any(node in f.effect.touches for f in self._around(at_s, SETTLED_S))

    def any_failure(self, at_s: float) -> bool:
        return any(f.effect.touches for f in self._around(at_s, SETTLED_S))

    def end(self, node: str, at_s: float) -> bool:
        return any(node in f.effect.ends for f in self._around(at_s, SEEN_S))

    def disconnection(self, at_s: float) -> bool:
        """Say whether some node may have had no word for long: from servers or a store that were broken, too."""
        return any(f.healed_s - f.began_s >= LOST_S for f in self._around(at_s, SETTLED_S))

    def frozen_double(self, node: str, at_s: float) -> bool:
        return any(node in f.effect.freezes for f in self._around(at_s, SETTLED_S + TOGETHER_S))

    def double(self, node: str, at_s: float) -> bool:
        return any(node in f.effect.touches for f in self._around(at_s, SETTLED_S + TOGETHER_S))

    def _around(self, at_s: float, later_s: float) -> Iterator[Fault]:
        return (f for f in self._faults if f.began_s - SEEN_S <= at_s <= f.healed_s + later_s)


class _Story:
    """The records of the store at one revision, and what of the past still explains something."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._excuses = _Excuses(faults)
        self._workloads: dict[str, WorkloadRecord] = {}
        self._user_changed_s: dict[str, float] = {}  # when it was heard, by workload
        self._allocations: dict[str, Allocation] = {}
        self._created_at: dict[str, int] = {}
        self._statuses: dict[str, AllocationStatus] = {}
        self._nodes: dict[str, NodeStatus] = {}
        self._intents: dict[str, NodeIntent] = {}
        self._lost_at: dict[str, int] = {}  # the last revision at which a node was lost
        self._drained_at: dict[str, int] = {}  # likewise drained
        self._succeeded: set[tuple[str, int]] = set()  # indexes of jobs
        self._said: dict[str, WorkloadStatus] = {}  # by the leader, of workloads
        self._replicas_before: dict[str, tuple[float, int]] = {}  # the last change of a service: when, and what it had
        self._intents_changed_s = 0.0
        self._never_twice: set[str] = set()  # uids of workloads under onDisconnect.stopAfter
        self._known: dict[str, Allocation] = {}  # all that ever were there
        self._ordered: set[str] = set()  # to stop, ever

    def step(self, group: Sequence[Heard]) -> Iterator[str]:
        """Take in one revision, and yield what in it has no cause."""
        wanted = [a for a in self._allocations.values() if a.desired is Desired.RUN]
        serving = {a.id for a in wanted if self._serves(a)}
        for heard in group:
            yield from self._take(heard.change, heard.at_s, wanted)
        replaced = [a for a in wanted if a.id in serving and self._is_outdated(a)]
        yield from self._availability({a.workload.uid: a for a in replaced}.values(), group[0].at_s)

    def _serves(self, a: Allocation) -> bool:
        status, node = self._statuses.get(a.id), self._nodes.get(a.node)
        return status is not None and status.is_ready and node is not None and node.liveness is Liveness.READY

    def _is_outdated(self, a: Allocation) -> bool:
        """Say whether it was just ordered to stop for another version of its workload."""
        now, record = self._allocations.get(a.id), self._workloads.get(keys.id_of_ref(a.workload))
        is_stopped = now is not None and now.desired is Desired.STOP
        return is_stopped and record is not None and record.uid == a.workload.uid and record.version != a.version

    def _availability(self, stopped: Iterable[Allocation], at_s: float) -> Iterator[str]:
        """S12: a rollout stops what serves only while enough others do, of a workload each."""
        for a in stopped:
            workload = keys.id_of_ref(a.workload)
            said = self._said.get(workload)
            if self._excuses.any_failure(at_s) or (
                said and (said.blocked or (said.rollout and said.rollout.stop_first))
            ):
                continue
            wanted = [w for w in self._allocations.values() if w.desired is Desired.RUN]
            serving = sum(w.workload.uid == a.workload.uid and self._serves(w) for w in wanted)
            if serving < (least := self._least_serving(workload, at_s)):
                yield f"only {serving} of {workload} serve once {a.id} stops for a version, and {least} must (S12)"

    def _has_no_room(self, workload: str) -> bool:
        said = self._said.get(workload)
        return said is not None and bool(said.blocked or (said.rollout and said.rollout.stop_first))

    def _least_serving(self, workload: str, at_s: float) -> int:
        spec = self._workloads[workload].workload.spec
        if isinstance(spec, ServiceSpec):
            changed_s, before = self._replicas_before.get(workload, (0.0, spec.replicas))
            replicas = min(spec.replicas, before) if at_s - changed_s <= TOLD_S else spec.replicas
            return replicas - spec.update.max_unavailable
        if isinstance(spec, DaemonSpec) and at_s - self._intents_changed_s > TOLD_S:
            closed = {i.name for i in self._intents.values() if i.is_cordoned or i.is_draining}
            there = {name for name, node in self._nodes.items() if node.liveness is Liveness.READY}
            return len(there - closed) - spec.update.max_unavailable
        return 0

    def _take(self, change: Change, at_s: float, wanted: Sequence[Allocation]) -> Iterator[str]:
        key, value = change.key, change.entry.value if change.entry else None
        if key.startswith(keys.WORKLOADS):
            self._workload(key.removeprefix(keys.WORKLOADS), value, at_s)
        elif key.startswith(keys.NODES) and value:
            yield from self._node(NodeStatus.read(value), change.revision, at_s)
        elif key.startswith(keys.WORKLOAD_STATUSES) and value:
            self._said[key.removeprefix(keys.WORKLOAD_STATUSES)] = WorkloadStatus.read(value)
        elif key.startswith(keys.NODE_INTENTS) and value:
            self._intents_changed_s = at_s
            self._intent(NodeIntent.read(value), change.revision)
        elif key.startswith(keys.ALLOCATIONS) and value:
            yield from self._allocation(Allocation.read(value), change.revision, at_s, wanted)
        elif key.startswith(keys.ALLOCATIONS):
            yield from self._deletion(key.rpartition("/")[2])
        elif key.startswith(keys.STATUSES) and value:
            yield from self._status(AllocationStatus.read(value), at_s)

    def _workload(self, workload: str, value: bytes | None, at_s: float) -> None:
        self._user_changed_s[workload] = at_s
        old = self._workloads.get(workload)
        if old is not None and isinstance(old.workload.spec, ServiceSpec):
            self._replicas_before[workload] = at_s, old.workload.spec.replicas
        self._workloads.pop(workload, None)
        if value is not None:
            record = self._workloads[workload] = WorkloadRecord.read(value)
            if record.workload.kind != "CronJob" and record.workload.spec.on_disconnect.stop_after_s is not None:
                self._never_twice.add(record.uid)

    def _node(self, new: NodeStatus, revision: int, at_s: float) -> Iterator[str]:
        name = new.facts.name
        was_lost = name in self._nodes and self._nodes[name].liveness is Liveness.LOST
        self._nodes[name] = new
        if was_lost or new.liveness is Liveness.LOST:
            self._lost_at[name] = revision
        if new.liveness is Liveness.LOST and not was_lost and not self._excuses.loss(name, at_s):
            yield f"node {name} was called lost, and nothing had silenced it: {new.message}"

    def _intent(self, new: NodeIntent, revision: int) -> None:
        old = self._intents.get(new.name)
        self._intents[new.name] = new
        if new.is_draining or (old and old.is_draining):
            self._drained_at[new.name] = revision

    def _allocation(self, new: Allocation, revision: int, at_s: float, wanted: Sequence[Allocation]) -> Iterator[str]:
        old = self._allocations.get(new.id)
        if old is None:
            self._created_at[new.id] = revision
            if (new.workload.uid, new.index) in self._succeeded:
                yield f"{new.id} was made, though this index of the job had succeeded (S11)"
        if new.desired is Desired.STOP and (old is None or old.desired is Desired.RUN):
            self._ordered.add(new.id)
            if not self._may_stop(new, at_s, wanted):
                yield f"{new.id} on {new.node} was stopped without a cause: {new.stop_reason}"
        self._allocations[new.id] = self._known[new.id] = new

    def _deletion(self, allocation: str) -> Iterator[str]:
        old = self._allocations.pop(allocation, None)
        if old is not None and old.desired is Desired.RUN:
            self._ordered.add(allocation)
            yield f"{allocation} on {old.node} was deleted while it was wanted"

    def _may_stop(self, a: Allocation, at_s: float, wanted: Sequence[Allocation]) -> bool:
        workload = keys.id_of_ref(a.workload)
        record, created_at = self._workloads.get(workload), self._created_at[a.id]
        if record is None or record.uid != a.workload.uid or record.version != a.version:
            return True
        if at_s - self._user_changed_s[workload] <= TOLD_S or self._has_too_many(record, wanted):
            return True
        if max(self._lost_at.get(a.node, 0), self._drained_at.get(a.node, 0)) >= created_at:
            return True
        if (a.workload.uid, a.index) in self._succeeded:
            return True
        status = self._statuses.get(a.id)
        return status is not None and status.is_terminal  # whose own cause is looked at when it comes

    @staticmethod
    def _has_too_many(record: WorkloadRecord, wanted: Sequence[Allocation]) -> bool:
        spec = record.workload.spec
        mine = sum(a.workload.uid == record.uid for a in wanted)
        return isinstance(spec, ServiceSpec) and mine > spec.replicas

    def _status(self, new: AllocationStatus, at_s: float) -> Iterator[str]:
        old = self._statuses.get(new.id)
        self._statuses[new.id] = new
        is_job = new.workload.kind is Kind.JOB
        if is_job and new.phase is Phase.SUCCEEDED:
            self._succeeded.add((new.workload.uid, new.index))
        is_new = old is None or (old.phase, old.attempt) != (new.phase, new.attempt)
        has_failed = new.phase in (Phase.BACKOFF, Phase.FAILED) or (new.phase is Phase.SUCCEEDED and not is_job)
        has_ended = has_failed or (new.phase is Phase.STOPPED and new.id not in self._ordered)
        if is_new and has_ended and not self._may_fail(new, at_s):
            why = new.last_ending.message or new.last_ending.reason if new.last_ending else new.message
            yield f"{new.id} on {new.node} became {new.phase} in attempt {new.attempt} without a cause: {why}"

    def _may_fail(self, new: AllocationStatus, at_s: float) -> bool:
        is_cut_off = new.workload.uid in self._never_twice and self._excuses.disconnection(at_s)
        return is_cut_off or self._excuses.failure(new.node, at_s)

    def of_ends(self, lives: Iterable[Life]) -> Iterator[str]:
        """Yield the ends of containers which nobody ordered, no fault caused, and which weren't a job's own."""
        for life in lives:
            allocation = self._known.get(life.allocation)
            if allocation is None:
                yield f"a container of {life.allocation} ran on {life.node}, of which the store never knew"
            elif life.ended_s is not None and not self._may_end(life, allocation):
                what = f"attempt {life.attempt} of {life.allocation}, container {life.name},"
                yield f"{what} ended on {life.node} without a cause, at {clock_of(life.ended_s)}"

    def _may_end(self, life: Life, allocation: Allocation) -> bool:
        assert life.ended_s is not None
        uid = allocation.workload.uid
        is_own = life.name == INIT or (uid, allocation.index) in self._succeeded
        is_own = is_own or (uid in self._never_twice and self._excuses.disconnection(life.ended_s))
        return is_own or life.allocation in self._ordered or self._excuses.end(life.node, life.ended_s)

    def of_doubles(self, lives: Iterable[Life]) -> Iterator[str]:
        """Yield the slots of which two containers ran for longer than a replacement takes."""
        slots: defaultdict[tuple[str, int, str], list[Life]] = defaultdict(list)
        for life in lives:
            if (a := self._known.get(life.allocation)) is not None:
                slots[a.workload.uid, a.index, life.name].append(life)
        for (uid, index, _), group in slots.items():
            for one, other in combinations(group, 2):
                both_s = _together_s(one, other)
                if both_s > self._most_together_s(uid, one, other) and not self._is_excused_double(uid, one, other):
                    what = f"{one.allocation} and {other.allocation}"
                    yield f"{what} ran together for {both_s:.1f} s, both slot {index} of {uid}"

    def _most_together_s(self, uid: str, one: Life, other: Life) -> float:
        if uid in self._never_twice:
            return ENDS_SEEN_S
        return SEEN_S if one.allocation == other.allocation else TOGETHER_S

    def _is_excused_double(self, uid: str, one: Life, other: Life) -> bool:
        excuse = self._excuses.frozen_double if uid in self._never_twice else self._excuses.double
        return any(excuse(life.node, _both_since_s(one, other)) for life in (one, other))


def _together_s(one: Life, other: Life) -> float:
    """Return for how long both ran; what still runs counts as if for ever."""
    end_s = min(life.ended_s if life.ended_s is not None else float("inf") for life in (one, other))
    return end_s - _both_since_s(one, other)


def _both_since_s(one: Life, other: Life) -> float:
    return max(to_seconds(life.started_at) for life in (one, other))
