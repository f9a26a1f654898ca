"""onDisconnect.stopAfter with a real dockerd: what may not run without word ends, whoever is dead, frozen or away."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.driver import Container, ContainerState
from agent.drivers.docker import DockerDriver
from agent.guard import LEASES
from agent.guard_process import FOLDER
from agent.ownership import ALLOCATION, CONTAINER, NODE
from agent.tracked import SANDBOX
from manifests.allocations import Desired, Phase
from manifests.session import Assigned
from tests.agents import agent_process
from tests.dockerd import DockerdProcess
from tests.lab.waiting import hold_for, wait_until
from tests.scripted_server import IMAGE, ScriptedServer, assigned, grouped

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
STOP_AFTER_S, GRACE_S = 3.0, 1.0
UPGRADE_S = 12.0  # an agent's start takes a while on a busy machine
DEAD_S = STOP_AFTER_S + GRACE_S + 2.0  # the margin that the leader leaves
HEEDS_TERM = ["sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.05; done"]
IGNORES_TERM = [
    "sh",
    "-c",
    "trap '' TERM; (trap '' TERM; while true; do sleep 0.1; done) & while true; do sleep 0.1; done",
]


@pytest.fixture
def arguments(daemon: DockerdProcess, server: ScriptedServer, tmp_path: Path) -> Iterator[tuple[Path, Path, str, str]]:
    yield tmp_path / "agent", daemon.socket, f"{daemon.cgroup_parent}/{tmp_path.name[-20:]}", server.url
    (tmp_path / "agent" / FOLDER / LEASES).unlink(missing_ok=True)  # then the guard has nothing to wait for


def once(allocation: str, *, stop_after_s: float = STOP_AFTER_S, **spec: Any) -> Assigned:
    """Return an allocation that may run only while its node is heard."""
    words = {"command": IGNORES_TERM, "stop": {"grace": f"{GRACE_S:g}s"}, **spec}
    return assigned(allocation, onDisconnect={"stopAfter": f"{stop_after_s:g}s"}, **words)


async def pids(driver: DockerDriver, allocation: str) -> tuple[int, ...]:
    """Return the process that each running container of the allocation began with, as the manager knows it."""
    found = await driver.list_containers({NODE: "n1", ALLOCATION: allocation})
    return tuple(container.pid for container in found if container.state is ContainerState.RUNNING)


def cgroup_of(pid: int) -> Path:
    """Return where the processes of its container are listed."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    path = next(line.split(":")[2] for line in lines if ":pids:" in line or line.startswith("0::/"))
    return next(p for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if p.exists()) / path.lstrip("/")


def processes_in(cgroup: Path) -> int:
    try:
        return len((cgroup / "cgroup.procs").read_text().split())
    except FileNotFoundError:
        return 0


async def running_in(driver: DockerDriver, allocation: str) -> Path:
    (pid,) = await pids(driver, allocation)
    cgroup = cgroup_of(pid)
    assert processes_in(cgroup) >= 1
    return cgroup


async def until_dead(cgroup: Path, within_s: float = DEAD_S) -> None:
    async def count() -> int:
        return processes_in(cgroup)

    await wait_until(count, within_s, f"nothing runs in {cgroup}", lambda found: found == 0)


async def test_a_frozen_agents_containers_are_killed_and_it_asks_before_it_starts_them_again(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(once("a-0-a"), once("b-0-a"), assigned("free-0-a"))
        for name in ("a-0-a", "b-0-a", "free-0-a"):
            await server.until_phase(name, Phase.RUNNING)
        cgroups = [await running_in(driver, name) for name in ("a-0-a", "b-0-a")]
        free = await pids(driver, "free-0-a")
        agent.send_signal(signal.SIGSTOP)
        await server.drop()  # as a server does when a node is lost
        try:
            for cgroup in cgroups:
                await until_dead(cgroup)
            server.holds_assignments = True
        finally:
            agent.send_signal(signal.SIGCONT)
        await server.until_hello(2)  # it was silent for so long that its session is over

        async def ran() -> tuple[int, ...]:
            return await pids(driver, "a-0-a") + await pids(driver, "b-0-a")

        await hold_for(ran, 2.0, "nothing starts without the server's word", lambda found: not found)
        server.desired["b-0-a"] = stopped(server.desired["b-0-a"])
        server.holds_assignments = False
        await server.send_all()
        status = await server.until_phase("a-0-a", Phase.RUNNING, attempt=2)
        other = await server.until_phase("b-0-a", Phase.STOPPED)
        assert await pids(driver, "free-0-a") == free
    assert status.last_ending is not None
    assert status.last_ending.reason == "disconnected"
    assert "stopAfter" in status.last_ending.message
    assert other.attempt == 1


def stopped(wanted: Assigned) -> Assigned:
    allocation = wanted.allocation.model_copy(update={"desired": Desired.STOP, "stop_reason": "its node was lost"})
    return wanted.model_copy(update={"allocation": allocation})


async def test_a_killed_agents_containers_are_killed_as_well(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(once("a-0-a"), assigned("free-0-a"))
        await server.until_phase("a-0-a", Phase.RUNNING)
        await server.until_phase("free-0-a", Phase.RUNNING)
        cgroup, free = await running_in(driver, "a-0-a"), await pids(driver, "free-0-a")
        await until_saved(arguments[0])  # without its record the next agent can't tell why it ended
        agent.kill()
        await agent.wait()
        await until_dead(cgroup)
        assert await pids(driver, "free-0-a") == free
    async with agent_process(*arguments):
        status = await server.until_phase("a-0-a", Phase.RUNNING, attempt=2)
        assert status.last_ending is not None
        assert status.last_ending.reason == "disconnected"


async def until_saved(data_dir: Path) -> None:
    async def state() -> str:
        return await asyncio.to_thread((data_dir / "state.json").read_text)

    await wait_until(state, 10, "the state file has both as running", lambda text: text.count('"phase":"running"') == 2)


async def test_a_dead_container_manager_keeps_nothing_alive(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str], daemon: DockerdProcess
) -> None:
    async with agent_process(*arguments):
        await server.until_hello(1)
        await server.run(once("a-0-a"))
        await server.until_phase("a-0-a", Phase.RUNNING)
        cgroup = await running_in(driver, "a-0-a")
        await asyncio.to_thread(daemon.kill)
        try:
            await server.cut_off()
            await until_dead(cgroup)
            server.is_unwelcoming = False
        finally:
            await asyncio.to_thread(daemon.start)
        await server.until_phase("a-0-a", Phase.RUNNING, attempt=2, within_s=60)


async def test_a_hung_container_manager_keeps_nothing_alive(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str], daemon: DockerdProcess
) -> None:
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(once("a-0-a"))
        await server.until_phase("a-0-a", Phase.RUNNING)
        cgroup = await running_in(driver, "a-0-a")
        daemon.pause()
        try:
            agent.send_signal(signal.SIGSTOP)
            await until_dead(cgroup)
        finally:
            daemon.resume()
            agent.send_signal(signal.SIGCONT)
        await server.until_phase("a-0-a", Phase.RUNNING, attempt=2, within_s=60)


async def test_without_word_a_living_agent_stops_it_by_its_signal_and_leaves_all_else(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments):
        await server.until_hello(1)
        await server.run(once("a-0-a", command=HEEDS_TERM, stop={"grace": "20s"}), assigned("free-0-a"))
        await server.until_phase("a-0-a", Phase.RUNNING)
        await server.until_phase("free-0-a", Phase.RUNNING)
        cgroup, free = await running_in(driver, "a-0-a"), await pids(driver, "free-0-a")
        await server.cut_off()
        await until_dead(cgroup)
        assert await pids(driver, "free-0-a") == free
        server.is_unwelcoming = False
        status = await server.until_phase("a-0-a", Phase.RUNNING, attempt=2)
    assert status.last_ending is not None
    assert (status.last_ending.reason, status.last_ending.exit_code) == ("disconnected", 7)


async def test_an_agents_upgrade_within_the_time_restarts_nothing_and_stays_guarded(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(once("a-0-a", stop_after_s=UPGRADE_S))
        await server.until_phase("a-0-a", Phase.RUNNING)
        before = await pids(driver, "a-0-a")
        agent.terminate()
        await agent.wait()
    async with agent_process(*arguments) as agent:
        await server.until_hello(2)
        await server.until_phase("a-0-a", Phase.RUNNING)
        assert await pids(driver, "a-0-a") == before
        await hold_for(
            lambda: pids(driver, "a-0-a"), UPGRADE_S + GRACE_S, "it runs while there is word", lambda p: p == before
        )
        cgroup = await running_in(driver, "a-0-a")
        agent.kill()
        await agent.wait()
        await until_dead(cgroup, UPGRADE_S + GRACE_S + 2.0)


async def test_what_succeeded_while_its_agent_was_frozen_has_succeeded(
    server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(once("job-0-a", kind="Job", command=["sleep", "2"]))
        await server.until_phase("job-0-a", Phase.RUNNING)
        agent.send_signal(signal.SIGSTOP)
        await asyncio.sleep(DEAD_S)
        agent.send_signal(signal.SIGCONT)
        status = await server.until_phase("job-0-a", Phase.SUCCEEDED)
    assert status.attempt == 1


async def test_each_container_knows_its_fencing_number(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    async with agent_process(*arguments):
        await server.until_hello(1)
        await server.run(assigned("a-0-a").model_copy(update={"fence": 4711}))
        await server.until_phase("a-0-a", Phase.RUNNING)
        (pid,) = await pids(driver, "a-0-a")
        assert b"WHERRY_FENCE=4711" in environment_of(pid)


def environment_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


async def test_all_of_a_group_ends_and_begins_again_together(
    driver: DockerDriver, server: ScriptedServer, arguments: tuple[Path, Path, str, str]
) -> None:
    size = {"resources": {"cpu": "200m", "memory": "16Mi"}, "stop": {"grace": f"{GRACE_S:g}s"}}
    boxes = [
        {"name": name, "image": IMAGE, "command": IGNORES_TERM, **size, "sidecar": name == "proxy"}
        for name in ("app", "proxy")
    ]
    policy = {"stopAfter": f"{STOP_AFTER_S:g}s"}
    async with agent_process(*arguments) as agent:
        await server.until_hello(1)
        await server.run(grouped(*boxes, onDisconnect=policy))
        await server.until_phase("web-0-a", Phase.RUNNING)
        before = await members_of(driver)
        assert set(before) == {"app", "proxy"}
        cgroups = [cgroup_of(container.pid) for container in before.values()]
        agent.send_signal(signal.SIGSTOP)
        await server.drop()
        try:
            for cgroup in cgroups:
                await until_dead(cgroup)
        finally:
            agent.send_signal(signal.SIGCONT)
        await server.until(
            lambda: server.statuses["web-0-a"].phase is Phase.RUNNING and server.statuses["web-0-a"].attempt > 1,
            what="the group runs again",
        )
        after = await members_of(driver)
    assert set(after) == {"app", "proxy"}
    assert not {c.id for c in after.values()} & {c.id for c in before.values()}
    ending = server.statuses["web-0-a"].last_ending
    assert ending is not None
    assert ending.reason == "disconnected"


async def members_of(driver: DockerDriver) -> dict[str, Container]:
    """Return the containers of the group that run, by name, without its sandbox."""
    found = await driver.list_containers({NODE: "n1"})
    running = (c for c in found if c.state is ContainerState.RUNNING)
    return {c.labels[CONTAINER]: c for c in running if c.labels[CONTAINER] != SANDBOX}
