"""Simulated users: what they apply, change, scale, cordon, drain and delete; and what they know to be stored.

A user asks any server, by its real writer, and asks again until one says yes. So when all is done, the store must hold
exactly what the user believes it does.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from control_plane import keys
from control_plane.core import Core
from manifests.errors import InvalidError, NotFoundError, WherryError
from manifests.workloads import WORKLOAD, Service, Workload
from tests.builders import workload
from tests.simulation.cluster import IMAGE, Cluster

ASK_S = 6.0
PAUSE_S = 0.5
FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
DEAF = ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
CHECK = {"exec": {"command": ["check"]}, "interval": "2s", "timeout": "1s", "failures": 2}
QUICK: dict[str, Any] = {
    "restart": {"backoff": "500ms", "maxBackoff": "4s", "attempts": 4, "window": "1m"},
    "reschedule": {"backoff": "1s", "maxBackoff": "5s"},
}
SHORT_STOP = {"grace": "3s"}
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


def first_workloads() -> list[Workload]:
    """Return what the cluster runs from the beginning: every kind, and every trait that matters to the agent."""

    def small(cpu: str = "200m") -> dict[str, str]:
        return {"cpu": cpu, "memory": "64Mi"}

    return [
        workload(name="web", replicas=4, resources=small(), command=FOREVER, ports=[_port("auto")], **QUICK),
        workload(name="api", replicas=3, resources=small("500m"), command=FOREVER, ports=[_port(8080)], **QUICK),
        workload(
            name="deaf", replicas=2, resources=small(), command=DEAF, stop=SHORT_STOP, update=_stop_first(), **QUICK
        ),
        workload(
            name="checked",
            replicas=2,
            resources=small(),
            command=FOREVER,
            health={"readiness": CHECK, "liveness": CHECK},
            **QUICK,
        ),
        workload("Daemon", name="monitor", resources=small("100m"), command=FOREVER, **QUICK),
        workload("Job", name="batch", completions=5, parallelism=2, resources=small(), command=_job(3), **QUICK),
        workload("Job", name="timed", timeout="40s", resources=small(), command=_job(6), **QUICK),
        _group(),
        workload("CronJob", name="ticker", schedule="* * * * *", command=_job(4), resources=small("50m"), **QUICK),
        workload(name="looper", resources=small("100m"), command=_failing(), **_patient()),
        workload(name="quitter", resources=small("100m"), command=_failing(), restart={"policy": "never"}),
    ]


def _port(publish: int | str) -> dict[str, object]:
    return {"container": 80, "publish": publish}


def _stop_first() -> dict[str, int]:
    return {"maxSurge": 0, "maxUnavailable": 1}


def _job(seconds: int) -> tuple[str, ...]:
    return ("sh", "-c", f"sleep {seconds}; exit 0")


def _group() -> Workload:
    """Return a service of two containers beside a sandbox, one of which must be there first."""
    size = {"cpu": "50m", "memory": "32Mi", "pids": 20}
    proxy = {"name": "proxy", "sidecar": True, "image": IMAGE, "command": FOREVER, "resources": size}
    app = {"name": "app", "image": IMAGE, "command": FOREVER, "resources": size}
    spec = {"replicas": 2, "containers": [proxy, app], "reschedule": QUICK["reschedule"]}
    document = {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "pair"}, "spec": spec}
    return WORKLOAD.validate_python(document)


def _failing() -> tuple[str, ...]:
    return ("sh", "-c", "sleep 0.2; exit 1")


def _patient() -> dict[str, Any]:
    """It may fail as often as it likes, so that nothing but its backoff holds it."""
    return {"restart": {"backoff": "1s", "maxBackoff": "1m", "attempts": 1000}, "reschedule": {"backoff": "1s"}}


NAMES = ("web", "api", "deaf", "checked", "monitor")


def drawn(rng: random.Random, *, begin_s: float, end_s: float) -> tuple[Action, ...]:
    """Return what users do in one history."""
    kinds = rng.sample(sorted(KINDS), k=rng.randint(2, len(KINDS)))
    actions = []
    for _ in range(rng.randint(3, 10)):
        kind = rng.choice(kinds)
        target = rng.choice(("n1", "n2", "n3", "n4", "n5")) if kind in ON_NODES else rng.choice(NAMES)
        actions.append(Action(round(rng.uniform(begin_s, end_s), 3), kind, target, rng.randint(0, 6)))
    return tuple(sorted(actions, key=lambda action: action.at_s))


@dataclass(eq=False, slots=True)
class Users:
    """`wanted` and `intents` are what has been acknowledged; read them once all actions are done."""

    cluster: Cluster
    rng: random.Random
    wanted: dict[str, Workload] = field(default_factory=dict)
    intents: dict[str, dict[str, bool]] = field(default_factory=dict)
    acknowledged: list[tuple[float, float, int]] = field(default_factory=list)  # asked, answered, revision
    jobs: int = 0

    async def begin(self) -> None:
        for one in first_workloads():
            await self._apply(one)

    async def act(self, action: Action) -> None:
        self.cluster.note("ACTION", action)
        await KINDS[action.kind](self, action)

    async def settle(self) -> None:
        """Take away what could never come to rest."""
        for name in RESTLESS:
            await self._delete(f"default/{name}")

    async def _apply(self, one: Workload) -> None:
        id_ = keys.id_of_metadata(one.kind, one.metadata)
        await self._ask(lambda core: _revision_of(core.workload_writer.apply([one])))
        self.wanted[id_] = one

    async def _delete(self, id_: str) -> None:
        with suppress(NotFoundError):  # an earlier try may have done it, unknown to us
            await self._ask(lambda core: core.workload_writer.delete(id_))
        self.wanted.pop(id_, None)

    async def _intend(self, node: str, **changes: bool) -> None:
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
        spec = old.spec.model_copy(update={"env": {"VERSION": str(action.number), "AT": str(action.at_s)}})
        await self._apply(old.model_copy(update={"spec": spec}))

    async def _scale(self, action: Action) -> None:
        id_, old = self._existing(action.target)
        if not isinstance(old, Service):
            return
        try:
            await self._ask(lambda core: _scaled(core, id_, action.number))
        except (NotFoundError, InvalidError):
            return
        self.wanted[id_] = old.model_copy(update={"spec": old.spec.model_copy(update={"replicas": action.number})})

    async def _remove(self, action: Action) -> None:
        id_, old = self._existing(action.target)
        if old is not None:
            await self._delete(id_)

    async def _run_job(self, action: Action) -> None:
        self.jobs += 1
        job = workload(
            "Job", name=f"extra{self.jobs}", completions=2, parallelism=2, command=_job(action.number), **QUICK
        )
        await self._apply(job)

    async def _cordon(self, action: Action) -> None:
        await self._intend(action.target, is_cordoned=True)

    async def _uncordon(self, action: Action) -> None:
        await self._intend(action.target, is_cordoned=False, is_draining=False)

    async def _drain(self, action: Action) -> None:
        await self._intend(action.target, is_cordoned=True, is_draining=True)

    def _existing(self, name: str) -> tuple[str, Workload | None]:
        id_ = f"default/{'daemon' if name == 'monitor' else 'service'}/{name}"
        return id_, self.wanted.get(id_)

    async def _restore(self, id_: str, name: str) -> None:
        """Apply anew what was deleted."""
        await self._apply(next(one for one in first_workloads() if one.metadata.name == name))


async def _revision_of(applying: Awaitable[tuple[int, object]]) -> int:
    return (await applying)[0]


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
}
ON_NODES = frozenset({"cordon", "uncordon", "drain"})
