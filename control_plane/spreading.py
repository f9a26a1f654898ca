"""Keeps agents spread over the servers: one that has many more than its share sends some of them on, gently.

Agents choose a server by chance, and stay. After a restart of servers, one after the other, the last one would have
none. A session that has to move costs one write and a moment of reconnecting; so only the surplus moves, a few at a
time, and no agent twice within a while, whatever becomes of its next choice.
"""

import math
from collections.abc import Mapping

from control_plane.session_handler import SessionHandler
from control_plane.state import ClusterState
from foundation.clock import Clock
from foundation.logs import Log
from manifests.nodes import Liveness

log = Log(__name__)

LOOK_EVERY_S = 5.0
MOST_AT_ONCE = 5
TOLERANCE = 1.25  # times the fair share, and two more, are no reason to move anybody
SLACK = 2
AGAIN_AFTER_S = 600.0


class Spreading:
    def __init__(self, state: ClusterState, sessions: SessionHandler, clock: Clock, *, server_id: str) -> None:
        self._state, self._sessions, self._clock, self._server_id = state, sessions, clock, server_id
        self._sent_at: dict[str, float] = {}  # by node

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now_s = self._clock.now_s()
            self._sent_at = {node: at for node, at in self._sent_at.items() if now_s - at < AGAIN_AFTER_S}
            surplus = min(surplus_of(agents_by_server(self._state), self._server_id), MOST_AT_ONCE)
            movable = [node for node in self._sessions.movable() if node not in self._sent_at][:surplus]
            for node in movable:
                self._sent_at[node] = now_s
                await self._sessions.send_on(node)
            if movable:
                log.info("agents were sent to other servers, to spread them", count=len(movable))


def agents_by_server(state: ClusterState) -> dict[str, int]:
    """Return how many agents each living server has."""
    counts = dict.fromkeys(state.servers.ids(), 0)
    for node in state.nodes.values():
        if node.liveness is Liveness.READY and node.server in counts:
            counts[node.server] += 1
    return counts


def surplus_of(counts: Mapping[str, int], server: str) -> int:
    """Return how many agents the server has too many.

    >>> surplus_of({"a": 30, "b": 30, "c": 0}, "a"), surplus_of({"a": 3, "b": 3, "c": 0}, "a")
    (10, 0)
    """
    if server not in counts or len(counts) < 2:
        return 0
    share = math.ceil(sum(counts.values()) / len(counts))
    is_much = counts[server] > share * TOLERANCE and counts[server] > share + SLACK
    return counts[server] - share if is_much else 0
