"""What a run tells people: a line for each fault and what came of it, and the last events before a failure. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from control_plane import keys
from control_plane.records import LeaderRecord
from manifests.allocations import Allocation, AllocationStatus
from manifests.nodes import Liveness, NodeStatus
from tests.chaos.fault import Fault
from tests.lab.chronicle import Heard, clock_of
from tests.lab.truth import Life

MOST_EVENTS = 50


def fault_lines(
    faults: Sequence[Fault], origin_s: float, heard: Sequence[Heard], lives: Iterable[Life]
) -> Iterator[str]:
    """Yield when and what each of those made at once was, and with the last what happened until now."""
    began_s = min(fault.began_s for fault in faults)
    came = [*_leaders(heard), *_lost(heard)]
    started = sum(life.seen_s >= began_s for life in lives)
    ended = sum(life.ended_s is not None and life.ended_s >= began_s for life in lives)
    came += [f"containers: {ended} ended, {started} started"] if ended or started else []
    for fault in faults:
        began = f"{clock_of(fault.began_s)}  {fault.began_s - origin_s:4.0f} s"
        what = "and at once" if fault is not faults[-1] else ", ".join(came) or "nothing moved"
        yield f"{began}  {fault.kind:42} {fault.effect.target:38} {what}"


def last_events(heard: Sequence[Heard], lives: Iterable[Life]) -> tuple[str, ...]:
    """Return the last things that the store said and the engines did, in order."""
    events = [(h.at_s, _sentence(h)) for h in heard[-4 * MOST_EVENTS :]]
    for life in lives:
        what = f"{life.node}: attempt {life.attempt} of {life.allocation}, {life.name}, pid {life.pid}"
        events.append((life.seen_s, f"{what}, runs"))
        if life.ended_s is not None:
            events.append((life.ended_s, f"{what}, ended"))
    return tuple(f"{clock_of(at_s)}  {sentence}" for at_s, sentence in sorted(events)[-MOST_EVENTS:])


def _leaders(heard: Sequence[Heard]) -> list[str]:
    found = [h.change.entry for h in heard if h.change.key == keys.LEADER]
    names = [LeaderRecord.read(entry.value).server.rpartition("-")[0] for entry in found if entry]
    return [f"{name} leads" for name in names]


def _lost(heard: Sequence[Heard]) -> list[str]:
    entries = [h.change.entry for h in heard if h.change.key.startswith(keys.NODES)]
    nodes = [NodeStatus.read(entry.value) for entry in entries if entry]
    return [f"{name} lost" for name in sorted({n.facts.name for n in nodes if n.liveness is Liveness.LOST})]


def _sentence(heard: Heard) -> str:
    key, entry = heard.change.key, heard.change.entry
    head = f"revision {heard.change.revision}: {key.removeprefix(keys.ROOT)}"
    if entry is None:
        return f"{head} deleted"
    if key.startswith(keys.ALLOCATIONS):
        allocation = Allocation.read(entry.value)
        return f"{head} {allocation.desired} {allocation.stop_reason}"
    if key.startswith(keys.STATUSES):
        status = AllocationStatus.read(entry.value)
        return f"{head} {status.phase}, attempt {status.attempt} {status.message}"
    if key.startswith(keys.NODES):
        node = NodeStatus.read(entry.value)
        return f"{head} {node.liveness}, session {node.session} at {node.server} {node.message} {node.trouble}"
    return head
