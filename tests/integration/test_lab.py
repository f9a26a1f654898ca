"""The lab keeps its word about the network: hosts reach each other, cuts cut, labs don't meet, nothing stays behind."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cgroups import hierarchies, is_alive
from tests.lab.commands import LabError, call, network_namespaces
from tests.lab.host import REPOSITORY, Direction, Host
from tests.lab.marks import ON_HOSTS
from tests.lab.network import Network, lab_network
from tests.lab.processes import Process
from tests.lab.subnets import LOCKS
from tests.lab.waiting import wait_until

pytestmark = [*ON_HOSTS]

SOON_S = 10.0
# Refused means reached: the packet went there and the answer came back.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=0.5)
except ConnectionRefusedError:
    pass
"""
LISTEN = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as listener:
    listener.bind((sys.argv[1], 9000))
    print("ready", flush=True)
    while True:
        print(listener.recv(100).decode(), flush=True)
"""
SEND = """
import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    sender.sendto(sys.argv[2].encode(), (sys.argv[1], 9000))
"""


async def reaches(source: Host, target: str) -> bool:
    """Tell whether a packet makes it from one host to an address and its answer back."""
    try:
        await source.output(sys.executable, "-c", CONNECT, target)
    except LabError:
        return False
    return True


async def await_reach(source: Host, target: Host) -> None:
    """Return when it reaches it: after a cut, the first packets may still wait for an answer about the address."""
    await wait_until(lambda: reaches(source, target.address), SOON_S, f"{source.name} reaches {target.name}")


async def listen(host: Host) -> Process:
    """Start to write down what datagrams reach the host."""
    listener = host.run("listen", sys.executable, "-c", LISTEN, host.address)
    await await_line(listener, "ready")
    return listener


async def send(source: Host, target: Host, text: str) -> None:
    await source.output(sys.executable, "-c", SEND, target.address, text)


async def await_line(process: Process, line: str) -> None:
    async def lines() -> list[str]:
        return process.log_tail().splitlines()

    await wait_until(lines, SOON_S, f"{process.name} prints {line}", lambda printed: line in printed)


def left_of(network: Network) -> list[str]:
    """Return what of a lab is still on the machine: namespaces, links, cgroups, mounts, folder, lock, processes."""
    places = [*Path("/run/netns").glob(f"{network.id}*"), Path("/sys/class/net", network.id), network.folder]
    places += [tree / network.id for tree in hierarchies()]
    places += [lock for lock in LOCKS.iterdir() if network.id in text_of(lock)]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if network.id in line]
    return [*(str(place) for place in places if place.exists()), *mounts, *processes_of(network)]


def processes_of(network: Network) -> Iterator[str]:
    """Yield the live processes whose command line or cgroup names the lab."""
    for process in Path("/proc").glob("[0-9]*"):
        words = text_of(process / "cmdline") + text_of(process / "cgroup")
        if (network.id in words or str(network.folder) in words) and is_alive(int(process.name)):
            yield words.replace("\0", " ")


def text_of(file: Path) -> str:
    """Return what a file holds, or nothing where it has gone meanwhile."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


async def test_hosts_reach_each_other_and_the_test() -> None:
    async with lab_network(["a", "b"]) as net:
        assert await reaches(net["a"], net["b"].address)
        assert await reaches(net["b"], net.address)


async def test_the_test_reaches_a_server_in_a_host() -> None:
    async with lab_network(["a"]) as net:
        net["a"].run("web", sys.executable, "-m", "http.server", "8000", "--bind", net["a"].address)

        async def connects() -> bool:
            _, writer = await asyncio.open_connection(net["a"].address, 8000)
            writer.close()
            await writer.wait_closed()
            return True

        await wait_until(connects, SOON_S, "the test connects to the host's server")


async def test_a_partitioned_host_reaches_nobody_until_it_is_healed() -> None:
    async with lab_network(["a", "b", "c"]) as net:
        await net["a"].partition()
        assert not await reaches(net["a"], net["b"].address)
        assert not await reaches(net["a"], net.address)
        assert await reaches(net["b"], net["c"].address)
        await net["a"].heal()
        await await_reach(net["a"], net["b"])


async def test_a_cut_between_two_hosts_leaves_the_others_alone() -> None:
    async with lab_network(["a", "b", "c"]) as net:
        await net.cut("a", "b")
        assert not await reaches(net["a"], net["b"].address)
        assert not await reaches(net["b"], net["a"].address)
        assert await reaches(net["a"], net["c"].address)
        await net.mend("a", "b")
        await await_reach(net["b"], net["a"])


@pytest.mark.parametrize("direction", list(Direction))
async def test_a_one_way_partition_loses_one_direction_only(direction: Direction) -> None:
    async with lab_network(["a", "b"]) as net:
        a, b = net["a"], net["b"]
        at = {host: await listen(host) for host in (a, b)}
        assert await reaches(a, b.address)  # so that each knows the other's hardware address
        loser, target = (a, b) if direction is Direction.SENT else (b, a)
        await a.partition_one_way(direction)
        await send(loser, target, "lost")
        await send(target, loser, "kept")
        await await_line(at[loser], "kept")
        await a.heal()
        await send(loser, target, "after")
        await await_line(at[target], "after")
        assert "lost" not in at[target].log_tail().splitlines()


async def test_a_partition_outlasts_a_reboot() -> None:
    async with lab_network(["a", "b"]) as net:
        await net["a"].partition()
        await net["a"].reboot()
        assert not await reaches(net["a"], net["b"].address)
        await net["a"].heal()
        await await_reach(net["a"], net["b"])


async def test_a_paused_host_stands_still_and_goes_on() -> None:
    async with lab_network(["a"]) as net:
        listener = await listen(net["a"])
        await net["a"].pause()
        await asyncio.to_thread(call, [sys.executable, "-c", SEND, net["a"].address, "while-paused"])
        assert "while-paused" not in listener.log_tail()
        await net["a"].resume()
        await await_line(listener, "while-paused")


async def test_one_process_can_be_paused_ended_and_killed() -> None:
    async with lab_network(["a"]) as net:
        sleeper = net["a"].run("sleeper", "sleep", "1000")
        await net["a"].pause("sleeper")
        with pytest.raises(TimeoutError):
            await sleeper.terminate(grace_s=0.2)
        await net["a"].resume("sleeper")
        assert await sleeper.wait() == -15
        again = net["a"].run("sleeper", "sleep", "1000")
        await again.kill()
        assert not again.is_alive


async def test_labs_at_the_same_time_do_not_meet() -> None:
    async with lab_network(["a", "b"]) as one, lab_network(["a", "b"]) as other:
        assert one["a"].address != other["a"].address
        assert await reaches(one["a"], one["b"].address)
        assert not await reaches(one["a"], other["b"].address)
        await other["a"].kill()
        assert one["a"].is_on
        assert await reaches(one["b"], one["a"].address)


async def fail_in_a_lab(seen: list[Network]) -> None:
    async with lab_network(["a", "b"]) as net:
        seen.append(net)
        net["a"].run("sleeper", "sh", "-c", "echo the last words; sleep 1000 & exec sleep 1000")
        await await_line(net["a"].processes["sleeper"], "the last words")
        await net["b"].pause()
        assert left_of(net)
        raise ZeroDivisionError


async def test_nothing_is_left_after_a_lab_whose_test_failed(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Network] = []
    with pytest.raises(ZeroDivisionError):
        await fail_in_a_lab(seen)
    assert left_of(seen[0]) == []
    assert "the last words" in capsys.readouterr().err


async def test_a_lab_that_was_killed_is_swept_by_the_next_one() -> None:
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(SOON_S):
        output, _ = await killed.communicate()
    netns = output.decode().strip()
    assert netns in await namespaces()
    async with lab_network(["a"]):
        # Waited for, as a lab of another process may have begun to sweep it before this one.
        await wait_until(namespaces, SOON_S, "it is swept", lambda left: netns not in left)


async def namespaces() -> tuple[str, ...]:
    return network_namespaces()


KILLED = """
import asyncio, os, signal
from tests.lab.network import lab_network

async def main():
    async with lab_network(["a"]) as net:
        net["a"].run("sleeper", "sleep", "1000")
        print(net["a"].netns, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
