"""The leader's watch over silent nodes: it alone marks nodes lost, and under the brake it marks none.

A server marks a node suspect that it no longer hears. When that server itself is gone, nobody would; so the leader
does, from when it first misses the server. A missing lease is only a hint: a server that is alive takes a new one and
appears again, well within that time. From suspect to lost the leader counts by its own clock, and each of its writes
compares that the node's record still is the one that it judged by: a node that is heard again has another one.
"""

import math
from collections.abc import Iterator

from control_plane import keys
from control_plane.controllers.brake import HOLD_S, Episode, NodeSilence, Verdict, judge
from control_plane.controllers.silences import Silences
from control_plane.records import BrakeRecord
from control_plane.state import ClusterState
from control_plane.store.protocol import Compare, CreatedAt, Delete, ModifiedAt, Put, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import ConflictError, UnavailableError
from manifests.nodes import Liveness, NodeStatus

log = Log(__name__)

CHECK_EVERY_S = 0.25
STALLED_S = 2.0  # a loop that slept that long judges nobody by the time that went by
SUSPECT_SHARE = 0.5  # of the time after which a silent node is lost
MOST_MARKS = 50  # nodes in one transaction
TOLD_WITHIN_S = 3.0  # people are told the brake's end that exactly; a new leader counts its time anew
ORPHANED = "its server is gone, and it has come to no other"


class LossWatch:
    """Make it once a server, so that it knows what happened before the server led; `run` it while it leads."""

    def __init__(
        self, store: Store, state: ClusterState, clock: Clock, *, lost_after_s: float, hold_s: float = HOLD_S
    ) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._lost_after_s, self._hold_s = lost_after_s, hold_s
        self._silences = Silences(state, clock)
        self._missed_since: dict[str, float] = {}  # by node: when its server was first missed
        self._braked_since: float | None = None
        self._heard: set[str] = set()  # the nodes that were heard at the last look

    async def run(self, fence: CreatedAt) -> None:
        self._begin_anew()
        self._braked_since = None
        checked_at = self._clock.now_s()
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            now = self._clock.now_s()
            if now - checked_at > STALLED_S:
                self._begin_anew()
            checked_at = now
            try:
                revision = self._state.revision
                for txn in list(self._transactions(fence, now)):
                    revision = await self._store.commit(txn)
                await self._state.wait_for(revision)
            except ConflictError:
                continue  # a node was heard, or this server is deposed: either way the next look tells
            except UnavailableError as error:
                log.warning("nodes could not be judged", why=error.why or error.what)

    def _begin_anew(self) -> None:
        self._missed_since.clear()
        self._silences.begin_anew()

    def _transactions(self, fence: CreatedAt, now_s: float) -> Iterator[Txn]:
        """Yield what there is to write, all from one look at the cache."""
        verdict = self._verdict(now_s)
        brake = tuple(self._brake_writes(verdict))
        marks = [self._mark(status, Liveness.SUSPECT, ORPHANED, for_s) for status, for_s in self._orphans(now_s)]
        silent = ((self._state.nodes.get(name), self._silences.unheard_for_s(name)) for name in verdict.lost)
        marks += [self._mark(s, Liveness.LOST, s.message, for_s) for s, for_s in silent if s]
        if brake:
            yield Txn((fence,), brake)
        for start in range(0, len(marks), MOST_MARKS):
            some = marks[start : start + MOST_MARKS]
            yield Txn((fence, *(unchanged for unchanged, _ in some)), tuple(put for _, put in some))

    def _orphans(self, now_s: float) -> list[tuple[NodeStatus, float]]:
        """Return the nodes that have missed their server for too long to be taken for heard, and for how long."""
        orphans = {
            n.facts.name: n
            for n in self._state.nodes.values()
            if n.liveness is Liveness.READY and n.server not in self._state.servers
        }
        self._missed_since = {name: self._missed_since.get(name, now_s) for name in orphans}
        missed = ((n, now_s - self._missed_since[name]) for name, n in orphans.items())
        return [(n, for_s) for n, for_s in missed if for_s >= self._lost_after_s * SUSPECT_SHARE]

    def _verdict(self, now_s: float) -> Verdict:
        record = self._state.brake.get("")
        heard = {n.facts.name for n in self._state.nodes.values() if n.liveness is Liveness.READY}
        if record and (heard - self._heard) & set(record.nodes):
            self._silences.give_time()  # some come back: the others may be about to
        self._heard = heard
        if record is None and len(heard) == len(self._state.nodes):
            return Verdict((), ())  # as nearly always
        if record is None:
            self._braked_since = None
        elif self._braked_since is None:
            self._braked_since = now_s
        episode = Episode(frozenset(record.nodes), now_s - (self._braked_since or now_s)) if record else None
        return judge(self._nodes(), episode, lost_after_s=self._lost_after_s, hold_s=self._hold_s)

    def _nodes(self) -> list[NodeSilence]:
        return [
            NodeSilence(name, status.liveness, self._silences.silent_for_s(name), self._is_confirmed(name))
            for name, status in ((n.facts.name, n) for n in self._state.nodes.values())
        ]

    def _is_confirmed(self, name: str) -> bool:
        """Say whether an operator called the node lost, in its present silence and no earlier one."""
        intent = self._state.intents.get(name)
        return intent is not None and intent.confirmed_lost == self._state.nodes.modified_at(name)

    def _brake_writes(self, verdict: Verdict) -> Iterator[Put | Delete]:
        record = self._state.brake.get("")
        if not verdict.members:
            if record is not None:
                log.warning("the brake on mass loss was released", nodes=len(record.nodes))
                yield Delete(keys.BRAKE)
            return
        wall_s = self._clock.wall_s()
        if record is None or verdict.is_new:
            self._braked_since = self._clock.now_s()
            names = tuple(sorted(verdict.members))
            log.warning("many nodes fell silent at once, and none is called lost", nodes=", ".join(names))
            new = BrakeRecord(nodes=names, there=verdict.there, since_s=wall_s, until_s=wall_s + self._hold_s)
            yield Put(keys.BRAKE, new.to_bytes())
            return
        names = tuple(sorted(verdict.members | set(record.nodes)))
        until_s = wall_s + self._hold_s - (self._clock.now_s() - (self._braked_since or self._clock.now_s()))
        if names != record.nodes or abs(until_s - record.until_s) > TOLD_WITHIN_S:
            update = {"nodes": names, "there": max(verdict.there, record.there), "until_s": until_s}
            yield Put(keys.BRAKE, record.model_copy(update=update).to_bytes())

    def _mark(self, status: NodeStatus, liveness: Liveness, why: str, silent_s: float) -> tuple[Compare, Put]:
        name = status.facts.name
        marked = marked_silent(status, liveness, why, silent_s, self._clock.wall_s())
        log.warning("node fell silent", node=name, liveness=liveness, why=marked.silence())
        unchanged = ModifiedAt(keys.NODES + name, self._state.nodes.modified_at(name))
        return unchanged, Put(keys.NODES + name, marked.to_bytes())


def marked_silent(status: NodeStatus, liveness: Liveness, why: str, silent_s: float, wall_s: float) -> NodeStatus:
    """Return the node's record once it is suspect or lost."""
    if not math.isfinite(silent_s):
        silent_s = status.silent_s  # no record may hold what JSON doesn't know
    return status.model_copy(
        update={"liveness": liveness, "message": why, "silent_s": round(silent_s, 3), "changed_s": wall_s}
    )
