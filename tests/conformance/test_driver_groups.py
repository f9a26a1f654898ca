"""What every Driver promises of containers that share one network, and of files that they are given."""

import asyncio
from pathlib import Path

import pytest

from agent.driver import SANDBOX_IMAGE, ContainerId, ContainerSpec, ContainerState, Driver, Mount, PublishedPort
from manifests.containers import PullPolicy
from manifests.errors import UnavailableError, WherryError
from tests.conformance.driver_lab import (
    DriverLab,
    ended,
    look,
    process_status,
    run,
    say,
    shell,
    until,
)
from tests.conformance.test_driver import FOREVER, read, text

pytestmark = pytest.mark.docker
ANSWER = "echo in > /tmp/x; nc -ll -p 80 -e echo hello"


def sandbox(**changes: object) -> ContainerSpec:
    return shell("", command=(), image=SANDBOX_IMAGE, host_network=False, **changes)


async def made_sandbox(driver: Driver, **changes: object) -> ContainerId:
    await driver.ensure_image(SANDBOX_IMAGE, PullPolicy.NEVER)
    return await run(driver, sandbox(**changes))


def member(script: str, of: ContainerId, **changes: object) -> ContainerSpec:
    return shell(script, host_network=False, network_of=of, hostname="ignored", **changes)


async def test_the_sandbox_needs_no_registry_and_takes_next_to_nothing(driver: Driver) -> None:
    container = await made_sandbox(driver)
    found = await look(driver, container)
    assert found.state is ContainerState.RUNNING
    await until(lambda: int(process_status(found.pid)["VmRSS"].split()[0]) < 100)  # KiB, once runc has become it
    assert process_status(found.pid)["Threads"] == "1"


async def test_containers_of_one_sandbox_share_its_address_ports_and_localhost(driver: Driver, lab: DriverLab) -> None:
    port = PublishedPort(container_port=80, host_port=18090, host_address="127.0.0.1")
    of = await made_sandbox(driver, ports=(port,), hostname="web-0")
    server = await run(driver, member(ANSWER, of))
    client = await run(driver, member("until nc -w 1 127.0.0.1 80; do sleep 0.1; done; hostname", of))
    assert (await ended(driver, client)).exit_code == 0
    assert text(await read(driver, client), "stdout") == "hello\nweb-0\n"
    assert say(lab.netns, "127.0.0.1", 18090) == "hello\n"
    found = await look(driver, server)
    assert (found.network_of, found.address) == (of, "")
    assert (await look(driver, of)).network_of == ""


async def test_one_container_of_a_sandbox_is_replaced_and_the_others_do_not_notice(
    driver: Driver, lab: DriverLab
) -> None:
    port = PublishedPort(container_port=80, host_port=18091, host_address="127.0.0.1")
    of = await made_sandbox(driver, ports=(port,))
    first, other = await run(driver, member(ANSWER, of)), await run(driver, member(FOREVER, of))
    await until(lambda: say(lab.netns, "127.0.0.1", 18091) == "hello\n")
    pid = (await look(driver, other)).pid
    await driver.stop(first, signal="SIGTERM", grace_s=0)
    await driver.remove(first)
    await run(driver, member(ANSWER, of))
    await until(lambda: say(lab.netns, "127.0.0.1", 18091) == "hello\n")
    assert (await look(driver, other)).pid == pid


async def test_a_sandbox_on_the_hosts_network_shares_that(driver: Driver, lab: DriverLab) -> None:
    await driver.ensure_image(SANDBOX_IMAGE, PullPolicy.NEVER)
    of = await run(driver, shell("", command=(), image=SANDBOX_IMAGE))
    await run(driver, member("nc -ll -p 18092 -e echo hello", of))
    await until(lambda: say(lab.netns, "127.0.0.1", 18092) == "hello\n")


async def test_without_its_sandbox_a_container_cannot_start_and_is_not_to_blame(driver: Driver) -> None:
    of = await made_sandbox(driver)
    created = await driver.create(member(FOREVER, of))
    await driver.stop(of, signal="SIGTERM", grace_s=0)
    with pytest.raises(UnavailableError):
        await driver.start(created)
    await driver.remove(of)
    with pytest.raises(UnavailableError):
        await run(driver, member(FOREVER, of))


async def test_a_mounted_file_is_there_read_only_and_a_missing_one_is_an_error(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "site.conf"
    source.write_text("listen 80\n")
    mount = Mount(str(source), "/etc/web/site.conf")
    script = "cat /etc/web/site.conf; echo x > /etc/web/site.conf || echo read only"
    container = await run(driver, shell(script, mounts=(mount,)))
    await ended(driver, container)
    assert text(await read(driver, container), "stdout") == "listen 80\nread only\n"
    assert source.read_text() == "listen 80\n"
    with pytest.raises(WherryError):
        await run(driver, shell(FOREVER, mounts=(Mount(str(tmp_path / "none"), "/x"),)))
    assert not (tmp_path / "none").exists()


async def test_sandboxes_that_start_together_share_one_image(driver: Driver) -> None:
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(made_sandbox(driver)) for _ in range(4)]
    assert len({task.result() for task in started}) == 4
