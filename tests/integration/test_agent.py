"""An agent with a real dockerd, told by a scripted server what to run."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from agent.driver import ContainerId
from agent.drivers.docker import DockerDriver
from agent.options import AgentOptions
from agent.ownership import NODE
from agent.session import UNHEARD_S
from manifests.allocations import Health, HostPort, Phase
from tests.agents import agent_process, running_agent
from tests.dockerd import DockerdProcess
from tests.lab.waiting import wait_until
from tests.scripted_server import ScriptedServer, assigned

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
IGNORES_TERM = ["sh", "-c", "trap '' TERM; touch /tmp/ok; while true; do sleep 0.1; done"]
HEEDS_TERM = ["sh", "-c", "trap 'exit 7' TERM; touch /tmp/ok; while true; do sleep 0.05; done"]
QUICK = {"interval": "200ms", "failures": 2, "timeout": "2s"}
OK_FILE = {"readiness": {"exec": {"command": ["test", "-f", "/tmp/ok"]}, **QUICK}}


@asynccontextmanager
async def running(options: AgentOptions, server: ScriptedServer) -> AsyncIterator[None]:
    count = len(server.hellos)
    async with running_agent(options):
        await server.until_hello(count + 1)
        yield


async def ids(driver: DockerDriver) -> dict[str, int]:
    """Return the running containers' ids and pids."""
    found = await driver.list_containers({NODE: "n1"})
    return {container.id: container.pid for container in found if container.pid}


async def test_five_run_and_one_that_crashes_runs_again_at_once(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        names = [f"web-{n}-a" for n in range(5)]
        await server.run(*(assigned(name) for name in names))
        for name in names:
            await server.until_phase(name, Phase.RUNNING)
        before = await ids(driver)
        assert len(before) == 5
        victim = await driver.inspect(ContainerId(server.statuses["web-2-a"].container_id))
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        status = await server.until_phase("web-2-a", Phase.RUNNING, attempt=2)
        ended = await driver.inspect(victim.id)
    assert ended is not None
    assert ended.finished_s > 0
    assert status.started_s is not None
    gap_s = status.started_s - ended.finished_s
    print(f"running again {gap_s * 1000:.0f} ms after its end")
    assert gap_s < 5  # it waits for no backoff; `script/bench crash` holds it to 1 s
    assert len((await ids(driver)).keys() & before.keys()) == 4


async def test_a_killed_agent_leaves_its_containers_and_the_next_one_adopts_them(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions, daemon: DockerdProcess
) -> None:
    names = [f"web-{n}-a" for n in range(3)]
    arguments = (options.data_dir, daemon.socket, options.cgroup_parent or "", server.url)
    async with agent_process(*arguments) as process:
        await server.until_hello(1)
        await server.run(*(assigned(name) for name in names), assigned("job-0-a", kind="Job", command=["true"]))
        for name in names:
            await server.until_phase(name, Phase.RUNNING)
        await server.until_phase("job-0-a", Phase.SUCCEEDED)
        before = await ids(driver)
        process.kill()
        await process.wait()
    assert await ids(driver) == before
    async with agent_process(*arguments) as process:
        hello = await server.until_hello(2)
        assert {status.id: status.phase for status in hello.statuses} == {
            **dict.fromkeys(names, Phase.RUNNING),
            "job-0-a": Phase.SUCCEEDED,
        }
        await server.run(assigned("web-3-a"))
        await server.until_phase("web-3-a", Phase.RUNNING)
        process.terminate()
        assert await process.wait() == 0
    after = await ids(driver)
    assert before.items() <= after.items()
    assert len(after) == 4


async def in_another_boot(driver: DockerDriver, server: ScriptedServer, options: AgentOptions) -> None:
    """Leave what an agent finds after its machine was started anew: its state, and of its container nothing."""
    async with running(options, server):
        await server.run(assigned("web-0-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
    (container,) = await driver.list_containers({NODE: "n1"})
    await driver.remove(container.id)
    state = options.data_dir / "state.json"
    state.write_text(re.sub('"bootId":"[^"]*"', '"bootId":"an older one"', state.read_text()))


async def test_a_clone_of_a_machine_starts_nothing_while_it_is_refused(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    await in_another_boot(driver, server, options)
    server.is_refusing = True
    async with running_agent(options):
        await server.until_refused(4)
        assert await driver.list_containers({NODE: "n1"}) == []
        server.is_refusing = False
        await server.until_phase("web-0-a", Phase.RUNNING, attempt=2)


async def test_after_a_power_cut_that_took_the_servers_too_what_ran_starts_without_a_word(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    await in_another_boot(driver, server, options)
    server.is_unwelcoming = True
    async with running_agent(options):
        await wait_until(lambda: ids(driver), UNHEARD_S + 20, "it runs again")


async def test_without_its_state_file_an_agent_still_adopts_what_runs(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
    before = await ids(driver)
    (options.data_dir / "state.json").write_text("{half a fi")
    server.statuses.clear()
    async with running(options, server):
        status = await server.until_phase("web-0-a", Phase.RUNNING)
    assert (status.attempt, status.container_id) == (1, next(iter(before)))
    assert await ids(driver) == before
    assert list(options.data_dir.glob("state.json.damaged-*"))


async def test_what_is_not_desired_any_more_ends_once_the_server_has_said_so(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(
            assigned("web-0-a", command=HEEDS_TERM, health=OK_FILE),
            assigned("web-1-a", command=HEEDS_TERM, health=OK_FILE),
        )
        await server.until_ready("web-0-a")
        await server.until_ready("web-1-a")
    (options.data_dir / "state.json").unlink()
    del server.desired["web-0-a"]
    server.revision += 1
    async with running(options, server):
        await until(lambda: count_of(driver), 1)
        await server.withdraw("web-1-a")
        await server.until_forgotten("web-1-a")
        assert not await driver.list_containers({NODE: "n1"})


async def test_a_stop_is_graceful_and_ends_in_sigkill_after_the_grace(
    server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(
            assigned("heeds-0-a", command=HEEDS_TERM, health=OK_FILE, stop={"grace": "20s"}),
            assigned("ignores-0-a", command=IGNORES_TERM, health=OK_FILE, stop={"grace": "1s"}),
        )
        for name in ("heeds-0-a", "ignores-0-a"):
            await server.until_ready(name)
            await server.stop_allocation(name)
        heeds = await server.until_phase("heeds-0-a", Phase.STOPPED)
        ignores = await server.until_phase("ignores-0-a", Phase.STOPPED)
        assert heeds.last_ending is not None
        assert heeds.last_ending.exit_code == 7
        assert ignores.last_ending is not None
        assert ignores.last_ending.exit_code == 137
        phases = [status.phase for status in server.history if status.id == "heeds-0-a"]
        assert phases[-2:] == [Phase.STOPPING, Phase.STOPPED]
        await server.withdraw("heeds-0-a", "ignores-0-a")
        await server.until_forgotten("heeds-0-a")
        await server.until_forgotten("ignores-0-a")


async def test_memory_beyond_the_limit_is_reported_with_what_to_change(
    server: ScriptedServer, options: AgentOptions
) -> None:
    hungry = assigned("big-0-a", kind="Job", command=["sh", "-c", "tail /dev/zero"], restart={"policy": "never"})
    async with running(options, server):
        await server.run(hungry)
        status = await server.until_phase("big-0-a", Phase.FAILED)
    assert status.last_ending is not None
    # containerd 1.6 may lose the event; the message must lead to the limit all the same.
    assert (status.last_ending.reason, status.last_ending.exit_code) in {("oomKilled", 137), ("exited", 137)}
    assert "16Mi" in status.message
    assert "limits.memory" in status.message


async def test_checks_by_exec_http_and_tcp_make_ready_and_restart(
    server: ScriptedServer, options: AgentOptions
) -> None:
    httpd = ["sh", "-c", "echo fine > /tmp/ok; exec httpd -f -p 8080 -h /tmp"]
    no_luck = ["sh", "-c", "echo no luck; false"]
    async with running(options, server):
        await server.run(
            assigned("http-0-a", command=httpd, health=readiness(http={"port": 8080, "path": "/ok"})),
            assigned("bad-0-a", command=httpd, health=readiness(http={"port": 8080, "path": "/none"})),
            assigned("tcp-0-a", command=httpd, health=readiness(tcp={"port": 8080})),
            assigned("exec-0-a", command=httpd, health=OK_FILE),
            assigned("hung-0-a", health={"liveness": {"exec": {"command": no_luck}, **QUICK}}, stop={"grace": "1s"}),
        )
        for name in ("http-0-a", "tcp-0-a", "exec-0-a"):
            await server.until_ready(name)
        await server.until(lambda: server.statuses["bad-0-a"].health is Health.UNHEALTHY, what="bad-0-a is unhealthy")
        status = await server.until_phase("hung-0-a", Phase.RUNNING, attempt=2)
        assert status.last_ending is not None
        assert status.last_ending.reason == "unhealthy"
        assert "no luck" in status.last_ending.message


async def test_a_taken_port_and_a_missing_image_fail_with_words_that_help(
    server: ScriptedServer, options: AgentOptions
) -> None:
    once = {"attempts": 1, "backoff": "100ms"}
    taken = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken, running(options, server):
        await server.run(
            assigned("port-0-a", ports=(HostPort(name="main", container=80, host=port),), restart=once),
            assigned("image-0-a", image="127.0.0.1:1/no/such:1", restart=once),
            assigned("command-0-a", command=["no-such-program"], restart=once),
        )
        endings = {
            name: (await server.until_phase(name, Phase.FAILED)).last_ending
            for name in ("port-0-a", "image-0-a", "command-0-a")
        }
    reasons = {name: ending.reason for name, ending in endings.items() if ending}
    assert reasons == {"port-0-a": "startFailed", "image-0-a": "imageFailed", "command-0-a": "startFailed"}
    assert endings["port-0-a"] is not None
    assert str(port) in endings["port-0-a"].message


async def test_what_the_node_cannot_hold_is_refused(server: ScriptedServer, options: AgentOptions) -> None:
    port = (HostPort(name="main", container=80, host=18080),)
    async with running(options, server):
        await server.run(
            assigned("big-0-a", resources={"cpu": "5"}, created_s=1.0),
            assigned("first-0-a", ports=port, created_s=2.0),
            assigned("second-0-a", ports=port, created_s=3.0),
        )
        big = await server.until_phase("big-0-a", Phase.FAILED)
        second = await server.until_phase("second-0-a", Phase.FAILED)
        await server.until_phase("first-0-a", Phase.RUNNING)
    assert "it needs 5 cpu, and 4 is free" in big.message
    assert "host port 18080 is held by first-0-a" in second.message
    assert second.last_ending is not None
    assert second.last_ending.reason == "refused"


async def test_a_restarted_and_a_hung_dockerd_harm_nothing(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions, daemon: DockerdProcess
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
        before = await ids(driver)
        await asyncio.to_thread(daemon.restart)
        await server.run(assigned("web-1-a"))
        await server.until_phase("web-1-a", Phase.RUNNING)
        daemon.pause()
        try:
            await server.run(assigned("web-2-a"))
            await server.until(
                lambda: "answer" in getattr(server.statuses.get("web-2-a"), "message", ""), what="the hang is reported"
            )
            await server.until(
                lambda: any("answer" in r.trouble for r in server.reports), what="the node says what its trouble is"
            )
        finally:
            daemon.resume()
        await server.until_phase("web-2-a", Phase.RUNNING)
        await server.until(lambda: server.reports[-1].trouble == "", what="the node says that it is well again")
    after = await ids(driver)
    assert before.items() <= after.items()
    assert {status.phase for status in server.history} <= {
        *(Phase.PENDING, Phase.PULLING, Phase.STARTING, Phase.RUNNING),
    }


async def test_a_lost_session_stops_nothing_and_crashes_are_mended_without_one(
    driver: DockerDriver, options: AgentOptions
) -> None:
    server = ScriptedServer(heartbeat_s=0.2)
    async with server.serve():
        options = replace(options, servers=(server.url,))
        agent = running_agent(options)
        await agent.__aenter__()
        await server.run(assigned("web-0-a"), assigned("web-1-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
        await server.until_phase("web-1-a", Phase.RUNNING)
        before = await ids(driver)
    try:
        os.kill(next(iter(before.values())), signal.SIGKILL)
        await until(lambda: count_of(driver), 1)
        await until(lambda: count_of(driver), 2)
        async with server.serve():
            count = len(server.hellos)
            await server.until_hello(count + 1)
            server.is_deaf = True  # one direction is cut: the agent must notice by itself
            await server.until_hello(count + 2)
        assert len((await ids(driver)).keys() & before.keys()) == 1
    finally:
        await agent.__aexit__(None, None, None)


async def test_an_agent_does_not_obey_another_cluster(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
    async with (
        ScriptedServer(cluster="another").serve() as other,
        running_agent(replace(options, servers=(other.url,))),
    ):
        await other.until_hello(3)  # it comes back again and again, and obeys none of the full, empty assignments
        assert other.hellos[-1].cluster == server.cluster
        assert await count_of(driver) == 1


async def test_a_restore_stops_nothing_and_what_is_kept_goes_when_it_is_withdrawn(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a"), assigned("web-1-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
        await server.until_phase("web-1-a", Phase.RUNNING)
        before = await ids(driver)
        await server.restore(assigned("web-0-a"))
        await server.until(lambda: any([a.id for a in report.kept] == ["web-1-a"] for report in server.reports))
        assert await ids(driver) == before
    async with running(options, server):  # it is kept over a restart of the agent, too
        assert [a.id for a in server.hellos[-1].kept] == ["web-1-a"]
        assert await ids(driver) == before
        await server.withdraw("web-1-a")
        await until(lambda: count_of(driver), 1)


async def test_an_agent_obeys_no_server_of_an_older_generation(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        await server.run(assigned("web-0-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
        await server.restore(assigned("web-0-a"))
        await server.until_hello(len(server.hellos) + 1)
        server.generation = 1
        server.desired.clear()
        await server.drop()
        await server.until_hello(len(server.hellos) + 2)
        assert await count_of(driver) == 1


async def test_logs_are_streamed_and_followed(server: ScriptedServer, options: AgentOptions) -> None:
    chatty = ["sh", "-c", "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.05; done"]
    async with running(options, server):
        await server.run(assigned("web-0-a", command=chatty), assigned("job-0-a", kind="Job", command=["echo", "done"]))
        await server.until_phase("web-0-a", Phase.RUNNING)
        await server.until_phase("job-0-a", Phase.SUCCEEDED)
        await server.open_logs(1, "web-0-a", follow=True)
        await server.open_logs(2, "job-0-a")
        await server.open_logs(3, "none-0-a")
        await server.until(lambda: server.logs[1].count(b"\n") > 20, what="20 lines")
        await server.until(lambda: {2, 3} <= server.logs_ended.keys(), what="the ends of two streams")
        await server.close_stream(1)
    assert server.logs[1].startswith(b"line 1\nline 2\n")
    assert server.logs[2] == b"done\n"
    assert server.logs_ended[2] == ""
    assert "not on this node" in server.logs_ended[3]


def readiness(**check: object) -> dict[str, object]:
    return {"readiness": {**check, **QUICK}}


async def count_of(driver: DockerDriver) -> int:
    return len(await ids(driver))


async def until(read: Callable[[], Awaitable[int]], wanted: int) -> None:
    await wait_until(read, 20, f"{wanted} containers run", lambda found: found == wanted)
