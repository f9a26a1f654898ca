"""Watches a simulated cluster: every revision of the store, every container, every order, and the calm at the end."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from pydantic import ValidationError

from agent.state_file import STATE_FILE, SavedState
from control_plane import keys
from control_plane.store.protocol import Change, Entry
from manifests.allocations import AllocationStatus
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.session import Hello
from manifests.status import WorkloadStatus
from tests.invariants.agreement import differences
from tests.invariants.contents import environment
from tests.invariants.deadlines import Deadlines
from tests.invariants.history import HistoryChecker
from tests.invariants.reasons import Patience
from tests.invariants.running import RunningChecker
from tests.invariants.steps import Breach, Step
from tests.simulation.cluster import LOST_AFTER_S, Cluster
from tests.simulation.etcd import entries_of
from tests.simulation.runtime import Box
from tests.simulation.users import Users

MOST_BREACHES = 20
JUST_S = 1.0


EVENTS_S = 2.0  # so long after what happened its event is stored at most, while the store can be reached


class Judge:
    """`breaches` fills as things happen."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._history = HistoryChecker(portion=cluster.portion)
        self.records = self._history.records
        self.running = RunningChecker(self.records, self._is_ours)
        self._deadlines, self._patience = Deadlines(self.records), Patience(self.records)
        self.breaches: list[Breach] = []
        self._seals = {name: node.folder.ownership() for name, node in cluster.nodes.items()}
        self.restless = 0  # how many revisions there were but for those that only time brings
        self._calls: dict[int, int] = {}  # by commit: its revision
        self._gave_up_s = -EVENTS_S  # when a rollout's deadline passed last
        self._begun: dict[int, float] = {}  # by revision: when its writer decided to write
        self._applied: dict[str, tuple[int, int]] = {}  # by node: generation and revision, as last told
        cluster.etcd.observers.append(self._on_step)
        cluster.on_order = self._on_order
        cluster.network.on_hello = self._on_hello
        for node in cluster.nodes.values():
            node.runtime.observers.append(self)

    def report(self, found: Iterable[Breach]) -> None:
        for breach in found:
            if len(self.breaches) < MOST_BREACHES:
                self._cluster.note("BREACH", breach)
                self.breaches.append(breach)

    # What happens.

    def _on_step(self, step: Step) -> None:
        changed = " ".join(f"{'' if c.entry else '-'}{c.key.removeprefix('/wherry/')}" for c in step.changes)
        self.restless += not all(map(self._is_of_time, step.changes)) or not step.changes
        self._begun[step.revision] = step.began_s or 0.0
        self._cluster.note("revision", step.revision, step.writer or "-", changed)
        self.report(Breach(b.rule, f"at revision {step.revision}: {b.what}") for b in self._history.take(step))
        self.report(self._too_soon(step))
        self.report(self._twice(step))

    def started(self, node: str, box: Box) -> None:
        self._cluster.note("started", node, box.spec.name)
        if self._cluster.nodes[node].take_amnesia():
            self.running.forget_starts(node)
        found = self.running.started(node, box.id, box.labels, self._cluster.loop.time())
        if self._is_ours(node, box.labels):
            self.report(environment(self.records, box.labels, box.spec.env))
        is_misled = self._cluster.nodes[node].is_misled  # then it may run again what has ended, until it is reminded
        self.report(breach for breach in found if not (is_misled and breach.rule == "S11"))

    def ended(self, node: str, box: Box, cause: str) -> None:
        self._cluster.note("ended", node, box.spec.name, box.exit_code, cause)
        self.running.ended(node, box.id, box.exit_code, cause)

    def _on_hello(self, hello: Hello) -> None:
        """S8: what an agent obeys is never older than what it obeyed, nor than what its predecessor wrote down."""
        name = hello.facts.name
        node, told = self._cluster.nodes[name], (hello.generation, hello.applied_revision)
        known = self._applied.get(f"{name}.{node.lives}", (0, 0))
        with suppress(FileNotFoundError, ValidationError):
            state = SavedState.read(node.folder.read(STATE_FILE))
            known = max(known, (state.generation, state.applied_revision))
        self._applied[f"{name}.{node.lives}"] = told
        if told < known:
            self.report([Breach("S8", f"the agent of {name} obeys {told}, and had obeyed {known}")])

    def _on_order(self, kind: str, node: str, box: Box) -> None:
        if box.is_running:
            self._cluster.note("ordered", kind, node, box.spec.name)
        self.report(
            self.running.ordered(
                kind, node, box.labels, is_running=box.is_running, is_excused=self._is_excused(node, box)
            )
        )

    def _is_excused(self, node: str, box: Box) -> bool:
        allocation = box.labels.get("wherry.allocation", "")
        is_misled, has_timeout = self._cluster.nodes[node].is_misled, self.running.has_timeout(allocation)
        return box.was_sick or is_misled or has_timeout or self._has_lost_its_network(node, box)

    def _has_lost_its_network(self, node: str, box: Box) -> bool:
        """Say whether the sandbox of its group is gone: then the whole group starts anew."""
        of = box.spec.network_of
        sandbox = self._cluster.nodes[node].runtime.find(of) if of else None
        return of is not None and (sandbox is None or not sandbox.is_running)

    def _is_ours(self, node: str, labels: Mapping[str, str]) -> bool:
        return self._seals[node].owned(labels) is not None

    def _is_of_time(self, change: Change) -> bool:
        """Say whether time alone brought the change about."""
        return self._only_forgives(change) or self._only_gives_up(change)

    def _only_gives_up(self, change: Change) -> bool:
        """Say whether a rollout's deadline has passed; the event that tells so comes a moment later."""
        if change.key.startswith(keys.EVENTS):
            return self._cluster.loop.time() - self._gave_up_s < EVENTS_S
        is_read = change.key not in self._cluster.unreadable
        if not change.key.startswith(keys.WORKLOAD_STATUSES) or change.entry is None or not is_read:
            return False
        old = self.records.workload_statuses.get(change.key.removeprefix(keys.WORKLOAD_STATUSES))
        new = WorkloadStatus.read(change.entry.value)
        if old is None or old.rollout is None or new.rollout is None or old.rollout.message == new.rollout.message:
            return False
        gives_up = "made no progress" in new.rollout.message
        self._gave_up_s = self._cluster.loop.time() if gives_up else self._gave_up_s
        return gives_up

    def _only_forgives(self, change: Change) -> bool:
        """Say whether a status forgets failures that are long ago: once, and not for anything that happens now."""
        if not change.key.startswith(keys.STATUSES) or change.entry is None or change.key in self._cluster.unreadable:
            return False
        old = self.records.statuses.get(change.key.rpartition("/")[2])
        new = AllocationStatus.read(change.entry.value)
        if old is None or new.failures >= old.failures:
            return False
        return new == old.model_copy(update={"failures": new.failures})

    def _twice(self, step: Step) -> Iterator[Breach]:
        """S15: a write takes effect once, however often it was tried."""
        if step.call is not None:
            known = self._calls.setdefault(step.call, step.revision)
            if known != step.revision:
                yield Breach("S15", f"{step.writer} wrote once, and that was done at {known} and at {step.revision}")

    def _too_soon(self, step: Step) -> Iterator[Breach]:
        """S20: no node is lost while a server that has the store acknowledged its heartbeat a moment ago."""
        for change in step.changes:
            if not change.key.startswith(keys.NODES) or change.entry is None or step.began_s is None:
                continue
            if change.key in self._cluster.unreadable:
                continue
            node = NodeStatus.read(change.entry.value)
            if node.liveness is Liveness.SUSPECT:
                yield from self._by_a_sleeper(node, step)
            if node.liveness is not Liveness.LOST:
                continue
            heard = [at for at in self._cluster.heard.get(node.facts.name, ()) if at < step.began_s]
            if heard and step.began_s - heard[-1] < LOST_AFTER_S - 0.5:
                ago = step.began_s - heard[-1]
                yield Breach("S20", f"{node.facts.name} was called lost {ago:.2f} s after its last heartbeat was heard")

    def _by_a_sleeper(self, node: NodeStatus, step: Step) -> Iterator[Breach]:
        """S20: a server that has just woken up judges nobody by the time that it slept."""
        woke_s = self._cluster.woke_s.get(step.writer or "", -1e9)
        is_silence = "connection" not in node.message and "server" not in node.message
        if step.began_s is not None and 0.0 <= step.began_s - woke_s < JUST_S and is_silence:
            yield Breach("S20", f"{step.writer} woke up, and called {node.facts.name} suspect at once")

    # The calm at the end.

    def look(self) -> None:
        """L5, L6, L7: once all is healed, nothing waits for longer than it must. Ask again and again."""
        now_s = self._cluster.loop.time()
        self.report([*self._patience.look(now_s), *self._deadlines.look(now_s)])

    def differences(self, users: Users) -> list[Breach]:
        """Return what isn't as users want it. Empty: the cluster has converged."""
        found = list(differences(self.records, self.running, users.wanted, frozenset(self._cluster.nodes)))
        found += [*self._intents(users), *self._configs(users), *self._left_containers()]
        return found or list(self._caches())

    def _left_containers(self) -> Iterator[Breach]:
        """L3: each container that an agent made has an allocation, also when it runs no more."""
        for name, node in self._cluster.nodes.items():
            for box in node.runtime.boxes.values():
                identity = self._seals[name].owned(box.labels)
                if identity is not None and identity.allocation not in self.records.allocations:
                    yield Breach("L3", f"{box.spec.name} is left on {name}, and its allocation is gone")

    def _intents(self, users: Users) -> Iterator[Breach]:
        for node, changes in users.intents.items():
            intent = self.records.intents.get(node, NodeIntent(name=node))
            if any(getattr(intent, name) != value for name, value in changes.items()):
                yield Breach("S14", f"what users want of {node} isn't what they were told is stored")

    def _configs(self, users: Users) -> Iterator[Breach]:
        for id_, data in users.configs.items():
            record = self.records.configs.get(id_)
            if record is None or record.config.spec.data != data:
                yield Breach("S14", f"the content of config {id_} isn't what its user was told is stored")

    def _caches(self) -> Iterator[Breach]:
        """S16: what each server has followed is what a list shows."""
        truth = {entry.key: entry for entry in entries_of(self._cluster.etcd, keys.ROOT)}
        for server in self._cluster.servers.values():
            if server.core is None:
                yield Breach("L8", f"server {server.name} isn't up")
                continue
            readable = {key: entry for key, entry in truth.items() if key not in self._cluster.unreadable}
            yield from self._cache(server.name, readable, server.core.state)

    @staticmethod
    def _cache(name: str, truth: Mapping[str, Entry], state: object) -> Iterator[Breach]:
        for prefix, table in (
            (keys.WORKLOADS, "workloads"),
            (keys.ALLOCATIONS, "allocations"),
            (keys.STATUSES, "statuses"),
            (keys.NODES, "nodes"),
            (keys.VERSIONS, "versions"),
            (keys.NODE_INTENTS, "intents"),
        ):
            known = getattr(state, table)
            expected = {key for key in truth if key.startswith(prefix)}
            if set(known.stored_keys()) != expected or not all(known.has(truth[key]) for key in expected):
                yield Breach("S16", f"server {name} knows other {table} than the store has")

    def final(self, users: Users) -> Iterator[Breach]:
        """S14: a write's revision is above that of every write that was answered before it was asked for."""
        writes = [ack for ack in users.acknowledged if self._begun.get(ack[2], 0.0) >= ack[0]]  # others found it done
        for began_s, _, revision in writes:
            newest = max((r for _, at, r in writes if at < began_s), default=0)
            if revision < newest:
                yield Breach("S14", f"an answer at revision {revision} came after one at {newest}")
        for crash in self._cluster.crashes:
            yield Breach("bug", crash)
        for problem in self._cluster.loop.problems:
            yield Breach("bug", f"{problem.get('message')}: {problem.get('exception')!r}")
