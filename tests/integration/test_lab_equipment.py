"""What the lab has for breaking disks and clocks does that, and no more."""

import sys
from pathlib import Path

import pytest

from tests.lab.commands import LabError
from tests.lab.host import Host
from tests.lab.marks import ON_HOSTS
from tests.lab.network import lab_network
from tests.lab.waiting import wait_until
from tests.lab.wall_clock import WallClock, why_no_wall_clock

pytestmark = [*ON_HOSTS]

SOON_S = 20.0
HOUR_S = 3600.0
TELL_TIMES = """
import time
began = time.time(), time.monotonic()
while True:
    print(round(time.time() - began[0]), round(time.monotonic() - began[1]), flush=True)
    time.sleep(0.05)
"""


def what_is_left(folder: Path) -> list[str]:
    """Return what is mounted in a lab's folder, and the folder itself if it is there."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    return [*mounts, *([str(folder)] if folder.exists() else [])]


async def write(host: Host, name: str) -> None:
    await host.output("sh", "-c", f"echo something > data/{name}")


async def test_a_full_disk_takes_nothing_more_until_it_is_cleared() -> None:
    async with lab_network(["a"], disks={"a/data": 2**20}) as net:
        host, disk = net["a"], net.disks["a/data"]
        await write(host, "before")
        disk.fill()
        with pytest.raises(LabError, match=r"I/O error|No space left"):
            await write(host, "meanwhile")
        disk.clear()
        await write(host, "after")
        await host.reboot()
        assert "something" in await host.output("cat", "data/before")
        folder = net.folder
    assert what_is_left(folder) == []


@pytest.mark.skipif(bool(why_no_wall_clock()), reason=why_no_wall_clock())
async def test_a_wall_clock_jumps_there_and_back_and_the_monotonic_one_does_not() -> None:
    async with lab_network(["a"]) as net:
        clock = WallClock(net["a"].folder / "clock")
        process = net["a"].run("times", sys.executable, "-c", TELL_TIMES, env=clock.environment())

        async def times() -> tuple[int, int]:
            wall, monotonic = (process.log_tail(1) or "-1 -1").split()
            return int(wall), int(monotonic)

        await wait_until(times, SOON_S, "it tells the time", lambda t: t[1] >= 0)
        clock.set_wrong(HOUR_S)
        _, monotonic = await wait_until(times, SOON_S, "it jumped", lambda t: t[0] >= HOUR_S)
        assert monotonic < HOUR_S
        clock.set_wrong(-HOUR_S)
        await wait_until(times, SOON_S, "it jumped back", lambda t: t[0] < -HOUR_S / 2)
        clock.set_right()
        await wait_until(times, SOON_S, "it is right again", lambda t: abs(t[0] - t[1]) <= 1)
