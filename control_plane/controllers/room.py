"""Whether it is a version's fault that its rollout finds no room. Pure.

A full cluster is nobody's fault: the last healthy version would find no room there either. So the deadline of a rollout
stands still meanwhile. What asks for more than that version did has itself to blame, and may turn back.
"""

from collections.abc import Iterable, Sequence

from control_plane.controllers.asks import ask_of
from control_plane.controllers.decision import Seen
from control_plane.controllers.rollouts import Course, is_available
from manifests.reasons import Blocked, Code
from scheduler.model import NodeView

OF_ROOM = frozenset(
    {Code.CPU, Code.MEMORY, Code.PIDS, Code.DISK, Code.DEVICES, Code.HOST_PORT, Code.MAX_PER_NODE, Code.SKEW}
)


def only_lacks_room(
    course: Course, seen: Sequence[Seen], blocked: Iterable[Blocked], nodes: Iterable[NodeView]
) -> bool:
    """Say whether the target waits for room that any version would wait for, and nothing else of it is under way."""
    version = course.target.version
    waiting = [b for b in blocked if b.version == version]
    here = (s for s in seen if s.is_wanted and s.allocation.version == version and not s.is_out_of_reach)
    return (
        bool(waiting)
        and all(_lacks_room(b) for b in waiting)
        and all(is_available(s, course.update) for s in here)
        and _asks_no_more(course, nodes)
    )


def _lacks_room(blocked: Blocked) -> bool:
    codes = {r.code for r in blocked.rejections} | {u.code for u in blocked.unlisted}
    return not codes.isdisjoint({*OF_ROOM, Code.KEPT})


def _asks_no_more(course: Course, nodes: Iterable[NodeView]) -> bool:
    """Say whether it asks for no more than the version before it; if there is none, than some node has."""
    needed = ask_of(course.target, ())
    if course.fallback is None:
        return any(needed.reserved.fits(node.allocatable) for node in nodes)
    before = ask_of(course.fallback, ())
    ports = {(p.host, p.protocol) for p in needed.ports} - {(p.host, p.protocol) for p in before.ports}
    return needed.reserved.fits(before.reserved) and all(host is None for host, _ in ports)
