"""The lab keeps its word about engines: who dies with what, who lives on, and that nothing stays behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.images import load_busybox
from tests.integration.test_lab import left_of
from tests.lab.cgroups import is_alive
from tests.lab.dockerd import RunContainer, containers, run_container, running
from tests.lab.etcd import start_etcd
from tests.lab.host import Host
from tests.lab.marks import ON_HOSTS
from tests.lab.network import Network, lab_network
from tests.lab.waiting import wait_until

pytestmark = [*ON_HOSTS]

SOON_S = 20.0
SLEEP = ("sleep", "1000")
MIB = 1024 * 1024


@asynccontextmanager
async def engines(*names: str) -> AsyncIterator[Network]:
    """Make hosts which each have an engine with the image and one container called `app`."""
    async with lab_network(names) as net:
        async with asyncio.TaskGroup() as tasks:
            for host in net.hosts:
                tasks.create_task(start_app(host), name=f"start-{host.name}")
        yield net


async def start_app(host: Host) -> None:
    await host.start_dockerd()
    await load_busybox(host.dockerd.socket)
    await run_container(host, "app", *SLEEP, labels={"host": host.name})


async def app(host: Host) -> RunContainer:
    (found,) = await containers(host)
    return found


@pytest.mark.docker
async def test_each_engine_sees_its_own_containers_only() -> None:
    async with engines("a", "b") as net:
        assert [dict(found.labels) for found in await running(net["a"])] == [{"host": "a"}]
        assert [dict(found.labels) for found in await running(net["b"])] == [{"host": "b"}]


@pytest.mark.docker
@pytest.mark.parametrize("politely", [True, False])
async def test_containers_outlive_a_restart_of_their_engine(politely: bool) -> None:
    async with engines("a") as net:
        before = await app(net["a"])
        await net["a"].dockerd.restart(politely=politely)
        assert await app(net["a"]) == before


@pytest.mark.docker
async def test_a_killed_host_takes_its_containers_along_and_no_others() -> None:
    async with engines("a", "b") as net:
        died, lived = await app(net["a"]), await app(net["b"])
        await net["a"].kill()
        assert not is_alive(died.pid)
        assert net["a"].cgroup.pids() == frozenset()
        assert await app(net["b"]) == lived


@pytest.mark.docker
async def test_a_rebooted_host_finds_its_containers_ended_and_can_start_them() -> None:
    async with engines("a") as net:
        before = await app(net["a"])
        await net["a"].reboot()
        await net["a"].start_dockerd()
        after = await app(net["a"])
        assert (after.id, after.state) == (before.id, "exited")
        await net["a"].dockerd.call("POST", f"/containers/{after.id}/start")
        assert (await app(net["a"])).is_running


@pytest.mark.docker
async def test_pausing_a_host_stops_its_containers_too() -> None:
    async with engines("a") as net:
        counter = await run_container(net["a"], "counter", "sh", "-c", "while :; do echo line; sleep 0.1; done")

        async def lines() -> int:
            text = await net["a"].dockerd.call("GET", f"/containers/{counter}/logs?stdout=1")
            return str(text).count("line")

        await wait_until(lines, SOON_S, "it counts")
        await net["a"].pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await lines()
        await net["a"].resume()
        counted = await lines()
        await wait_until(lines, SOON_S, "it counts on", lambda now: now > counted)


@pytest.mark.docker
async def test_the_memory_of_a_host_bounds_its_containers_together() -> None:
    async with lab_network(["a"]) as net:
        await net["a"].start_dockerd(memory_bytes=64 * MIB)
        await load_busybox(net["a"].dockerd.socket)
        await run_container(net["a"], "hog", "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1")
        ended = await wait_until(lambda: app(net["a"]), SOON_S, "it has ended", lambda found: not found.is_running)
        assert ended.exit_code == 137


@pytest.mark.docker
async def test_a_published_port_is_reached_from_the_test_and_from_another_host() -> None:
    async with engines("a", "b") as net:
        ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
        body = {
            "Image": "wherry/busybox:1",
            "Cmd": ["httpd", "-f"],
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": ports,
        }
        created = await net["a"].dockerd.call("POST", "/containers/create?name=web", body=body)
        await net["a"].dockerd.call("POST", f"/containers/{created['Id']}/start")

        async def answers() -> bytes:
            reader, writer = await asyncio.open_connection(net["a"].address, 8080)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return line

        assert b"404" in await wait_until(answers, SOON_S, "the test gets an answer")
        request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {net['a'].address} 8080"
        assert "404" in await net["b"].output("sh", "-c", request)


@pytest.mark.docker
async def test_nothing_is_left_of_engines_and_containers_when_a_test_fails() -> None:
    seen: list[Network] = []
    with pytest.raises(ZeroDivisionError):
        await fail_beside_containers(seen)
    assert left_of(seen[0]) == []


async def fail_beside_containers(seen: list[Network]) -> None:
    async with engines("a", "b") as net:
        seen.append(net)
        await net["a"].pause()
        await net["b"].dockerd.kill()
        raise ZeroDivisionError


@pytest.mark.etcd
async def test_etcd_outlives_one_member_and_gets_it_back() -> None:
    async with lab_network(["s1", "s2", "s3"]) as net:
        etcd = await start_etcd(net.hosts)
        await etcd["s1"].kill()
        await wait_until(etcd["s2"].is_healthy, SOON_S, "s2 serves without s1")
        await etcd["s1"].restart()
        await net["s3"].reboot()
        etcd["s3"].start()
        await etcd.await_healthy()


@pytest.mark.etcd
async def test_a_member_cut_off_from_the_others_says_that_it_cannot_serve() -> None:
    async with lab_network(["s1", "s2", "s3"]) as net:
        etcd = await start_etcd(net.hosts)
        await net.cut("s1", "s2")
        await net.cut("s1", "s3")
        await wait_until(etcd["s1"].is_healthy, SOON_S, "s1 says no", lambda healthy: not healthy)
        await net["s1"].heal()
        await etcd.await_healthy()
