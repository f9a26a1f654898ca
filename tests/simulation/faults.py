"""What goes wrong: each kind of fault, how it begins, and how it ends. Chosen for each history by swarm testing.

Every fault is data, so that a history can be told again with fewer of them. Each ends by itself or when all is healed.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agent.state_file import STATE_FILE
from control_plane import keys
from control_plane.store.protocol import Delete, Put, Txn
from tests.simulation.cluster import Cluster, NodeHost, ServerHost
from tests.simulation.crashes import CrashPoint
from tests.simulation.etcd import Link, Origin
from tests.simulation.loop import Process
from tests.simulation.runtime import Box

LEADER = "leader"  # whoever leads when the fault begins
LONG_SLEEP_S = 2.1
RESENT_S = 0.9
LEAST_FAULTS, MOST_FAULTS = 10, 20
GARBAGE = (  # keys, and whether it may stay there: beside some of them versions aren't collected
    (keys.WORKLOADS + "default/service/damaged{}", True),
    (keys.ALLOCATIONS + "n2/damaged{}", False),
    (keys.NODE_INTENTS + "damaged{}", True),
    (keys.STATUSES + "n3/damaged{}", True),
    (keys.VERSIONS + "default/service/damaged{}/00000001", False),
    (keys.VERSIONS + "damaged{}", False),
    (keys.EVENTS + "default/service/web/damaged{}", True),
    (keys.CONFIGS + "default/damaged{}", False),
    (keys.WORKLOAD_STATUSES + "damaged{}", True),
    (keys.NODES + "damaged{}", True),
)
EFFECTS = ("commit", "frame", "driver", "file", "")


@dataclass(frozen=True, slots=True)
class Fault:
    """`number` and `word` mean what the kind makes of them."""

    at_s: float
    kind: str
    target: str  # a server or a node
    seconds: float
    number: int
    word: str = ""

    def __str__(self) -> str:
        extra = f" {self.word}" if self.word else ""
        return f"{self.at_s:6.2f} {self.kind} {self.target} for {self.seconds:.2f} s ({self.number}{extra})"


Begin: TypeAlias = Callable[[Cluster, Fault], None]


def drawn(rng: random.Random, *, begin_s: float, end_s: float, only: Sequence[str] | None = None) -> tuple[Fault, ...]:
    """Return the faults of one history: of a random subset of kinds, or of `only` those, at random moments."""
    share = rng.choice((0.15, 0.3, 0.5, 1.0))
    kinds = [kind for kind in sorted(KINDS) if rng.random() < share] or [rng.choice(sorted(KINDS))]
    kinds = sorted(only) if only else kinds
    return tuple(
        sorted(
            (_draw(rng, rng.choice(kinds), begin_s, end_s) for _ in range(rng.randint(LEAST_FAULTS, MOST_FAULTS))),
            key=lambda fault: fault.at_s,
        )
    )


def _draw(rng: random.Random, kind: str, begin_s: float, end_s: float) -> Fault:
    group, _ = KINDS[kind]
    servers, nodes = ("s1", "s2", "s3"), ("n1", "n2", "n3", "n4", "n5")
    target = rng.choice((*servers, LEADER, LEADER)) if group == "server" else rng.choice(nodes)
    seconds = rng.choice((rng.uniform(0.2, 3.0), rng.uniform(3.0, 12.0), rng.uniform(5.0, 25.0)))
    word = rng.choice(EFFECTS) if kind.startswith("crash") else rng.choice((*servers, "both", "to", "from"))
    return Fault(round(rng.uniform(begin_s, end_s), 3), kind, target, round(seconds, 3), rng.randint(1, 30), word)


def begin(cluster: Cluster, fault: Fault) -> None:
    """Let it happen now."""
    cluster.note("FAULT", fault)
    KINDS[fault.kind][1](cluster, fault)


def heal_all(cluster: Cluster) -> None:
    """End every fault: all processes run, all links are whole, all managers answer."""
    cluster.note("HEAL")
    cluster.undo_all()
    cluster.etcd.is_down = False
    cluster.network.heal_all()
    for server in cluster.servers.values():
        server.link.heal()
        server.link.most_delay_s = 0.004
        _revive(cluster, server)
    for node in cluster.nodes.values():
        runtime, node.folder.is_full = node.runtime, False
        runtime.events_to_lose = runtime.replies_to_lose = 0
        runtime.pull_s = 0.05
        runtime.come_back()
        for box in runtime.boxes.values():
            box.is_healthy = True
        _revive(cluster, node)


def _revive(cluster: Cluster, host: ServerHost | NodeHost) -> None:
    if host.process is not None:
        host.process.crash = None
        host.process.thaw()
    _start(cluster, host)


def _start(cluster: Cluster, host: ServerHost | NodeHost) -> None:
    if isinstance(host, ServerHost):
        cluster.start_server(host)
    else:
        cluster.start_agent(host)


def _server(cluster: Cluster, fault: Fault) -> ServerHost:
    if fault.target != LEADER:
        return cluster.servers[fault.target]
    leaders = [s for s in cluster.servers.values() if s.core is not None and s.core.membership.is_leading]
    return (leaders or list(cluster.servers.values()))[0]


def _host(cluster: Cluster, fault: Fault) -> ServerHost | NodeHost:
    return cluster.nodes[fault.target] if fault.target in cluster.nodes else _server(cluster, fault)


# Processes.


def _kill(cluster: Cluster, fault: Fault) -> None:
    host = _host(cluster, fault)
    if host.process is not None:
        host.process.kill()
    cluster.undo_later(fault.seconds, _start, cluster, host)


def _stop(cluster: Cluster, fault: Fault) -> None:
    """As by SIGTERM: it ends by itself, and is started again."""
    host = _host(cluster, fault)
    if host.main is not None:
        host.main.cancel()


def _pause(cluster: Cluster, fault: Fault) -> None:
    process = _host(cluster, fault).process
    if process is not None and not process.is_dead:
        process.freeze()
        cluster.undo_later(fault.seconds, _thaw, cluster, process, cluster.loop.time())


def _pause_host(cluster: Cluster, fault: Fault) -> None:
    """Freeze a server's whole machine: what is sent to it comes a while after it wakes up, when it is sent again."""
    near = _server(cluster, fault).name
    _pause(cluster, fault)
    for pair in [p for far in cluster.nodes for p in _directions("both", near, far)]:
        cluster.network.cut(*pair)
        cluster.undo_later(fault.seconds + RESENT_S, cluster.network.heal, *pair)


def _thaw(cluster: Cluster, process: Process, since_s: float) -> None:
    if process.is_frozen and cluster.loop.time() - since_s > LONG_SLEEP_S:
        cluster.woke_s[process.name.partition(".")[0]] = cluster.loop.time()
    process.thaw()


def _crash(cluster: Cluster, fault: Fault) -> None:
    """Kill it at one of its next effects, and start it again a while after that."""
    host = _host(cluster, fault)
    process = host.process
    if process is None or process.is_dead:
        return
    process.crash = CrashPoint(1 + fault.number // 2, fault.number % 2 == 0, fault.word)
    process.on_death.append(lambda: _restart_later(cluster, host, process, fault))


def _restart_later(cluster: Cluster, host: ServerHost | NodeHost, process: Process, fault: Fault) -> None:
    cluster.note("crashed", process.name)
    cluster.undo_later(fault.seconds, _start, cluster, host)


def _reboot(cluster: Cluster, fault: Fault) -> None:
    """The machine dies, and all on it; it says nothing to anybody."""
    node = cluster.nodes[fault.target]
    for connection in cluster.network.of_host(node.name):
        connection.vanish()
    if node.process is not None:
        node.process.kill()
    node.runtime.reboot(keeps_dead=fault.number % 2 == 0)
    node.host.reboot()
    node.has_amnesia = True  # no time of a former boot is known

    def boot() -> None:
        node.runtime.come_back()
        for connection in list(cluster.network.of_host(node.name)):
            connection.reset()  # its peers' next words are answered so
        cluster.start_agent(node)

    cluster.undo_later(fault.seconds, boot)


# The network.


def _directions(word: str, near: str, far: str) -> list[tuple[str, str]]:
    pairs = {"to": [(near, far)], "from": [(far, near)]}
    return pairs.get(word, [(near, far), (far, near)])


def _cut(cluster: Cluster, fault: Fault, pairs: list[tuple[str, str]]) -> None:
    for source, target in pairs:
        cluster.network.cut(source, target)
        cluster.undo_later(fault.seconds, cluster.network.heal, source, target)


def _cut_session(cluster: Cluster, fault: Fault) -> None:
    """Cut one node from one server, or from where its session is."""
    far = fault.word if fault.word in cluster.servers else f"s{fault.number % 3 + 1}"
    _cut(cluster, fault, _directions(fault.word, fault.target, far))


def _isolate_node(cluster: Cluster, fault: Fault) -> None:
    _cut(cluster, fault, [p for far in cluster.servers for p in _directions(fault.word, fault.target, far)])


def _isolate_server(cluster: Cluster, fault: Fault) -> None:
    """Cut a server from all agents; it still has the store."""
    near = _server(cluster, fault).name
    _cut(cluster, fault, [p for far in cluster.nodes for p in _directions(fault.word, near, far)])


def _slow_network(cluster: Cluster, fault: Fault) -> None:
    network = cluster.network
    network.extra_delay_s[fault.target] = fault.number / 20
    cluster.undo_later(fault.seconds, network.extra_delay_s.pop, fault.target, None)


def _reset(cluster: Cluster, fault: Fault) -> None:
    for connection in list(cluster.network.of_host(fault.target)):
        connection.reset()


# The store.


def _cut_store(cluster: Cluster, fault: Fault) -> None:
    link = _server(cluster, fault).link
    link.is_cut_to = fault.word != "from"
    link.is_cut_from = fault.word != "to"

    def heal() -> None:
        link.is_cut_to = link.is_cut_from = False
        link.wake()

    cluster.undo_later(fault.seconds, heal)


def _store_down(cluster: Cluster, fault: Fault) -> None:
    """The store has lost its quorum."""
    cluster.etcd.is_down = True

    def heal() -> None:
        cluster.etcd.is_down = False
        for server in cluster.servers.values():
            server.link.wake()

    cluster.undo_later(fault.seconds, heal)


def _slow_store(cluster: Cluster, fault: Fault) -> None:
    link = _server(cluster, fault).link
    link.most_delay_s = fault.number / 15
    cluster.undo_later(fault.seconds, _set_delay, link)


def _set_delay(link: Link) -> None:
    link.most_delay_s = 0.004


def _stale(cluster: Cluster, fault: Fault) -> None:
    """A replica that lags: its watches come late."""
    link = _server(cluster, fault).link
    link.lag_s = fault.number / 6

    def heal() -> None:
        link.lag_s = 0.0

    cluster.undo_later(fault.seconds, heal)


def _lose_reply(cluster: Cluster, fault: Fault) -> None:
    _server(cluster, fault).link.replies_to_lose += 1 + fault.number % 4


def _end_lease(cluster: Cluster, fault: Fault) -> None:
    leases = cluster.etcd.leases()
    if leases:
        cluster.etcd.revoke(leases[fault.number % len(leases)])


def _compact(cluster: Cluster, fault: Fault) -> None:
    """Forget history while a server's watch is behind, which must list again."""
    link = _server(cluster, fault).link
    link.is_cut_from = True

    def forget() -> None:
        cluster.etcd.compact(cluster.etcd.revision)
        link.is_cut_from = False
        link.wake()

    cluster.undo_later(min(fault.seconds, 6.0), forget)


def _plant_garbage(cluster: Cluster, fault: Fault) -> None:
    """Put a record that can't be read beside the others. In half of the cases it stays there for ever."""
    key, may_stay = GARBAGE[fault.number % len(GARBAGE)]
    key = key.format(fault.number)
    cluster.unreadable.add(key)
    _write(cluster, Put(key, b'{"damaged'))
    if not (may_stay and fault.number % 2):
        cluster.undo_later(fault.seconds, _write, cluster, Delete(key))


def _write(cluster: Cluster, write: Put | Delete) -> None:
    operation = cluster.etcd.new_operation()
    cluster.etcd.apply(Txn((), (write,)), operation, Origin("", cluster.loop.time(), operation))


# Machines.


def _jump(cluster: Cluster, fault: Fault) -> None:
    _host(cluster, fault).host.wall_offset_s += 3600.0 if fault.number % 2 else -3600.0


def _tear_state(cluster: Cluster, fault: Fault) -> None:
    """The agent dies, and its disk keeps half of what was written last."""
    _damage(cluster, fault, lambda files, former: files[STATE_FILE][: len(files[STATE_FILE]) // 2])


def _lose_write(cluster: Cluster, fault: Fault) -> None:
    """The agent dies, and its disk has not kept what was written last."""
    _damage(cluster, fault, lambda files, former: former.get(STATE_FILE, b""))


def _damage(cluster: Cluster, fault: Fault, left: Callable[[dict[str, bytes], dict[str, bytes]], bytes]) -> None:
    node = cluster.nodes[fault.target]
    _kill(cluster, fault)
    if STATE_FILE in node.folder.files:
        node.folder.files[STATE_FILE] = left(node.folder.files, node.folder.former)
        node.has_amnesia, node.misled_life = True, node.lives + 1


def _fill_disk(cluster: Cluster, fault: Fault) -> None:
    node = cluster.nodes[fault.target]
    node.folder.is_full = True

    def free() -> None:
        node.folder.is_full = False

    cluster.undo_later(fault.seconds, free)


# Container managers.


def _hang(cluster: Cluster, fault: Fault) -> None:
    runtime = cluster.nodes[fault.target].runtime
    runtime.is_hung = True

    def wake() -> None:
        if not runtime.is_down:
            runtime.come_back()

    cluster.undo_later(fault.seconds, wake)


def _restart_manager(cluster: Cluster, fault: Fault) -> None:
    runtime = cluster.nodes[fault.target].runtime
    runtime.fail(kills_containers=fault.number % 2 == 0)
    cluster.undo_later(min(fault.seconds, 8.0), runtime.come_back)


def _slow_pull(cluster: Cluster, fault: Fault) -> None:
    runtime = cluster.nodes[fault.target].runtime
    runtime.pull_s = fault.seconds
    runtime.present.clear()


def _lose_events(cluster: Cluster, fault: Fault) -> None:
    cluster.nodes[fault.target].runtime.events_to_lose += 1 + fault.number % 3


def _lose_manager_reply(cluster: Cluster, fault: Fault) -> None:
    cluster.nodes[fault.target].runtime.replies_to_lose += 1


def _one_box(cluster: Cluster, fault: Fault) -> Box | None:
    boxes = [b for b in cluster.nodes[fault.target].runtime.boxes.values() if b.is_running and b.spec.env]
    return boxes[fault.number % len(boxes)] if boxes else None


def _exit(cluster: Cluster, fault: Fault) -> None:
    if (box := _one_box(cluster, fault)) is not None:
        cluster.nodes[fault.target].runtime.end(box, 1, "crash")


def _oom(cluster: Cluster, fault: Fault) -> None:
    if (box := _one_box(cluster, fault)) is not None:
        box.oom_killed = True
        cluster.nodes[fault.target].runtime.end(box, 137, "oom")


def _sicken(cluster: Cluster, fault: Fault) -> None:
    """A program hangs: its checks fail."""
    if (box := _one_box(cluster, fault)) is not None:
        box.is_healthy, box.was_sick = False, True


KINDS: Mapping[str, tuple[str, Begin]] = {
    "server-kill": ("server", _kill),
    "server-stop": ("server", _stop),
    "server-pause": ("server", _pause),
    "host-pause": ("server", _pause_host),
    "crash-server": ("server", _crash),
    "isolate-server": ("server", _isolate_server),
    "slow-server": ("server", _slow_network),
    "cut-store": ("server", _cut_store),
    "store-down": ("server", _store_down),
    "slow-store": ("server", _slow_store),
    "stale-replica": ("server", _stale),
    "lost-reply": ("server", _lose_reply),
    "lease-ended": ("server", _end_lease),
    "compaction": ("server", _compact),
    "garbage": ("server", _plant_garbage),
    "clock-jump-server": ("server", _jump),
    "agent-kill": ("node", _kill),
    "agent-stop": ("node", _stop),
    "agent-pause": ("node", _pause),
    "crash-agent": ("node", _crash),
    "node-reboot": ("node", _reboot),
    "cut-session": ("node", _cut_session),
    "isolate-node": ("node", _isolate_node),
    "slow-node": ("node", _slow_network),
    "connection-reset": ("node", _reset),
    "clock-jump-node": ("node", _jump),
    "torn-state": ("node", _tear_state),
    "lost-write": ("node", _lose_write),
    "disk-full": ("node", _fill_disk),
    "manager-hang": ("node", _hang),
    "manager-restart": ("node", _restart_manager),
    "slow-pull": ("node", _slow_pull),
    "lost-event": ("node", _lose_events),
    "lost-manager-reply": ("node", _lose_manager_reply),
    "container-exit": ("node", _exit),
    "container-oom": ("node", _oom),
    "container-hang": ("node", _sicken),
}
