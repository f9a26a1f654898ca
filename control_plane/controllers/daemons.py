"""Reconciles a Daemon: one allocation on each node that its constraints name and that takes work. Pure.

A daemon belongs to its node: when the node is lost it waits there, and is replaced nowhere else. A new version goes
from node to node, maxUnavailable at a time, the old one stopped first, and on to the next only once all that should
serve do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.controllers.asks import ask_of, needs_of
from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    failed_reason,
    removals_of,
    reschedule_delay_s,
    soonest,
)
from control_plane.controllers.rollouts import (
    Course,
    Mode,
    Progress,
    Tally,
    advanced,
    counts,
    is_available,
    serves,
    trouble_of,
    waits,
)
from manifests.allocations import Phase
from manifests.constraints import parse_constraint
from manifests.reasons import Blocked
from manifests.workloads import DaemonSpec
from scheduler.eligible import matches
from scheduler.model import Ask, Eligibility, NodeView

_NONE_TO_COME = (None, Eligibility.LOST, Eligibility.DRAINING)


@dataclass(frozen=True, slots=True)
class _Posts:
    """The wanted allocations, each in one group, and the nodes that have none."""

    misplaced: tuple[Stop, ...]  # their node isn't there, is being drained, or isn't meant any more
    due: tuple[Seen, ...]  # failed, and their backoff is over
    fresh: tuple[Seen, ...]  # of the target
    old: tuple[Seen, ...]  # of another version
    lost: tuple[Seen, ...]  # on lost nodes, of any version: they wait there
    leaving: int  # are on their way out, for their node's next one: it is asked for when they are last seen
    vacant: tuple[NodeView, ...]
    homes: frozenset[str]  # the nodes that have one, or take work and should

    @property
    def waiting_nodes(self) -> list[NodeView]:
        """Return the vacant nodes that take work."""
        return [node for node in self.vacant if node.eligibility is Eligibility.READY]


def reconcile_daemon(
    course: Course,
    seen: Sequence[Seen],
    nodes: Sequence[NodeView],
    *,
    blocked: Sequence[Blocked] = (),
    stalled_for_s: float = 0.0,
) -> Decision:
    """Return what brings the daemon nearer to one allocation a node; nothing once it is there."""
    before = _posts(course, seen, nodes)
    course = advanced(course, _tally(course, before, blocked), _mode(course, before), stalled_for_s)
    posts = _posts(course, seen, nodes)  # which are fresh may have changed: it may have turned back
    mode = _mode(course, posts)
    outgoing = _outgoing(course, posts) if mode is Mode.ROLLING else []
    asks, successions = _asks(course, posts, mode)
    backoffs = [
        left for s in (*posts.fresh, *posts.old) if s.phase is Phase.FAILED and (left := _backoff(course, s)) > 0
    ]
    outdated = len(posts.old) + sum(s.allocation.version != course.target.version for s in posts.lost)
    version = course.target.version
    return Decision(
        stops=(
            *posts.misplaced,
            *(Stop(s.allocation, failed_reason(s)) for s in posts.due),
            *(Stop(s.allocation, f"version {version} replaces version {s.allocation.version}") for s in outgoing),
        ),
        asks=asks,
        successions=successions,
        removals=removals_of(seen),
        messages=(f"{outdated} of an older version still to be replaced",) if outdated and mode is Mode.ROLLING else (),
        rollout=course.rollout,
        again_after_s=soonest([*backoffs, *waits(posts.fresh, course, stalled_for_s)]),
    )


def progress_of_daemon(course: Course, seen: Sequence[Seen]) -> Progress:
    """Return how far the rollout is: `old` counts what still runs, also what is being stopped."""
    record, target = course.record, course.target.version
    available = sum(is_available(s, course.update) for s in seen if s.is_wanted and s.allocation.version == target)
    old = sum(s.allocation.version != target and not s.has_ended for s in seen)
    return Progress((record.uid, record.generation, target), available, old)


def _posts(course: Course, seen: Sequence[Seen], nodes: Sequence[NodeView]) -> _Posts:
    spec = course.record.workload.spec
    meant = {n.name: n for n in nodes if matches(n, [parse_constraint(c) for c in spec.placement.constraints])}
    # What runs somewhere can run there, even while its node doesn't tell by what: nothing is stopped for that.
    able = [n for n in meant.values() if matches(n, needs_of(spec))]
    wanted = [s for s in seen if s.is_wanted]
    misplaced = tuple(Stop(s.allocation, reason) for s in wanted if (reason := _unwanted_reason(s, meant)))
    stopping = {stop.allocation.id for stop in misplaced}
    staying = [s for s in wanted if s.id not in stopping]
    lost = [s for s in staying if s.node is Eligibility.LOST]
    here = [s for s in staying if s.node is not Eligibility.LOST]
    due = frozenset(s for s in here if s.phase is Phase.FAILED and _backoff(course, s) <= 0)
    held = [s for s in here if s not in due]
    there = frozenset((*held, *lost))
    # A node that still stops one isn't vacant: the two might share a port or a name.
    occupied = {s.allocation.node for s in seen if not (s.has_ended or s.node is None) or s in there}
    return _Posts(
        misplaced=misplaced,
        due=tuple(s for s in here if s in due),
        fresh=tuple(s for s in held if s.allocation.version == course.target.version),
        old=tuple(s for s in held if s.allocation.version != course.target.version),
        lost=tuple(lost),
        homes=frozenset(s.allocation.node for s in held) | {n.name for n in able if n.eligibility is Eligibility.READY},
        leaving=sum(not s.is_wanted and s.node not in _NONE_TO_COME for s in seen),
        vacant=tuple(n for n in able if n.name not in occupied and n.eligibility is not Eligibility.LOST),
    )


def _unwanted_reason(s: Seen, meant: Mapping[str, NodeView]) -> str:
    node = s.allocation.node
    if s.node is None:
        return f"node {node} was deleted"
    if s.node is Eligibility.DRAINING:
        return s.leave_reason
    return "" if node in meant else f"node {node} no longer meets the constraints"


def _backoff(course: Course, s: Seen) -> float:
    """Return how long a failed one still waits: not at all if its version won't be made again."""
    record = course.record_of(s.allocation.version)
    return reschedule_delay_s(s, record) - s.ended_for_s if record else 0.0


def _tally(course: Course, posts: _Posts, blocked: Sequence[Blocked]) -> Tally:
    return Tally(
        wanted=len(posts.homes),
        held=len(posts.fresh),
        available=sum(is_available(s, course.update) for s in posts.fresh),
        old=len(posts.old),
        trouble=trouble_of((*posts.fresh, *posts.due), (b for b in blocked if b.version == course.target.version)),
    )


def _mode(course: Course, posts: _Posts) -> Mode:
    return course.mode(held=len(posts.fresh), has_old=bool(posts.old))


def _most_unavailable(course: Course) -> int:
    spec = course.record.workload.spec
    assert isinstance(spec, DaemonSpec)
    return spec.update.max_unavailable


def _outgoing(course: Course, posts: _Posts) -> list[Seen]:
    """Return the old ones to stop now: those that don't serve first, and no more than may be missing at once."""
    idle = [s for s in posts.old if not serves(s)]
    given_up = [s for s in idle if not course.is_proven(s.allocation.version)]
    rest = [s for s in idle if s not in given_up]
    serving = [s for s in posts.old if serves(s)]
    coming = posts.leaving + sum(not counts(course, s) and not s.has_ended for s in posts.fresh)
    if course.fallback:  # something is to be lost
        coming += sum(s.has_ended and not serves(s) for s in posts.fresh) + len(posts.waiting_nodes)
    spare = _most_unavailable(course) - coming
    return [*given_up, *rest[: max(0, spare)], *serving[: max(0, spare - len(idle))]]


def _asks(course: Course, posts: _Posts, mode: Mode) -> tuple[tuple[Ask, ...], dict[int, Succession]]:
    """Ask for each vacant node, of the target as far as that may be tried, else of what is known to work."""
    granted = len(posts.vacant)
    if mode is Mode.FROZEN:
        granted = 0
    elif course.fallback:
        granted = max(0, _most_unavailable(course) - sum(not counts(course, s) for s in posts.fresh))
    failed = {s.allocation.node: s for s in posts.due}
    taken = {s.allocation.index for s in (*posts.fresh, *posts.old, *posts.lost)}
    free = (i for i in range(len(taken) + len(posts.vacant)) if i not in taken)
    asks, successions = [], {}
    for number, node in enumerate(posts.vacant):
        index, record = next(free), course.target if number < granted else course.base
        if before := failed.get(node.name):
            is_same = before.allocation.version == record.version
            successions[index] = Succession(before.id, before.allocation.reschedules + 1 if is_same else 0)
        asks.append(ask_of(record, [index], only_node=node.name))
    return tuple(asks), successions
