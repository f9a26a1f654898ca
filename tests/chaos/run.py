"""One run: the world, the user, a fault every so often, and the verdict at the end."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos import identity_faults, memory_faults, node_faults, server_faults, store_faults
from tests.chaos.explain import unexplained
from tests.chaos.fault import Effect, Fault, Kind, Lab
from tests.chaos.pairs import Deck
from tests.chaos.stalls import Stalls, cpu_pressure_s
from tests.chaos.tell import fault_lines, last_events
from tests.chaos.user import User, Wish
from tests.chaos.world import NODES, wish_of, world
from tests.invariants.history import breaches
from tests.lab.chronicle import Chronicle, clock_of
from tests.lab.cluster import Cluster
from tests.lab.commands import in_thread
from tests.lab.faults import hold_untouched, look, opened_store, revision_now
from tests.lab.truth import Truth
from tests.lab.waiting import wait_until

KINDS = (
    *(*server_faults.KINDS, *store_faults.KINDS, *node_faults.KINDS),
    *(*memory_faults.KINDS, *identity_faults.KINDS),
)
CONVERGED_S = 60.0
STILL_S = 5.0
CAUGHT_UP_S = 20.0
BEGIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    duration_s: float
    every_s: float
    kinds: tuple[Kind, ...] = KINDS


@dataclass(slots=True)
class Verdict:
    """What came of a run."""

    faults: list[Fault]
    violations: tuple[str, ...] = ()
    converged_s: float | None = None  # None: it did not, in time
    containers: int = 0  # that ran, ever
    acts: dict[str, int] = field(default_factory=dict)  # of the user
    refused: int = 0  # calls of hers that had to be tried again
    stalls: Sequence[Fault] = ()  # of the machine, which excuse as well
    pressure_percent: float = 0.0  # of the time, some process waited for a processor
    events: tuple[str, ...] = ()  # the last
    logs: str = ""  # where the daemons' logs are kept, if it isn't good

    @property
    def is_good(self) -> bool:
        return not self.violations and self.converged_s is not None


async def run(plan: Plan) -> Verdict:
    """Let chaos reign for that time, then wait for peace and judge."""
    async with world() as cluster, opened_store(cluster) as store:
        lab = Lab(cluster, Chronicle(), Random(plan.seed))
        truth = Truth([agent.host for agent in cluster.agents])
        user = User(cluster.api, Random(plan.seed + 1), NODES)
        stalls = Stalls(agent.host.name for agent in cluster.agents)
        async with _background(chronicle=lab.chronicle.follow(store), truth=truth.follow(), stalls=stalls.watch()):
            await user.begin()
            await wait_until(lambda: look(cluster), BEGIN_S, "all runs at first", lambda p: not p.differences)
            verdict, waited_s, began_s = Verdict([]), cpu_pressure_s(), time.monotonic()
            async with _background(user=user.work()):
                await _break(lab, truth, plan, verdict)
            await user.finish()
            verdict.stalls = stalls.found
            await _judge(lab, truth, user, verdict)
            verdict.pressure_percent = 100 * (cpu_pressure_s() - waited_s) / (time.monotonic() - began_s)
        if not verdict.is_good:
            verdict.logs = await in_thread(_kept_logs, cluster)
        return verdict


def _kept_logs(cluster: Cluster) -> str:
    """Copy the daemons' logs to where they outlive the lab."""
    return str(shutil.copytree(cluster.net.folder / "logs", Path(tempfile.mkdtemp(prefix="wherry-chaos-"), "logs")))


@asynccontextmanager
async def _background(**parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the parts beside the block, and end them with it."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part, name=name) for name, part in parts.items()]
        yield
        for task in running:
            task.cancel()


async def _break(lab: Lab, truth: Truth, plan: Plan, verdict: Verdict) -> None:
    """Make one fault after the other, now and then two at once, no kind again before all others had their turn."""
    deck = Deck(plan.kinds, lab.rng)
    count = max(1, int(plan.duration_s / plan.every_s))
    began_s = time.time()
    for number in range(1, count + 1):
        kinds, mark, first = deck.deal(number), len(lab.chronicle.heard), len(verdict.faults)
        await _faults(lab, kinds, verdict)
        if number < count:
            await asyncio.sleep(max(0.0, began_s + number * plan.every_s - time.time()))
        for line in fault_lines(verdict.faults[first:], began_s, lab.chronicle.heard[mark:], truth.lives):
            print(line, flush=True)


async def _faults(lab: Lab, kinds: Sequence[Kind], verdict: Verdict) -> None:
    """Make them at once, each on nodes of its own, and return when all are healed."""
    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            made = asyncio.get_running_loop().create_future()
            is_last = kind is kinds[-1]
            tasks.create_task(_fault(lab, kind, verdict, made, is_paired=len(kinds) > 1), name=kind.name)
            if not is_last:
                effect = await made
                lab = replace(lab, spared=effect.touches | effect.silences)


async def _fault(lab: Lab, kind: Kind, verdict: Verdict, made: "asyncio.Future[Effect]", *, is_paired: bool) -> None:
    """Make one fault and heal it. While it lasts it excuses already."""
    began_s, hold_s = time.time(), lab.rng.uniform(*kind.hold_s)
    try:
        async with kind.make(lab, hold_s) as effect:
            fault, place = Fault(kind.name, effect, began_s, is_paired=is_paired), len(verdict.faults)
            verdict.faults.append(fault)
            made.set_result(effect)
            await asyncio.sleep(hold_s)
    except Exception as error:
        error.add_note(f"during the fault: {kind.name}, begun at {clock_of(began_s)}")
        raise
    verdict.faults[place] = replace(fault, healed_s=time.time())


async def _judge(lab: Lab, truth: Truth, user: User, verdict: Verdict) -> None:
    cluster, last_s = lab.cluster, max(fault.healed_s for fault in verdict.faults)
    violations: list[str] = []
    try:
        verdict.converged_s = await _agreed_for_good(cluster, last_s) - last_s
    except AssertionError as error:
        violations.append(str(error))
    await lab.chronicle.catch_up(await revision_now(cluster), CAUGHT_UP_S)
    await truth.look()
    causeless = unexplained(lab.chronicle.heard, truth.lives, [*verdict.faults, *verdict.stalls])
    violations += [*breaches(lab.chronicle.changes), *causeless, *await _unkept(cluster, user)]
    verdict.violations = tuple(violations)
    verdict.containers = len(truth.lives)
    verdict.acts, verdict.refused = dict(user.acts), user.refused
    verdict.events = last_events(lab.chronicle.heard, truth.lives)


async def _agreed_for_good(cluster: Cluster, last_s: float) -> float:
    """Return when all parts agreed and nothing moved any more. Raises AssertionError if that isn't in time.

    They may agree for a moment too soon: what is under stopAfter ends by its node's clock, not by what servers see.
    """
    while True:
        left_s = max(1.0, last_s + CONVERGED_S - time.time())
        picture = await wait_until(lambda: look(cluster), left_s, "all parts agree", lambda p: not p.differences)
        agreed_s = time.time()
        try:
            await hold_untouched(cluster, picture.containers, STILL_S)
        except AssertionError:
            if time.time() > last_s + CONVERGED_S:
                raise
        else:
            return agreed_s


async def _unkept(cluster: Cluster, user: User) -> list[str]:
    """Return the acknowledged wishes that the store doesn't hold."""
    unkept = []
    for name, wishes in user.wishes.items():
        spec = (await cluster.api.get(f"/v1/workloads/default/service/{name}"))["manifest"]["spec"]
        found = Wish(*wish_of(spec))
        if found not in wishes:
            unkept.append(f"service {name} is {found}, and what was acknowledged is {wishes}")
    return unkept
