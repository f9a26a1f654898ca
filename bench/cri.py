"""How many containers a second an agent starts with containerd, beside the same pods and containers by bare CRI calls.

Both make the same on the same containerd, by turns, on the host's network. Bare calls are given their best concurrency.
A run ends when the runtime has started the last container (its started_at). Then some of the agent's are killed, and
its successor adopts all.
"""

import asyncio
import os
import secrets
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from agent.driver import ContainerSpec, Limits
from agent.drivers import cri_codec as codec
from agent.drivers.cri_methods import CONTAINER_STATUS, CREATE, LIST_CONTAINERS, LIST_PODS, REMOVE_POD, RUN_POD, START
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.options import AgentOptions
from bench.figures import Figure, at_most, reported
from bench.rig import IMAGE
from foundation.grpc_method import Method, Request, Response
from manifests.allocations import Phase
from manifests.containers import DEFAULT_CPU_M, DEFAULT_MEMORY_BYTES, DEFAULT_PIDS
from tests.agents import running_agent
from tests.containerd import ContainerdProcess, containerd
from tests.lab.waiting import wait_until
from tests.scripted_server import ScriptedServer, assigned

CONTAINERS = 100
CONCURRENCIES = (2, 4, 8, 16)
ROUNDS, SHORT_ROUNDS = 5, 2
TARGET = 1.15
CRASHES = 10
CRASH_TARGET_MS = 300.0
ADOPTED_TARGET_S = 3.0  # said of 200 containers
DEADLINE_S = 120.0
_REMOVALS = 4  # at once
_NAMES = [f"web-{number}-a" for number in range(CONTAINERS)]


class Bare:
    """The calls of the CRI without anything between."""

    def __init__(self, daemon: ContainerdProcess, channel: grpc.aio.Channel) -> None:
        self._daemon, self._channel = daemon, channel

    async def call(self, method: Method[Request, Response], request: Request) -> Response:
        made = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answer: Response = await made(request, timeout=DEADLINE_S)
        return answer

    async def start_one(self) -> None:
        """Make a pod and a container as the agent makes them."""
        spec = _spec(self._daemon.cgroup_parent)
        logs, parent = str(self._daemon.folder / "logs"), self._daemon.cgroup_parent
        pod = codec.to_pod(spec, attempt=0, log_root=logs, cgroup_parent=parent, refused="")
        made = await self.call(RUN_POD, pb.RunPodSandboxRequest(config=pod))
        config = codec.to_container_config(spec, pod, is_v2=False)
        request = pb.CreateContainerRequest(pod_sandbox_id=made.pod_sandbox_id, config=config, sandbox_config=pod)
        await self.call(START, await self.call(CREATE, request))

    async def run(self, concurrency: int) -> float:
        """Start all, so many at a time; return the seconds until the last has started."""
        left, began_s = list(range(CONTAINERS)), time.time()

        async def work() -> None:
            while left:
                left.pop()
                await self.start_one()

        async with asyncio.TaskGroup() as tasks:
            for number in range(concurrency):
                tasks.create_task(work(), name=f"bare-{number}")
        return await self.last_start_s() - began_s

    async def statuses(self) -> list[pb.ContainerStatusResponse]:
        listed = await self.call(LIST_CONTAINERS, pb.ListContainersRequest())
        ids = [container.id for container in listed.containers]
        requests = [pb.ContainerStatusRequest(container_id=found, verbose=True) for found in ids]
        return [await self.call(CONTAINER_STATUS, request) for request in requests]

    async def last_start_s(self) -> float:
        found = [answer.status for answer in await self.statuses()]
        running = [status.started_at / 1e9 for status in found if status.state == pb.CONTAINER_RUNNING]
        if len(running) != CONTAINERS:
            raise RuntimeError(f"{len(running)} of {CONTAINERS} containers run")
        return max(running)

    async def remove_all(self) -> None:
        places = asyncio.Semaphore(_REMOVALS)

        async def remove(pod: str) -> None:
            async with places:
                await self.call(REMOVE_POD, pb.PodSandboxId(pod_sandbox_id=pod))

        listed = await self.call(LIST_PODS, pb.ListPodSandboxRequest())
        async with asyncio.TaskGroup() as tasks:
            for pod in listed.items:
                tasks.create_task(remove(pod.id), name="remove")

    async def count(self) -> int:
        return len((await self.call(LIST_PODS, pb.ListPodSandboxRequest())).items)


async def measure(*, short: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        async with containerd(Path(folder), has_network=False) as daemon, _bare(daemon) as bare:
            return await _measure(daemon, bare, Path(folder), SHORT_ROUNDS if short else ROUNDS)


async def _measure(daemon: ContainerdProcess, bare: Bare, folder: Path, rounds: int) -> list[Figure]:
    await _by_agent(daemon, bare, folder / "warm")
    tried = {count: await _by_hand(bare, count) for count in CONCURRENCIES}
    best = min(tried, key=tried.__getitem__)
    ours, raw = list[float](), list[float]()
    for number in range(rounds):
        raw.append(await _by_hand(bare, best))
        ours.append(await _by_agent(daemon, bare, folder / str(number)))
    downs_ms, adopted_s = await _crashed_and_adopted(daemon, bare, folder / "last")
    ratio = statistics.median(our_s / raw_s for our_s, raw_s in zip(ours, raw, strict=True))
    return [
        at_most(f"{CONTAINERS} containers run, ratio to bare calls", ratio, "x", TARGET),
        reported("by the agent, median", CONTAINERS / statistics.median(ours), "starts/s"),
        reported("by bare calls, median", CONTAINERS / statistics.median(raw), "starts/s"),
        reported("best concurrency of bare calls", best, "at once"),
        at_most(
            f"a first crash to running again, median of {CRASHES}", statistics.median(downs_ms), "ms", CRASH_TARGET_MS
        ),
        reported("the same, max", max(downs_ms), "ms"),
        at_most(f"a new agent has adopted {CONTAINERS}", adopted_s, "s", ADOPTED_TARGET_S),
        *(reported(f"tried first: bare calls, {count} at once", tried[count], "s") for count in CONCURRENCIES),
    ]


async def _by_hand(bare: Bare, concurrency: int) -> float:
    async with asyncio.timeout(DEADLINE_S):
        taken_s = await bare.run(concurrency)
    await bare.remove_all()
    return taken_s


async def _by_agent(daemon: ContainerdProcess, bare: Bare, data_dir: Path) -> float:
    """Tell an agent to run them, and return the seconds from the word to the last start."""
    async with ScriptedServer().serve() as server, running_agent(await _options(daemon, server, data_dir)):
        taken_s = await _started(server, bare)
        await _withdrawn(server, bare)
    return taken_s


async def _crashed_and_adopted(daemon: ContainerdProcess, bare: Bare, data_dir: Path) -> tuple[list[float], float]:
    """Return for how many milliseconds each of some killed containers was down, and what an agent took to adopt all."""
    async with ScriptedServer().serve() as server:
        options = await _options(daemon, server, data_dir)
        async with running_agent(options):
            await _started(server, bare)
            downs_ms = [await _down_ms(server, bare, name) for name in _NAMES[:CRASHES]]
        before = {answer.status.id for answer in await bare.statuses() if _runs(answer)}
        server.statuses.clear()
        began_s = time.monotonic()
        async with running_agent(options):
            await server.until(lambda: _all_run(server), what="all are told again", within_s=DEADLINE_S)
            adopted_s = time.monotonic() - began_s
            if {answer.status.id for answer in await bare.statuses() if _runs(answer)} != before:
                raise RuntimeError("the new agent started or stopped containers")
            await _withdrawn(server, bare)
    return downs_ms, adopted_s


async def _started(server: ScriptedServer, bare: Bare) -> float:
    await server.until_hello(1)
    wanted = [assigned(name, network="host", command=["sleep", "100000"], resources={}) for name in _NAMES]
    began_s = time.time()
    await server.run(*wanted)
    await server.until(lambda: _all_run(server), what="all run", within_s=DEADLINE_S)
    return await bare.last_start_s() - began_s


async def _withdrawn(server: ScriptedServer, bare: Bare) -> None:
    await server.withdraw(*_NAMES)
    await wait_until(bare.count, DEADLINE_S, "all pods are removed", lambda count: count == 0)


async def _down_ms(server: ScriptedServer, bare: Bare, name: str) -> float:
    before = server.statuses[name].container_id
    old = await bare.call(CONTAINER_STATUS, pb.ContainerStatusRequest(container_id=before, verbose=True))
    os.kill(codec.pid_of(old.info), signal.SIGKILL)
    await server.until_phase(name, Phase.RUNNING, attempt=2)
    old = await bare.call(CONTAINER_STATUS, pb.ContainerStatusRequest(container_id=before))
    request = pb.ContainerStatusRequest(container_id=server.statuses[name].container_id)
    return ((await bare.call(CONTAINER_STATUS, request)).status.started_at - old.status.finished_at) / 1e6


async def _options(daemon: ContainerdProcess, server: ScriptedServer, data_dir: Path) -> AgentOptions:
    await asyncio.to_thread(data_dir.mkdir)
    return AgentOptions(
        servers=(server.url,),
        name="n1",
        data_dir=data_dir,
        driver="cri",
        cri_socket=str(daemon.socket),
        cpu_m=100_000,
        memory_bytes=64 << 30,
        pids=100_000,
        cgroup_parent=daemon.cgroup_parent,
    )


def _runs(answer: pb.ContainerStatusResponse) -> bool:
    return answer.status.state == pb.CONTAINER_RUNNING


def _all_run(server: ScriptedServer) -> bool:
    return all(name in server.statuses and server.statuses[name].phase is Phase.RUNNING for name in _NAMES)


def _spec(cgroup_parent: str) -> ContainerSpec:
    """Return what the agent makes of such a replica, labels and environment of the same size included."""
    labels = {f"wherry.{key}": secrets.token_hex(8) for key in ("cluster", "node", "allocation", "version", "attempt")}
    env = {f"WHERRY_{key}": "1" for key in ("ALLOCATION", "ATTEMPT", "INDEX", "NAMESPACE", "NODE", "VERSION")}
    return ContainerSpec(
        name=f"bare-{secrets.token_hex(6)}",
        image=IMAGE,
        command=("sleep", "100000"),
        args=(),
        env=env,
        labels={**labels, "wherry.seal": secrets.token_hex(32)},
        limits=Limits(cpu_m=DEFAULT_CPU_M, memory_bytes=DEFAULT_MEMORY_BYTES, pids=DEFAULT_PIDS),
        host_network=True,
        cgroup_parent=cgroup_parent,
    )


@asynccontextmanager
async def _bare(daemon: ContainerdProcess) -> AsyncIterator[Bare]:
    channel = grpc.aio.insecure_channel(f"unix:{daemon.socket}", options=(("grpc.default_authority", "localhost"),))
    async with channel:
        yield Bare(daemon, channel)
