"""One history: a seed, the faults and actions drawn from it, the run, and the verdict."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agent.driver import ContainerSpec, Limits
from agent.ownership import ALLOCATION, ATTEMPT, CLUSTER, NODE, SEAL, VERSION
from tests.invariants.steps import Breach
from tests.simulation import faults, users
from tests.simulation.cluster import IMAGE, Cluster
from tests.simulation.faults import Fault
from tests.simulation.judge import Judge
from tests.simulation.leftovers import left_of_deleted
from tests.simulation.loop import DeadlockError, SpinError, new_loop
from tests.simulation.trace import Trace, undisturbed
from tests.simulation.users import Action, Users

FAULTS_BEGIN_S, FAULTS_END_S = 3.0, 40.0
CONVERGED_S = 60.0  # after the last fault
QUIET_S = 60.0
CALM_S = 12.0  # long enough for a node to be found silent, and to come back
LOOK_S = 0.5
ACTIONS_S = 60.0  # more than enough for users to be answered once all is healed


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is chosen for one history; printed, and told again with less of it."""

    seed: int
    faults: tuple[Fault, ...]
    actions: tuple[Action, ...]

    @classmethod
    def drawn(cls, seed: int, *, only: Sequence[str] | None = None) -> "Plan":
        rng = random.Random(f"plan/{seed}")
        chosen = faults.drawn(rng, begin_s=FAULTS_BEGIN_S, end_s=FAULTS_END_S, only=only)
        return cls(seed, chosen, users.drawn(rng, begin_s=FAULTS_BEGIN_S, end_s=FAULTS_END_S))

    def lines(self) -> Iterator[str]:
        yield f"seed {self.seed}: {len(self.faults)} faults, {len(self.actions)} actions"
        yield from (f"  fault  {fault}" for fault in self.faults)
        yield from (f"  action {action}" for action in self.actions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a history. `breaches` is empty if all held."""

    seed: int
    breaches: tuple[Breach, ...]
    faults: int
    digest: str
    steps: int
    revisions: int
    converged_s: float | None  # after the last fault
    cpu_s: float
    last: tuple[str, ...] = field(repr=False)

    @property
    def is_good(self) -> bool:
        return not self.breaches


def run(plan: Plan, *, is_verbose: bool = False) -> Verdict:
    """Tell the history. The same plan always gives the same verdict, to the last event."""
    began_s = time.process_time()
    trace = Trace(is_verbose=is_verbose)
    with undisturbed(trace if is_verbose else None), new_loop(str(plan.seed)) as loop:
        cluster = Cluster.make(loop, str(plan.seed))
        cluster.note = trace.note
        judge = Judge(cluster)
        converged: list[float] = []
        try:
            loop.run(_tell(plan, cluster, judge, converged.append))
        except (SpinError, DeadlockError) as error:
            judge.breaches.append(Breach("bug", str(error)))
        return Verdict(
            seed=plan.seed,
            breaches=tuple(judge.breaches),
            faults=len(plan.faults),
            digest=trace.digest,
            steps=loop.steps,
            revisions=cluster.etcd.revision,
            converged_s=converged[0] if converged else None,
            cpu_s=time.process_time() - began_s,
            last=tuple(trace.last),
        )


async def _tell(plan: Plan, cluster: Cluster, judge: Judge, note_converged: Callable[[float], None]) -> None:
    user = Users(cluster, random.Random(f"{plan.seed}/users"))
    for node in cluster.nodes.values():
        _plant_strangers(node.runtime.create, node.runtime.start, node.name)
    cluster.start_all()
    acting = cluster.world_task(_act(plan, cluster, user), name="users")
    for fault in plan.faults:
        cluster.loop.in_world(fault.at_s, faults.begin, cluster, fault)
    await asyncio.sleep(FAULTS_END_S + 1.0)
    faults.heal_all(cluster)
    healed_s = cluster.loop.time()
    done, _ = await asyncio.wait({acting}, timeout=ACTIONS_S)
    if not done:
        judge.report([Breach("L5", "users were not answered")])
        return
    acting.result()
    took_s = await _converge(cluster, judge, user, healed_s)
    if took_s is not None:
        note_converged(took_s)
        await _stay_quiet(cluster, judge, user)
    judge.report(judge.final(user))


async def _act(plan: Plan, cluster: Cluster, user: Users) -> None:
    """Do one thing after the other, each not before its time."""
    await user.begin()
    began_s = cluster.loop.time()
    for action in plan.actions:
        await asyncio.sleep(max(0.0, action.at_s - (cluster.loop.time() - began_s)))
        await user.act(action)
    await asyncio.sleep(max(0.0, FAULTS_END_S - (cluster.loop.time() - began_s)))
    await user.settle()


async def _converge(cluster: Cluster, judge: Judge, user: Users, healed_s: float) -> float | None:
    """Wait until all is as wanted and stays so for CALM_S; return how long it took. L1: within CONVERGED_S."""
    calm_s = cluster.loop.time()
    revision = cluster.etcd.revision
    while True:
        now_s = cluster.loop.time()
        judge.look()
        left = judge.differences(user)
        if left or cluster.etcd.revision != revision:
            calm_s, revision = now_s, cluster.etcd.revision
        if not left and now_s - calm_s >= CALM_S:
            cluster.note("CONVERGED", round(calm_s - healed_s, 2))
            return calm_s - healed_s
        if now_s - healed_s > CONVERGED_S + CALM_S:
            judge.report(left[:5] or [Breach("L1", "the cluster doesn't come to rest")])
            return None
        await asyncio.sleep(LOOK_S)


async def _stay_quiet(cluster: Cluster, judge: Judge, user: Users) -> None:
    """L1: it stays so. L9: nothing is written while nothing happens."""
    before = judge.restless
    for _ in range(int(QUIET_S)):
        await asyncio.sleep(1.0)
        judge.look()
    if judge.restless != before:
        judge.report([Breach("L9", f"{judge.restless - before} writes while nothing happened")])
    judge.report(judge.differences(user)[:5])
    judge.report(left_of_deleted(cluster, judge.records)[:5])


def _plant_strangers(create: Callable[[ContainerSpec], object], start: Callable[..., None], node: str) -> None:
    """Put containers on the node that aren't its agent's: someone's own, and one that poses as an allocation."""
    posing = {CLUSTER: "c", NODE: node, ALLOCATION: "web-0-f00", VERSION: "1", ATTEMPT: "1", SEAL: "forged"}
    for name, labels in (("own", {}), ("posing", posing)):
        spec = ContainerSpec(
            name=f"stranger-{name}",
            image=IMAGE,
            command=("sleep", "inf"),
            args=(),
            env={},
            labels=labels,
            limits=Limits(100, 2**20, 10),
        )
        start(create(spec))
