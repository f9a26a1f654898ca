"""Steps that tests of faults share: what runs, whether all parts agree on it, and how to undo whatever was broken.

The truth is what the engines and the store say themselves; Wherry's API must come to say the same.
"""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from control_plane import keys
from control_plane.store.etcd import EtcdStore
from control_plane.store.protocol import Change, Revision
from foundation.clock import SystemClock
from manifests.allocations import TERMINAL
from manifests.workloads import MAIN
from tests.invariants.history import breaches, history
from tests.lab.cgroups import process_state
from tests.lab.cluster import Cluster, Daemon
from tests.lab.dockerd import RunContainer, running
from tests.lab.host import Host
from tests.lab.waiting import hold_for, wait_until

SOON_S = 30.0
REPLICAS = 6
Containers: TypeAlias = Mapping[str, RunContainer]  # by allocation, those of groups by allocation.name

# Ends at once when it is asked to, as a well-behaved program does.
COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait $!")


def service(name: str = "web", replicas: int = REPLICAS, **labels: str) -> dict[str, Any]:
    """Return a manifest: four replicas fill a node of the lab, so that six leave little room on two."""
    return {
        "apiVersion": "wherry/v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "image": "wherry/busybox:1",
            "command": list(COMMAND),
            "resources": {"cpu": "500m", "memory": "16Mi", "pids": 20},
        },
    }


@dataclass(frozen=True, slots=True)
class Picture:
    """What runs, and how that differs from what should: sentences, none when all is well."""

    containers: Containers
    differences: tuple[str, ...]


async def converged(cluster: Cluster, deadline_s: float = SOON_S) -> Containers:
    """Return what runs once every server and every engine agree that it is just what is wanted; check the history."""
    picture = await wait_until(lambda: look(cluster), deadline_s, "all parts agree", lambda p: not p.differences)
    assert breaches(await changes_since(cluster, Revision(1))) == ()
    return picture.containers


async def look(cluster: Cluster) -> Picture:
    """Compare the API of every server with the engines of all nodes."""
    found = [container for agent in cluster.agents for container in await owned(agent.host)]
    differences = list(_doubles(found))
    for url in cluster.server_urls:
        items = {what: (await cluster.api.ask(url, "GET", f"/v1/{what}")).body["items"] for what in LISTS}
        differences += [f"{difference} (by {url})" for difference in _differences(items, found)]
    return Picture({_key(c): c for c in found}, tuple(differences))


LISTS = ("nodes", "workloads", "allocations")


def _doubles(found: Iterable[RunContainer]) -> Iterator[str]:
    counts = Counter(_key(container) for container in found)
    return (f"{count} containers of {allocation} run" for allocation, count in counts.items() if count > 1)


def _differences(items: Mapping[str, Any], found: Sequence[RunContainer]) -> Iterator[str]:
    yield from (f"node {n['name']} is {n['state']}" for n in items["nodes"] if n["state"] != "ready")
    for workload in items["workloads"]:
        wanted, counts = workload["manifest"]["spec"].get("replicas"), workload["counts"]
        if wanted is not None and not wanted == counts["desired"] == counts["running"] == counts["ready"]:
            yield f"{workload['name']} should have {wanted} and has {counts}"
        if workload["state"] not in ("healthy", "complete"):
            yield f"{workload['name']} is {workload['state']}"
    # What has ended of a job is kept until the job is deleted.
    allocations = [a for a in items["allocations"] if not (a["kind"] == "Job" and a["phase"] in TERMINAL)]
    yield from _unlike(allocations, found)
    slots = Counter((a["namespace"], a["kind"], a["name"], a["index"]) for a in allocations)
    yield from (f"{count} allocations have slot {slot}" for slot, count in slots.items() if count > 1)


def _unlike(allocations: Sequence[Mapping[str, Any]], found: Sequence[RunContainer]) -> Iterator[str]:
    wanted = {a["id"]: a["node"] for a in allocations if a["desired"] == "run"}
    run = {_allocation(container): node_of(container) for container in found}
    yield from (f"{a['id']} is still to be stopped" for a in allocations if a["desired"] != "run")
    yield from (f"{a['id']} is {a['phase']}" for a in allocations if a["desired"] == "run" and a["phase"] != "running")
    yield from (f"{allocation} should run on {node}" for allocation, node in (wanted.items() - run.items()))
    yield from (f"{allocation} runs on {node} for no reason" for allocation, node in (run.items() - wanted.items()))


async def owned(host: Host) -> tuple[RunContainer, ...]:
    """Return what runs on the host and bears Wherry's labels; of a host that is off nothing."""
    if not host.is_on:
        return ()
    return tuple(container for container in await running(host) if "wherry.allocation" in container.labels)


async def owned_on(hosts: Iterable[Host]) -> Containers:
    return {_key(container): container for host in hosts for container in await owned(host)}


async def hold_untouched(cluster: Cluster, before: Containers, seconds: float) -> None:
    """Return after that time, in which every container of all nodes was there, and the same."""
    hosts = [agent.host for agent in cluster.agents]
    await hold_for(lambda: owned_on(hosts), seconds, "no container is touched", lambda c: c == before)


def on_node(containers: Containers, *nodes: str) -> Containers:
    return {allocation: c for allocation, c in containers.items() if node_of(c) in nodes}


def node_of(container: RunContainer) -> str:
    return container.labels["wherry.node"]


def _key(container: RunContainer) -> str:
    name = container.labels.get("wherry.container", MAIN)
    return _allocation(container) if name == MAIN else f"{_allocation(container)}.{name}"


def _allocation(container: RunContainer) -> str:
    return container.labels["wherry.allocation"]


async def changes_since(cluster: Cluster, revision: Revision) -> list[Change]:
    """Return what changed in the store after that revision, asked of etcd itself."""
    async with opened_store(cluster) as store:
        return [change for change in await history(store) if change.revision > revision]


async def revision_now(cluster: Cluster) -> Revision:
    async with opened_store(cluster) as store:
        return (await store.list_prefix(keys.ROOT, limit=1)).revision


async def decided_since(cluster: Cluster, revision: Revision) -> list[str]:
    """Return the keys that were written since then to move allocations or to call nodes lost."""
    changes = await changes_since(cluster, revision)
    lost = [c.key for c in changes if c.key.startswith(keys.NODES) and c.entry and b'"lost"' in c.entry.value]
    return [change.key for change in changes if change.key.startswith(keys.ALLOCATIONS)] + lost


@asynccontextmanager
async def opened_store(cluster: Cluster) -> AsyncIterator[EtcdStore]:
    endpoints = tuple(member.url for member in cluster.etcd.members)
    store = await EtcdStore.open(endpoints, clock=SystemClock(), rng=random.Random())
    try:
        yield store
    finally:
        await store.close()


async def leader_of(cluster: Cluster, *, but: Daemon | None = None, deadline_s: float = SOON_S) -> Daemon:
    """Return the server that says that it leads, once one of all but that one does."""
    asked = [server for server in cluster.servers if server is not but]

    async def leaders() -> list[Daemon]:
        return [server for server in asked if await _leads(cluster, server)]

    return (await wait_until(leaders, deadline_s, "a server leads"))[0]


async def _leads(cluster: Cluster, server: Daemon) -> bool:
    if not server.process.is_alive:
        return False
    url = cluster.server_urls[cluster.servers.index(server)]
    return bool((await cluster.api.ask(url, "GET", "/v1/cluster")).body["isLeading"])


async def spread_out(cluster: Cluster) -> None:
    """Return when `web` runs as at first, equally on all nodes; applied anew if faults have moved it together."""
    await cluster.api.apply(service())
    counts = Counter(node_of(container) for container in (await converged(cluster)).values())
    if set(counts.values()) == {REPLICAS // len(cluster.agents)}:
        return
    await cluster.api.call("DELETE", "/v1/workloads/default/service/web")
    await wait_until(lambda: cluster.api.items("/v1/allocations"), SOON_S, "web is gone", lambda items: not items)
    await cluster.api.apply(service())
    await converged(cluster)


async def mend(cluster: Cluster) -> None:
    """Undo every fault: what is off, dead, frozen or cut off is as at the start again."""
    for host in cluster.net.hosts:
        await host.heal()
        for process in host.processes.values():
            if process_state(process.pid) == "T":
                process.resume()
    for member in cluster.etcd.members:
        if not member.process.is_alive:
            member.start()
    for number, agent in enumerate(cluster.agents, start=1):
        if not agent.host.is_on:
            await cluster.reboot_node(number)
        elif not agent.host.dockerd.process.is_alive:
            await agent.host.dockerd.start()
    for daemon in (*cluster.servers, *cluster.agents):
        if not daemon.process.is_alive:
            daemon.start()


class Stopwatch:
    """Prints how long things took, for whoever reads the test's output."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def read(self, what: str) -> float:
        """Return the seconds since it was made."""
        seconds = time.monotonic() - self._began_s
        print(f"{what}: {seconds:.1f} s")
        return seconds
