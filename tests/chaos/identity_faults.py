"""What befalls a node's identity: a second agent with a copy of its data folder, as when its machine was cloned.

It must be refused for as long as the first is heard, and excuses nothing: no container may notice.
"""

import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.chaos.fault import Effect, Kind, Lab, Part
from tests.lab.cluster import Daemon, NodeSize, agent_arguments
from tests.lab.commands import LabError, in_thread
from tests.lab.host import Host
from tests.lab.processes import Process
from tests.lab.waiting import wait_until

REFUSED_S = 30.0
# Another machine is of another boot, and the hosts of a lab share theirs.
WITH_OTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


@asynccontextmanager
async def cloned(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """On another host, with that one's engine."""
    agent = lab.some_agent()
    host = lab.rng.choice([other.host for other in lab.cluster.agents if other is not agent])
    copy = host.folder / f"clone-{lab.rng.getrandbits(32):x}"
    await in_thread(_copy, agent.host.folder / "agent", copy)
    clone = _start(lab, agent, host, copy)
    yield Effect(f"{agent.host.name}, on {host.name}, {hold_s:.1f} s")
    await wait_until(lambda: _was_refused(clone, copy.name), REFUSED_S, f"the clone on {host.name} was refused")
    await clone.kill()
    await in_thread(shutil.rmtree, copy)


def _copy(folder: Path, copy: Path) -> None:
    """Copy the files that lie there; drafts vanish meanwhile."""
    copy.mkdir()
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if file.is_file():
                shutil.copy2(file, copy)


def _start(lab: Lab, agent: Daemon, host: Host, copy: Path) -> Process:
    arguments = list(agent_arguments(host, NodeSize(), lab.cluster.server_urls))
    replaced = {"--name": agent.host.name, "--data-dir": str(copy), "--cgroup-parent": host.cgroup.child("clone").path}
    for flag, value in replaced.items():
        arguments[arguments.index(flag) + 1] = value
    boot = copy / "boot-id"
    boot.write_text(f"{uuid.UUID(int=lab.rng.getrandbits(128))}\n")
    wrapped = ("unshare", "--mount", "/bin/sh", "-c", WITH_OTHER_BOOT, str(boot))
    return host.run(copy.name, *wrapped, sys.executable, "-m", "wherry", *arguments)


async def _was_refused(clone: Process, name: str) -> bool:
    """Say whether a server has refused it. Raises LabError if one took it for the node."""
    log = await in_thread(clone.log.read_text)
    if "session opened" in log or not clone.is_alive:
        raise LabError(f"{name} ended, or became the node:\n{clone.log_tail()}")
    return "connected already, from another machine" in log


KINDS = (Kind("agent cloned", cloned, (4, 10), Part.IDENTITY),)
