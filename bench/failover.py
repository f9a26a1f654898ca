"""How soon the work of a node that fell silent runs elsewhere, phase by phase; and how soon a dead leader has a heir.

A node is cut off first and killed then, so that no goodbye of its kernel reaches the server. What the servers decide is
taken from the moments that they write into the records, when it is stored from a watch of etcd, and what runs from the
engines: looking on adds nothing to any of them.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from agent.drivers.docker_codec import to_seconds
from bench.figures import Figure, at_most, reported
from bench.rig import Json, inspect, service, state_time_s, until_ready, wanted
from control_plane import keys
from control_plane.store.protocol import Entry
from manifests.allocations import Allocation
from manifests.nodes import Liveness, NodeStatus
from tests.lab.chronicle import Chronicle
from tests.lab.cluster import Cluster, wherry_cluster
from tests.lab.faults import leader_of, opened_store
from tests.lab.waiting import wait_until

NAME, REPLICAS = "moving", 6
ROUNDS, SHORT_ROUNDS = 20, 2
LEADERS, SHORT_LEADERS = 20, 2
TARGET_S, LEADER_TARGET_S = 7.0, 6.0
DEADLINE_S = 60.0
PHASES = (
    "silence to noticed",
    "noticed to stored as lost",
    "stored as lost to placed",
    "placed to its agent making the container",
    "made to running",
)


@dataclass(frozen=True, slots=True)
class Round:
    """The moments of one failover: the silence, then the end of each phase for the last of the replicas."""

    silent_s: float
    ends_s: tuple[float, ...]

    @property
    def total_s(self) -> float:
        return self.ends_s[-1] - self.silent_s

    def phase_s(self, number: int) -> float:
        return self.ends_s[number] - (self.ends_s[number - 1] if number else self.silent_s)


async def measure(*, short: bool) -> list[Figure]:
    async with wherry_cluster(servers=3, nodes=3) as cluster, _chronicled(cluster) as chronicle:
        await cluster.api.apply(service(NAME, REPLICAS, placement={"spread": ["node.name"]}))
        await until_ready(cluster.api, NAME, REPLICAS)
        leaders = [await _lose_leader(cluster, chronicle) for _ in range(SHORT_LEADERS if short else LEADERS)]
        rounds = [await _fail_over(cluster, chronicle) for _ in range(SHORT_ROUNDS if short else ROUNDS)]
    totals = [r.total_s for r in rounds]
    return [
        at_most(f"silence to running elsewhere, p99 (the slowest of {len(rounds)})", max(totals), "s", TARGET_S),
        reported("silence to running elsewhere, median", statistics.median(totals), "s"),
        *(figure for n, name in enumerate(PHASES) for figure in _phase(name, [r.phase_s(n) for r in rounds])),
        at_most(f"leader killed to new leader, slowest of {len(leaders)}", max(leaders), "s", LEADER_TARGET_S),
        reported("leader killed to new leader, median", statistics.median(leaders), "s"),
    ]


def _phase(name: str, seconds: Sequence[float]) -> list[Figure]:
    return [reported(f"{name}, median", statistics.median(seconds), "s"), reported(f"{name}, max", max(seconds), "s")]


@asynccontextmanager
async def _chronicled(cluster: Cluster) -> AsyncIterator[Chronicle]:
    """Write down all that is stored, and when."""
    chronicle = Chronicle()
    async with opened_store(cluster) as store, asyncio.TaskGroup() as tasks:
        following = tasks.create_task(chronicle.follow(store), name="chronicle")
        yield chronicle
        following.cancel()


async def _fail_over(cluster: Cluster, chronicle: Chronicle) -> Round:
    """Lose the node with the most allocations, and return when its phases ended; then bring it back."""
    before = await wanted(cluster.api, NAME)
    nodes = [a["node"] for a in before.values()]
    victim = max(set(nodes), key=lambda node: (nodes.count(node), node))
    host, mark = cluster.host(victim), len(chronicle.heard)
    silent_s = time.time()
    await host.partition()
    await host.kill()
    await wait_until(
        partial(cluster.api.get, f"/v1/nodes/{victim}"), DEADLINE_S, f"{victim} is lost", lambda n: n["state"] == "lost"
    )
    await until_ready(cluster.api, NAME, REPLICAS)
    found = await wanted(cluster.api, NAME)
    new = [a for id_, a in found.items() if id_ not in before]
    if len(new) != nodes.count(victim) or any(a["node"] == victim for a in new):
        raise RuntimeError(f"not what {victim} held was replaced: {[a['id'] for a in new]}")
    ends_s = await _ends_s(cluster, chronicle, mark, victim, new)
    await host.heal()
    await cluster.reboot_node(int(victim.removeprefix("n")))
    await cluster.await_nodes_ready()
    return Round(silent_s, ends_s)


async def _ends_s(
    cluster: Cluster, chronicle: Chronicle, mark: int, victim: str, new: Sequence[Json]
) -> tuple[float, ...]:
    lost, stored_s = await _heard(chronicle, mark, keys.NODES + victim, _is_lost)
    placed_s = [(await _heard(chronicle, mark, _key_of(a), _is_there))[1] for a in new]
    containers = [await inspect(cluster.host(a["node"]), a["containerId"]) for a in new]
    made_s = [to_seconds(container["Created"]) for container in containers]
    running_s = [state_time_s(container, "StartedAt") for container in containers]
    return NodeStatus.read(lost.value).changed_s, stored_s, max(placed_s), max(made_s), max(running_s)


async def _heard(chronicle: Chronicle, mark: int, key: str, done: Callable[[Entry], bool]) -> tuple[Entry, float]:
    """Return the key's first entry since then for which that holds, and when word of it came: soon, or already."""

    async def found() -> list[tuple[Entry, float]]:
        heard = [h for h in chronicle.heard[mark:] if h.change.key == key]
        return [(h.change.entry, h.at_s) for h in heard if h.change.entry is not None and done(h.change.entry)]

    return (await wait_until(found, DEADLINE_S, f"word of {key} comes"))[0]


def _is_lost(entry: Entry) -> bool:
    return NodeStatus.read(entry.value).liveness is Liveness.LOST


def _is_there(entry: Entry) -> bool:
    return bool(Allocation.read(entry.value).id)


def _key_of(allocation: Json) -> str:
    return keys.ALLOCATIONS + keys.placed_id(allocation["node"], allocation["id"])


async def _lose_leader(cluster: Cluster, chronicle: Chronicle) -> float:
    """Kill the server that leads, and return the seconds until another's leadership is stored; then bring it back."""
    leader, mark = await leader_of(cluster), len(chronicle.heard)
    killed_s = time.time()
    await leader.kill()
    await leader_of(cluster, but=leader, deadline_s=DEADLINE_S)
    _, led_s = await _heard(chronicle, mark, keys.LEADER, lambda entry: True)
    leader.start()
    url = cluster.server_urls[cluster.servers.index(leader)]
    await wait_until(partial(cluster.api.get_from, url, "/v1/health"), DEADLINE_S, "it is back")
    return led_s - killed_s
