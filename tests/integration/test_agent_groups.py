"""Groups of containers with a real dockerd: one network, the order of starts and ends, restarts, a lost sandbox."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.driver import Container
from agent.drivers.docker import DockerDriver
from agent.options import AgentOptions
from agent.ownership import CONTAINER, NODE
from agent.tracked import SANDBOX
from manifests.allocations import HostPort, Phase
from tests.agents import agent_process
from tests.dockerd import DockerdProcess
from tests.integration.test_agent import QUICK, running
from tests.lab.waiting import wait_until
from tests.scripted_server import IMAGE, ScriptedServer, assigned, grouped

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
SIZE = {"resources": {"cpu": "200m", "memory": "16Mi"}}
READY = {"readiness": {"exec": {"command": ["test", "-f", "/tmp/ok"]}, **QUICK}}
HEEDS_TERM = "trap 'echo ends; exit 0' TERM; while :; do sleep 0.05; done"


def box(name: str, script: str, **given: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **SIZE, **given}


async def now(driver: DockerDriver) -> Mapping[str, Container]:
    """Return the newest container of each name."""
    found = await driver.list_containers({NODE: "n1"})
    return {c.labels[CONTAINER]: c for c in sorted(found, key=lambda c: int(c.labels["wherry.attempt"]))}


async def test_a_group_shares_its_network_and_each_of_it_restarts_alone(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    app = box(
        "app",
        "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp",
        health={"readiness": {"http": {"port": 8080, "path": "/index.html"}, **QUICK}},
    )
    ask = box(
        "ask",
        "until nc -w 1 127.0.0.1 8080 < /dev/null; do sleep 0.1; done; echo seen; touch /tmp/ok; exec sleep 1000",
        health=READY,
    )
    async with running(options, server):
        await server.run(grouped(app, ask, ports=(HostPort(name="main", container=8080, host=18110),)))
        await server.until_ready("web-0-a")
        status, before = server.statuses["web-0-a"], await now(driver)
        assert set(before) == {SANDBOX, "app", "ask"}
        assert [(c.name, c.phase) for c in status.containers] == [("app", Phase.RUNNING), ("ask", Phase.RUNNING)]
        assert status.address == before[SANDBOX].address
        os.kill(before["ask"].pid, signal.SIGKILL)
        await server.until(lambda: server.statuses["web-0-a"].attempt == 2, what="ask runs again")
        await server.until_ready("web-0-a")
        after = await now(driver)
        await server.open_logs(1, "web-0-a", container="ask")
        await server.open_logs(2, "web-0-a")
        await server.until(lambda: {1, 2} <= server.logs_ended.keys(), what="the ends of two streams")
    assert (after["app"].pid, after[SANDBOX].pid) == (before["app"].pid, before[SANDBOX].pid)
    assert after["ask"].id != before["ask"].id
    ending = server.statuses["web-0-a"].last_ending
    assert ending is not None
    assert (ending.container, ending.exit_code) == ("ask", 137)
    assert server.logs[1] == b"seen\n"
    assert "2 containers: name one of app, ask" in server.logs_ended[2]


async def test_sidecars_and_init_containers_come_first_and_sidecars_end_last(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    log = box("log", f"touch /tmp/ok; {HEEDS_TERM}", sidecar=True, health=READY)
    async with running(options, server):
        await server.run(grouped(box("app", HEEDS_TERM), log, inits=(box("copy", "echo copied"),)))
        await server.until_ready("web-0-a")
        found = await now(driver)
        order = sorted(found, key=lambda name: found[name].started_s)
        assert order == [SANDBOX, "log", "copy", "app"]
        await server.stop_allocation("web-0-a")
        await server.until_phase("web-0-a", Phase.STOPPED)
        found = await now(driver)
        assert found["app"].finished_s <= found["log"].finished_s <= found[SANDBOX].finished_s
        await server.withdraw("web-0-a")
        await server.until_forgotten("web-0-a")
        assert await now(driver) == {}


async def test_a_job_succeeds_without_waiting_for_its_sidecars(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(grouped(box("work", "sleep 0.5"), box("log", HEEDS_TERM, sidecar=True), kind="Job"))
        status = await server.until_phase("web-0-a", Phase.SUCCEEDED)
        assert {c.name: c.phase for c in status.containers} == {"work": Phase.SUCCEEDED, "log": Phase.STOPPED}
        assert all(container.pid == 0 for container in (await now(driver)).values())


async def test_a_lost_sandbox_starts_all_anew_and_an_agents_end_nothing(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions, daemon: DockerdProcess
) -> None:
    wanted = grouped(box("app", HEEDS_TERM), inits=(box("copy", "echo copied"),))
    arguments = (options.data_dir, daemon.socket, options.cgroup_parent or "", server.url)
    async with agent_process(*arguments) as process:
        await server.run(wanted)
        await server.until_phase("web-0-a", Phase.RUNNING)
        first = await now(driver)
        os.kill(first[SANDBOX].pid, signal.SIGKILL)
        await server.until(lambda: server.statuses["web-0-a"].attempt == 4, what="all three were started anew")
        await server.until_phase("web-0-a", Phase.RUNNING)
        second = await now(driver)
        process.kill()
        await process.wait()
    assert {name: c.labels["wherry.attempt"] for name, c in second.items()} == {SANDBOX: "2", "copy": "2", "app": "2"}
    assert second["app"].network_of == second[SANDBOX].id
    assert any(s.last_ending and s.last_ending.reason == "sandboxLost" for s in server.history)
    (options.data_dir / "state.json").unlink()
    async with agent_process(*arguments):
        hello = await server.until_hello(2)
        await server.until_phase("web-0-a", Phase.RUNNING)
        await wait_until(lambda: now(driver), 20, "the same run", lambda found: found == second)
    assert hello.statuses == ()


async def test_configs_are_files_and_variables_and_go_with_their_allocation(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    script = 'cat /etc/site.conf; echo "$MODE"; (echo x > /etc/site.conf) 2> /tmp/no || echo read only; exec sleep 1000'
    mounts = [{"name": "site", "path": "/etc/site.conf"}, {"name": "mode", "env": "MODE"}]
    wanted = assigned(
        "web-0-a", command=["sh", "-c", script], configs=mounts, content={"site": "listen 80\n", "mode": "fast"}
    )
    folder = options.data_dir / "configs"
    async with running(options, server):
        await server.run(wanted)
        await server.until_phase("web-0-a", Phase.RUNNING)
        assert await _names(folder) == ["web-0-a"]
    server.desired["web-0-a"] = wanted.model_copy(update={"configs": {}})  # the agent's own memory is enough
    async with running(options, server):
        await server.until_phase("web-0-a", Phase.RUNNING)
        os.kill((await now(driver))["main"].pid, signal.SIGKILL)
        await server.until_phase("web-0-a", Phase.RUNNING, attempt=2)
        await server.open_logs(1, "web-0-a", follow=True)
        await server.until(lambda: b"read only" in server.logs[1], what="what it was given")
        await server.withdraw("web-0-a")
        await server.until_forgotten("web-0-a")
        await wait_until(lambda: _names(folder), 10, "its files are gone", lambda names: names == [])
    assert server.logs[1].decode() == "listen 80\nfast\nread only\n"


async def _names(folder: Path) -> list[str]:
    return await asyncio.to_thread(os.listdir, folder)


async def test_a_crash_loop_tells_its_count_its_next_attempt_and_its_last_lines(
    server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a", command=["sh", "-c", "echo out of luck; exit 7"]))
        await server.until(lambda: is_looping(server), what="a crash loop that says why")
    status = server.statuses["web-0-a"]
    assert status.next_attempt_s is not None
    assert status.last_ending is not None
    assert (status.last_ending.exit_code, status.last_ending.log_tail) == (7, ("out of luck",))


def is_looping(server: ScriptedServer) -> bool:
    status = server.statuses.get("web-0-a")
    return status is not None and status.is_crash_looping and bool(status.last_ending and status.last_ending.log_tail)


async def test_what_a_group_cannot_publish_or_pull_fails_it_with_words_that_help(
    server: ScriptedServer, options: AgentOptions
) -> None:
    once = {"attempts": 0}
    async with running(options, server):
        await server.run(grouped(box("app", HEEDS_TERM), box("bad", "x", image="127.0.0.1:1/no/such:1", restart=once)))
        status = await server.until_phase("web-0-a", Phase.FAILED)
    assert status.last_ending is not None
    assert (status.last_ending.container, status.last_ending.reason) == ("bad", "imageFailed")
    assert status.message.startswith("container bad: ")
