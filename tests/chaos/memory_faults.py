"""What befalls containers when memory runs out: the kernel kills in the cgroup that is full, and nowhere else.

The cgroup is filled by a file in a tmpfs of the host, whose memory is charged to the cgroup of who wrote it and belongs
to no process. It never gets more than the cgroup may have, so that the machine of the test has nothing to fear.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.chaos.fault import Effect, Kind, Lab, Part
from tests.lab.cgroups import is_alive, memory_cgroup_of
from tests.lab.commands import in_thread
from tests.lab.dockerd import RunContainer
from tests.lab.faults import owned
from tests.lab.host import Host
from tests.lab.waiting import wait_until

MIB = 1024 * 1024
CONTAINERS_MIB = 24  # more than any container of the world may have
SPARE_BYTES = MIB // 2  # of a node's memory, beside what is in use
NODES_MIB = 4
SOON_S = 20.0
FILE = "/run/docker/full"  # in a tmpfs of the host's own
FILL = 'echo 0 > "$0/cgroup.procs" && exec dd if=/dev/zero of="$1" bs=64k count="$2"'
KILLED_FIRST = "1000"  # of its cgroup, before who fills it


@asynccontextmanager
async def container_starved(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """One container is full: the kernel kills all that is in it."""
    host = lab.some_agent().host
    nodes, found = frozenset({host.name}), sorted(await owned(host), key=lambda container: container.name)
    target = f"nothing runs on {host.name}"
    if found:
        container = lab.rng.choice(found)
        target = f"{container.labels['wherry.allocation']} on {host.name}"
        with suppress(FileNotFoundError):  # it has just ended
            await _fill(host, await in_thread(memory_cgroup_of, container.pid), CONTAINERS_MIB, [container])
    yield Effect(target, touches=nodes, ends=nodes)
    await host.output("rm", "-f", FILE)


@asynccontextmanager
async def node_starved(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """All containers of a node together have no room: some are killed, and what starts meanwhile may be as well."""
    host = lab.some_agent().host
    work, nodes = host.work, frozenset({host.name})
    before = await in_thread(work.memory_cap)
    await in_thread(lambda: work.cap_memory(work.memory_used() + SPARE_BYTES))
    full = work.memory_folder / "full"
    await in_thread(lambda: full.mkdir(exist_ok=True))
    await _fill(host, full, NODES_MIB, await owned(host))
    yield Effect(f"{host.name}, {hold_s:.1f} s", touches=nodes, ends=nodes)
    await host.output("rm", "-f", FILE)
    await in_thread(work.cap_memory, before)


async def _fill(host: Host, cgroup: Path, mib: int, victims: Sequence[RunContainer]) -> None:
    """Return once the kernel has killed one of the victims, or there were none."""
    await in_thread(_offer, [victim.pid for victim in victims])
    filler = host.run("filler", "/bin/sh", "-c", FILL, str(cgroup), FILE, str(mib * 16))

    async def has_killed() -> bool:
        return not all(is_alive(victim.pid) for victim in victims)

    if victims:
        await wait_until(has_killed, SOON_S, f"the kernel has killed for memory on {host.name}")
    await filler.kill()


def _offer(pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(OSError):  # it has ended
            Path(f"/proc/{pid}/oom_score_adj").write_text(KILLED_FIRST)


KINDS = (
    Kind("container out of memory", container_starved, (1, 3), Part.NODE),
    Kind("node's containers out of memory", node_starved, (2, 6), Part.NODE),
)
