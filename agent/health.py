"""Startup, readiness and liveness: probes what runs at its interval, counts, and tells the node the verdicts.

The others wait until startup has passed. One task for each check of a running attempt; allocations without checks cost
nothing. A container manager that is away can't run a command check: that is no verdict, and the counts stay.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.driver import Driver
from agent.node import Node
from agent.probes import Verdict, probe
from agent.tracked import Tracked
from foundation.clock import Clock
from foundation.tasks import TaskGroup
from manifests.allocations import Health, Phase
from manifests.containers import CheckSpec
from manifests.errors import WherryError

MOST_JITTER_S = 1.0  # first probes are spread, so that a burst of starts isn't a burst of probes
Role: TypeAlias = Literal["startup", "readiness", "liveness"]
Probe: TypeAlias = Callable[[CheckSpec, Tracked, Driver], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Count:
    """How many probes in a row went which way, and the verdict that stands."""

    health: Health = Health.UNKNOWN
    passes: int = 0
    fails: int = 0


def counted(count: Count, check: CheckSpec, *, passes: bool) -> Count:
    """Return the count after one more probe: the verdict changes when a threshold is reached.

    >>> from manifests.containers import TcpCheck
    >>> check = CheckSpec(tcp=TcpCheck(port=80), failures=2)
    >>> counted(Count(), check, passes=False).health, counted(Count(fails=1), check, passes=False).health
    (<Health.UNKNOWN: 'unknown'>, <Health.UNHEALTHY: 'unhealthy'>)
    """
    if passes:
        health = Health.HEALTHY if count.passes + 1 >= check.successes else count.health
        return Count(health, passes=count.passes + 1)
    health = Health.UNHEALTHY if count.fails + 1 >= check.failures else count.health
    return Count(health, fails=count.fails + 1)


class HealthChecks:
    """Follows the node's records: `follow` begins and ends checks as attempts come and go."""

    def __init__(self, node: Node, driver: Driver, *, clock: Clock, rng: random.Random, tasks: TaskGroup) -> None:
        self._node = node
        self._driver = driver
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._running: dict[str, tuple[int, tuple[asyncio.Task[None], ...]]] = {}

    def follow(self, old: Tracked | None, new: Tracked | None) -> None:
        """Begin the checks of an attempt that runs now, end those of one that doesn't any more."""
        tracked = new or old
        if tracked is None:
            return
        wanted = new.status.attempt if new is not None and _is_checked(new) else 0
        attempt, tasks = self._running.get(tracked.id, (0, ()))
        if wanted == attempt:
            return
        self._running.pop(tracked.id, None)
        for task in tasks:
            task.cancel()
        if wanted and new is not None:
            self._running[new.id] = (wanted, tuple(self._begin(new)))

    def _begin(self, tracked: Tracked) -> list[asyncio.Task[None]]:
        health, started = tracked.spec.health, asyncio.Event()
        checks: list[tuple[Role, CheckSpec]] = []
        if health.startup is not None:
            checks.append(("startup", health.startup))
        else:
            started.set()
        if health.readiness is not None:
            checks.append(("readiness", health.readiness))
        if health.liveness is not None:
            checks.append(("liveness", health.liveness))
        return [
            self._tasks.create_task(self._check(role, check, tracked, started), name=f"{role} {tracked.id}")
            for role, check in checks
        ]

    async def _check(self, role: Role, check: CheckSpec, tracked: Tracked, started: asyncio.Event) -> None:
        if role != "startup":
            await started.wait()
        count = Count()
        jitter_s = self._rng.uniform(0.0, min(check.interval_s, MOST_JITTER_S))
        await self._clock.sleep(check.initial_delay_s + jitter_s)
        while True:
            began_s = self._clock.now_s()
            try:
                verdict = await probe(check, tracked, self._driver)
            except WherryError:
                pass  # the manager is away: no verdict
            else:
                count = counted(count, check, passes=verdict.passes)
                self._tell(role, count.health, verdict, tracked)
                if role == "startup" and count.health is Health.HEALTHY:
                    started.set()
                    return
            await self._clock.sleep(max(check.interval_s - (self._clock.now_s() - began_s), 0.01))

    def _tell(self, role: Role, health: Health, verdict: Verdict, tracked: Tracked) -> None:
        if role != "readiness" and health is Health.UNHEALTHY:
            message = f"its {role} check failed: {verdict.output}"
            self._node.condemn(tracked.id, tracked.status.attempt, message)
        elif role == _judge(tracked) and health is not Health.UNKNOWN:
            self._node.set_health(tracked.id, tracked.status.attempt, health)


def _judge(tracked: Tracked) -> Role:
    """Return by which check it counts as healthy: where nothing else says so, once it has started."""
    return "readiness" if tracked.spec.health.readiness is not None else "startup"


def _is_checked(tracked: Tracked) -> bool:
    health = tracked.spec.health
    has_checks = any(check is not None for check in (health.startup, health.readiness, health.liveness))
    return has_checks and tracked.status.phase is Phase.RUNNING
