"""Simulated users: what they ask for and when, and what they know to be stored.

A user asks any server, by its real writer, and asks again until one says yes. So when all is done, the store must hold
exactly what the user believes it does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from control_plane import keys
from control_plane.core import Core
from control_plane.rehearsal.answer import fork_of
from control_plane.rehearsal.proposal import Aim, Goal, proposed
from manifests.containers import RestartPolicy, RestartSpec
from manifests.errors import ConflictError, InvalidError, NotFoundError, WherryError
from manifests.moves import MoveOrder
from manifests.status import WorkloadStatus
from manifests.workloads import Daemon, Document, Service, Workload, WorkloadSpec, with_template_of
from tests.builders import workload
from tests.simulation.cluster import Cluster
from tests.simulation.wishes import (
    BROKEN,
    QUICK,
    SITE,
    as_at_first,
    filler,
    first,
    first_workloads,
    has_canaries,
    job_command,
    renewed,
    site,
)

ASK_S = 6.0
PAUSE_S = 0.5
SQUEEZED_SHARE = 0.3  # of the histories end with more to be done than there is room for
RESTLESS = ("service/looper", "service/quitter", "cronjob/ticker")  # deleted before all must be quiet


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a user does, at a moment; `number` says how much or which."""

    at_s: float
    kind: str
    target: str
    number: int

    def __str__(self) -> str:
        return f"{self.at_s:6.2f} {self.kind} {self.target} ({self.number})"


NAMES = ("web", "api", "deaf", "checked", "monitor")


def drawn(rng: random.Random, *, begin_s: float, end_s: float) -> tuple[Action, ...]:
    """Return what users do in one history."""
    kinds = rng.sample(sorted(KINDS), k=rng.randint(2, len(KINDS)))
    actions = []
    for _ in range(rng.randint(3, 11)):
        kind = rng.choice(kinds)
        target = rng.choice(("n1", "n2", "n3", "n4", "n5")) if kind in ON_NODES else rng.choice(NAMES)
        actions.append(Action(round(rng.uniform(begin_s, end_s), 3), kind, target, rng.randint(0, 6)))
    if rng.random() < SQUEEZED_SHARE:
        kind, target = rng.choice((("crowd", "checked"), ("squeeze", rng.choice(("n1", "n2", "n3", "n4", "n5")))))
        actions.append(Action(end_s, kind, target, rng.randint(0, 6)))
    return tuple(sorted(actions, key=lambda action: action.at_s))


@dataclass(eq=False, slots=True)
class Users:
    """`wanted` and `intents` are what has been acknowledged; read them once all actions are done."""

    cluster: Cluster
    rng: random.Random
    wanted: dict[str, Workload] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)  # the content of each
    intents: dict[str, dict[str, object]] = field(default_factory=dict)
    acknowledged: list[tuple[float, float, int]] = field(default_factory=list)  # asked, answered, revision
    jobs: int = 0
    is_frozen: bool = False

    async def begin(self) -> None:
        await self._configure("content of the beginning")
        for one in first_workloads():
            await self._apply(one)

    async def act(self, action: Action) -> None:
        self.cluster.note("ACTION", action)
        await (KINDS | AT_THE_END)[action.kind](self, action)

    async def settle(self) -> None:
        """Take away what could never come to rest, and let go on what waits for a word."""
        for name in RESTLESS:
            await self._delete(f"default/{name}")
        if self.is_frozen:
            await self._ask(lambda core: core.freeze_writer.unfreeze())
        for id_, one in list(self.wanted.items()):
            if one.spec.command == BROKEN and not self._can_turn_back(id_):
                await self._apply(as_at_first(one))
            if has_canaries(one):
                await self._let_pass(id_)

    async def _apply(self, one: Workload) -> None:
        await self._store(one)
        self.wanted[keys.id_of_metadata(one.kind, one.metadata)] = one

    async def _configure(self, content: str) -> None:
        await self._store(site(content))
        self.configs[keys.config_id("default", SITE)] = content

    async def _store(self, one: Document) -> None:
        await self._ask(lambda core: _revision_of(core.workload_writer.apply([one])))

    async def _delete(self, id_: str) -> None:
        with suppress(NotFoundError):  # an earlier try may have done it, unknown to us
            await self._ask(lambda core: core.workload_writer.delete(id_))
        self.wanted.pop(id_, None)

    async def _intend(self, node: str, **changes: object) -> None:
        try:
            await self._ask(lambda core: core.node_writer.set_intent(node, **changes))
        except NotFoundError:
            return  # it has not registered yet
        self.intents.setdefault(node, {}).update(changes)

    async def _ask(self, call: Callable[[Core], Awaitable[int]]) -> None:
        """Ask one server after the other until one has done it."""
        loop = self.cluster.loop
        while True:
            began_s = loop.time()
            servers = [s for s in self.cluster.servers.values() if s.core is not None and s.is_up]
            if servers:
                server = self.rng.choice(servers)
                assert server.process is not None
                assert server.core is not None
                task = server.process.spawn(_awaited(call, server.core), name="api call")
                await asyncio.wait({task}, timeout=ASK_S)
                task.cancel()  # who doesn't wait any more hangs up
                if task.done() and not task.cancelled():
                    error = task.exception()
                    if error is None:
                        self.acknowledged.append((began_s, loop.time(), task.result()))
                        self.cluster.note("acknowledged", server.name, task.result())
                        return
                    if isinstance(error, NotFoundError | InvalidError) or not isinstance(error, WherryError):
                        raise error
            await asyncio.sleep(PAUSE_S)

    # The kinds of action.

    async def _change(self, action: Action) -> None:
        """Give it a new version."""
        id_, old = self._existing(action.target)
        if old is None:
            await self._restore(id_, action.target)
            return
        await self._apply(renewed(as_at_first(old), action.number, action.at_s))

    async def _scale(self, action: Action) -> None:
        id_, old = self._existing(action.target)
        if isinstance(old, Service):
            await self._scale_to(id_, old, action.number)

    async def _scale_to(self, id_: str, old: Service, replicas: int) -> None:
        with suppress(NotFoundError, InvalidError):
            await self._ask(lambda core: _scaled(core, id_, replicas))
            self.wanted[id_] = old.model_copy(update={"spec": old.spec.model_copy(update={"replicas": replicas})})

    async def _remove(self, action: Action) -> None:
        id_, old = self._existing(action.target)
        if old is not None:
            await self._delete(id_)

    async def _run_job(self, action: Action) -> None:
        self.jobs += 1
        command = job_command(action.number)
        name = f"extra{self.jobs}"
        await self._apply(workload("Job", name=name, completions=2, parallelism=2, command=command, **QUICK))

    async def _cordon(self, action: Action) -> None:
        await self._intend(action.target, is_cordoned=True)

    async def _uncordon(self, action: Action) -> None:
        await self._intend(action.target, is_cordoned=False, is_draining=False, drain_deadline_s=None)

    async def _drain(self, action: Action) -> None:
        """Drain it, with a deadline in half of the cases."""
        deadline_s = 3.0 + action.number if action.number % 2 else None
        await self._intend(action.target, is_cordoned=True, is_draining=True, drain_deadline_s=deadline_s)

    async def _rebalance(self, action: Action) -> None:
        """Have moved what gains by it, as any server proposes it by then; once in a while take the moves back."""
        goal = Goal.SPREAD if action.number % 2 else Goal.PACK
        await self._ask(lambda core: _moved(core, Aim(goal=goal, max_moves=action.number + 1)))
        if action.number == 0:
            await self._ask(lambda core: core.move_writer.cancel())

    async def _freeze(self, action: Action) -> None:
        await self._ask(lambda core: core.freeze_writer.freeze(f"freeze {action.number}"))
        self.is_frozen = True

    async def _unfreeze(self, action: Action) -> None:
        await self._ask(lambda core: core.freeze_writer.unfreeze())
        self.is_frozen = False

    async def _break(self, action: Action) -> None:
        """Give it a version that can't work."""
        _, old = self._existing(action.target)
        if isinstance(old, Service | Daemon):
            broken = old.spec.model_copy(
                update={
                    "command": BROKEN,
                    "restart": RestartSpec(policy=RestartPolicy.NEVER),  # else its slot's starts come too fast
                    "update": old.spec.update.model_copy(update={"progress_deadline_s": 15.0}),
                }
            )
            await self._apply(renewed(old.model_copy(update={"spec": broken}), action.number, action.at_s))

    async def _canary(self, action: Action) -> None:
        """Give it a version that is tried by one first; it passes by itself in half of the cases."""
        _, old = self._existing(action.target)
        if isinstance(old, Service):
            update = old.spec.update.model_copy(update={"canary": 1, "auto_promote": bool(action.number % 2)})
            spec = old.spec.model_copy(update={"update": update})
            await self._apply(renewed(old.model_copy(update={"spec": spec}), action.number, action.at_s))

    async def _promote(self, action: Action) -> None:
        id_, old = self._existing(action.target)
        if old is not None and has_canaries(old):
            await self._let_pass(id_)

    async def _let_pass(self, id_: str) -> None:
        await self._ask(lambda core: _revision_of(core.rollout_writer.promote(id_)))

    async def _undo(self, action: Action) -> None:
        """Go back to a version that is kept: a certain one, or the last healthy one."""
        id_, old = self._existing(action.target)
        if old is None:
            return
        kept: list[WorkloadSpec] = []
        with suppress(NotFoundError):  # there is none
            await self._ask(lambda core: _undone(core, id_, action.number, kept))
        if kept:
            self.wanted[id_] = with_template_of(old, kept[-1])

    async def _crowd(self, action: Action) -> None:
        """Ask for one more of what needs much, when a job has just taken the room for a while."""
        id_, old = self._existing(action.target)
        if isinstance(old, Service):
            await self._apply(filler(seconds=3 + action.number))
            await self._scale_to(id_, old, old.spec.replicas + 1)

    async def _squeeze(self, action: Action) -> None:
        """Drain a node of what finds no other place: until the deadline it stays."""
        id_, old = self._existing("api")
        if isinstance(old, Service):
            await self._scale_to(id_, old, 5)
            deadline_s = 3.0 + action.number
            await self._intend(action.target, is_cordoned=True, is_draining=True, drain_deadline_s=deadline_s)

    async def _change_config(self, action: Action) -> None:
        await self._configure(f"content {action.number} of {action.at_s}")

    def _existing(self, name: str) -> tuple[str, Workload | None]:
        id_ = f"default/{'daemon' if name == 'monitor' else 'service'}/{name}"
        return id_, self.wanted.get(id_)

    async def _restore(self, id_: str, name: str) -> None:
        """Apply anew what was deleted."""
        await self._apply(first(name))

    def _can_turn_back(self, id_: str) -> bool:
        """Say whether a version of it was healthy once, as anyone can see: then the leader goes back to it."""
        entry = self.cluster.etcd.get(keys.WORKLOAD_STATUSES + id_)
        rollout = WorkloadStatus.read(entry.value).rollout if entry else None
        return rollout is not None and bool(rollout.healthy)


async def _revision_of(applying: Awaitable[tuple[int, object]]) -> int:
    return (await applying)[0]


async def _undone(core: Core, id_: str, number: int, kept: list[WorkloadSpec]) -> int:
    """Undo, and note which spec that brought back: as the history of the rollout tells, also if it was done twice."""
    present = core.state.workloads.get(id_)
    older = sorted(v for v in core.state.versions_of(id_) if present is not None and v < present.version)
    to = older[number % len(older)] if older and number % 2 else None
    revision, result = await core.rollout_writer.undo(id_, to)
    versions = core.state.versions_of(id_)
    kept.append(versions[int(versions[result.version].cause.rpartition(" ")[2])].workload.spec)
    return revision


async def _moved(core: Core, aim: Aim) -> int:
    """Order what is proposed; what can't be done just now is left."""
    fork = fork_of(core.state, core.standing, core.state.clock)
    moves = [
        MoveOrder(allocation=m.allocation.id, from_node=m.allocation.node, to_node=m.to, why=m.reason)
        for m in proposed(fork, aim).moves
    ]
    if not moves:
        return fork.begun_at
    try:
        return await core.move_writer.order(moves, planned_at=fork.begun_at)
    except ConflictError:
        return fork.begun_at


async def _scaled(core: Core, id_: str, replicas: int) -> int:
    return (await core.workload_writer.scale(id_, replicas))[0]


async def _awaited(call: Callable[[Core], Awaitable[int]], core: Core) -> int:
    return await call(core)


KINDS: dict[str, Callable[[Users, Action], Awaitable[None]]] = {
    "change": Users._change,
    "scale": Users._scale,
    "delete": Users._remove,
    "job": Users._run_job,
    "cordon": Users._cordon,
    "uncordon": Users._uncordon,
    "drain": Users._drain,
    "rebalance": Users._rebalance,
    "freeze": Users._freeze,
    "unfreeze": Users._unfreeze,
    "break": Users._break,
    "canary": Users._canary,
    "promote": Users._promote,
    "undo": Users._undo,
    "config": Users._change_config,
}
AT_THE_END: dict[str, Callable[[Users, Action], Awaitable[None]]] = {"crowd": Users._crowd, "squeeze": Users._squeeze}
ON_NODES = frozenset({"cordon", "uncordon", "drain"})
