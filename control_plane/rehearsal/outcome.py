"""What a rehearsal came to, beside what was there before: what moves, starts, stops, stays, and what lacks room."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from control_plane import keys
from control_plane.controllers.snapshot import eligibility_of
from control_plane.rehearsal.rehearsal import Rehearsal
from manifests.allocations import Allocation, Desired
from manifests.nodes import Liveness
from manifests.reasons import Blocked
from manifests.workloads import Kind, WorkloadRef
from scheduler.model import Eligibility

_NO_HOME = (Eligibility.LOST, Eligibility.DRAINING)


@dataclass(frozen=True, slots=True)
class Move:
    """One goes and another takes its place, on another node or of another version."""

    old: Allocation
    new: Allocation
    why: str


@dataclass(frozen=True, slots=True)
class Left:
    """One that is still wanted where it can't be for long, and why it has no other place."""

    allocation: Allocation
    why: str


@dataclass(frozen=True, slots=True)
class Short:
    """A workload that lacks room in the end. `before` and `after`: how many it had, and has, on nodes that stay."""

    workload: WorkloadRef
    blocked: tuple[Blocked, ...]
    before: int
    after: int
    was_blocked: int

    @property
    def no_longer_fits(self) -> bool:
        """Say whether something of it ran, and has no place any more."""
        return self.after < self.before and sum(b.count for b in self.blocked) > self.was_blocked


@dataclass(frozen=True, slots=True)
class Outcome:
    moves: tuple[Move, ...]
    starts: tuple[Allocation, ...]
    stops: tuple[tuple[Allocation, str], ...]
    left: tuple[Left, ...]
    short: tuple[Short, ...]
    waiting: tuple[tuple[WorkloadRef, tuple[str, ...]], ...]  # not begun or midway in the end, and for what they wait

    @property
    def fits(self) -> bool:
        """Say whether all that ran has a place."""
        return not any(s.no_longer_fits for s in self.short)

    @property
    def new(self) -> list[Allocation]:
        return [*(m.new for m in self.moves), *self.starts]


def outcome_of(rehearsal: Rehearsal) -> Outcome:
    """Return what came of a rehearsal that was run."""
    state, memory = rehearsal.fork.state, rehearsal.memory
    gone: defaultdict[str, list[Allocation]] = defaultdict(list)
    new: defaultdict[str, list[Allocation]] = defaultdict(list)
    for id_ in memory.changed(state.allocations):
        before, after = memory.before(state.allocations, id_), state.allocations.get(id_)
        is_wanted = after is not None and after.desired is Desired.RUN
        was_wanted = before is not None and before.desired is Desired.RUN
        if before is not None and was_wanted and not is_wanted:
            gone[keys.id_of_ref(before.workload)].append(before)
        elif after is not None and is_wanted and not was_wanted:
            new[keys.id_of_ref(after.workload)].append(after)
    moves, stops, starts = [], [], []
    for workload in sorted(gone.keys() | new.keys()):
        pairs, old, fresh = _paired(gone[workload], new[workload])
        moves += [Move(o, n, _why(rehearsal, o)) for o, n in pairs]
        stops += [(o, _why(rehearsal, o)) for o in old if memory.ran(o.id)]
        starts += fresh
    short = tuple(_short(rehearsal))
    waiting = tuple(_waiting(rehearsal))
    return Outcome(tuple(moves), tuple(starts), tuple(stops), tuple(_left(rehearsal)), short, waiting)


def _waiting(rehearsal: Rehearsal) -> Iterator[tuple[WorkloadRef, tuple[str, ...]]]:
    """Yield what hasn't begun, or is in the midst of a rollout in the end, and what is said of it."""
    statuses = rehearsal.fork.state.workload_statuses
    for id_ in sorted(rehearsal.memory.changed(statuses)):
        said = statuses.get(id_)
        if said is None or id_ not in rehearsal.fork.state.workloads:
            continue
        is_midway = said.rollout is not None and not said.rollout.is_over
        if said.is_waiting or is_midway:
            message = said.rollout.message if said.rollout is not None and is_midway else ""
            yield said.ref, (*said.messages, *([message] if message else []))


def _paired(
    gone: Sequence[Allocation], new: Sequence[Allocation]
) -> tuple[list[tuple[Allocation, Allocation]], list[Allocation], list[Allocation]]:
    """Return who takes whose place, as recorded, else by slot, else in order; and what is left of both."""
    old = {a.id: a for a in sorted(gone, key=lambda a: (a.index, a.id))}
    fresh = {a.id: a for a in sorted(new, key=lambda a: (a.index, a.id))}
    pairs: list[tuple[Allocation, Allocation]] = []

    def pair(o: Allocation, n: Allocation) -> None:
        pairs.append((old.pop(o.id), fresh.pop(n.id)))

    for n in list(fresh.values()):
        if n.replaces in old:
            pair(old[n.replaces], n)
    slots = {o.index: o for o in old.values()}
    for n in list(fresh.values()):
        if n.index in slots:
            pair(slots.pop(n.index), n)
    for o, n in list(zip(old.values(), fresh.values(), strict=False)):
        pair(o, n)
    return sorted(pairs, key=lambda p: (p[0].index, p[0].id)), list(old.values()), list(fresh.values())


def _why(rehearsal: Rehearsal, old: Allocation) -> str:
    """Return why it is no longer wanted. Its record may be gone by now: what was said as it went is remembered."""
    return rehearsal.reasons.get(old.id, "")


def _left(rehearsal: Rehearsal) -> Iterator[Left]:
    """Yield what is wanted on nodes that the rehearsal lost or drains."""
    state, memory = rehearsal.fork.state, rehearsal.memory
    for name in sorted({*memory.changed(state.nodes), *memory.changed(state.intents)}):
        status = state.nodes.get(name)
        if status is None or eligibility_of(status, state.intents.get(name)) not in _NO_HOME:
            continue
        for a in state.allocations_on(name):
            known = state.statuses.get(a.id)
            if a.desired is Desired.RUN and not (known and known.is_terminal):
                yield Left(a, _why_left(rehearsal, a, is_lost=status.liveness is Liveness.LOST))


def _why_left(rehearsal: Rehearsal, a: Allocation, *, is_lost: bool) -> str:
    said = rehearsal.fork.state.workload_statuses.get(keys.id_of_ref(a.workload))
    if a.workload.kind is Kind.DAEMON:
        return "a daemon's: it comes back with its node" if is_lost else "a daemon's: it stops last"
    if said is not None and said.blocked:
        return said.blocked[0].sentence()
    return next(iter(said.messages), "") if said is not None else ""


def _short(rehearsal: Rehearsal) -> Iterator[Short]:
    state, memory = rehearsal.fork.state, rehearsal.memory
    touched = memory.changed(state.allocations)
    for id_ in sorted(state.workload_statuses.ids()):
        said = state.workload_statuses.get(id_)
        if said is None or not said.blocked or id_ not in state.workloads:
            continue
        ids = {a.id for a in state.allocations_of(id_)}
        ids |= {t for t in touched if (b := memory.before(state.allocations, t)) and keys.id_of_ref(b.workload) == id_}
        before = sum(memory.ran(a) is not None for a in ids)
        after = sum(_stays(rehearsal, a) for a in state.allocations_of(id_))
        was = memory.before(state.workload_statuses, id_)
        yield Short(said.ref, said.blocked, before, after, sum(b.count for b in was.blocked) if was else 0)


def _stays(rehearsal: Rehearsal, a: Allocation) -> bool:
    """Say whether it is wanted where it can be."""
    state = rehearsal.fork.state
    node, known = state.nodes.get(a.node), state.statuses.get(a.id)
    is_over = a.desired is not Desired.RUN or (known is not None and known.is_terminal)
    return not is_over and node is not None and eligibility_of(node, state.intents.get(a.node)) not in _NO_HOME
