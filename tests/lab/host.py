"""One host of a lab: a network and a mount namespace, cgroups, a folder that outlives a reboot, and its processes.

Hosts share the kernel, the process ids and the file system with the test, which therefore can look into everything.
The private mount namespace makes a power cut clean: with its last process, all mounts of containers are gone.
"""

import os
import signal
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from tests.lab.cgroups import Cgroup
from tests.lab.commands import TIMEOUT_S, LabError, call, in_thread
from tests.lab.dockerd import Dockerd
from tests.lab.processes import Process
from tests.lab.switch import Switch

REPOSITORY = Path(__file__).parents[2]
# Holds the mount namespace open, as nothing else in a fresh host runs. The two tmpfs keep the sockets of containerd's
# shims and of dockerd's plugins apart from other hosts' and off the machine's own /run.
HOLDER = "mkdir -p /run/containerd /run/docker && mount -t tmpfs lab /run/containerd && mount -t tmpfs lab /run/docker"


class Direction(StrEnum):
    """What a one-way cut loses, seen from the host."""

    SENT = "sent"
    RECEIVED = "received"


class Host:
    """A machine of the lab, on or off."""

    def __init__(self, lab_id: str, name: str, port: int, address: str, switch: Switch, folder: Path) -> None:
        self.name = name
        self.port = port
        self.address = address
        self.netns = f"{lab_id}-{name}"
        self.folder = folder / name
        self.logs = folder / "logs"
        self.cgroup = Cgroup(f"/{lab_id}/{name}")
        self.daemons = self.cgroup.child("daemons")
        self.work = self.cgroup.child("work")  # the parent of all its containers
        self.dockerd = Dockerd(self)
        self.processes: dict[str, Process] = {}
        self._switch = switch
        self._holder: Process | None = None

    @property
    def is_on(self) -> bool:
        return self._holder is not None and self._holder.is_alive

    async def boot(self) -> None:
        """Switch it on: nothing runs yet, and its folder is as it was left."""
        await in_thread(self._boot)

    def run(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a supervised process in this host; its log goes on in `logs/{host}-{name}.log` after a restart."""
        if name in self.processes and self.processes[name].is_alive:
            raise LabError(f"{name} already runs on {self.name} as pid {self.processes[name].pid}")
        log = self.logs / f"{self.name}-{name}.log"
        process = Process(name, self._inside(*command), log, environment() | dict(env or {}))
        self.processes[name] = process
        return process

    async def output(self, *command: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run a short command in this host and return what it printed; LabError when it fails."""
        return await in_thread(call, self._inside(*command), timeout_s=timeout_s)

    async def start_dockerd(self, *, memory_bytes: int | None = None) -> Dockerd:
        """Start its own engine, its containers together bounded to that memory, as on a machine of that size."""
        if memory_bytes is not None:
            await in_thread(self.work.cap_memory, memory_bytes)
        await self.dockerd.start()
        return self.dockerd

    async def kill(self) -> None:
        """Cut the power: every process dies at once, containers too, and its link is gone. The folder stays."""
        await in_thread(self.kill_now)

    async def reboot(self) -> None:
        """Bring it back after a power cut (or cut it now): new namespaces, and no trace of what had run in memory."""
        await self.kill()
        await self.boot()

    async def pause(self, *names: str) -> None:
        """Stop the named processes by SIGSTOP; without names everything at one moment, containers included."""
        if names:
            for name in names:
                await self.processes[name].pause()
        else:
            await in_thread(self.cgroup.freeze, frozen=True)

    async def resume(self, *names: str) -> None:
        if names:
            for name in names:
                self.processes[name].resume()
        else:
            await in_thread(self.cgroup.freeze, frozen=False)

    async def partition(self) -> None:
        """Cut it off from everyone, the test too; its sockets see only silence."""
        await in_thread(self._switch.cut, (self.port, None), (None, self.port))

    async def partition_one_way(self, direction: Direction) -> None:
        """Lose only what it sends, or only what it should receive."""
        drop = (self.port, None) if direction is Direction.SENT else (None, self.port)
        await in_thread(self._switch.cut, drop)

    async def heal(self) -> None:
        """Undo every cut of this host: partitions, one-way ones, and those between it and one other."""
        await in_thread(self._switch.heal_port, self.port)

    def kill_now(self) -> None:
        """Kill without an event loop, for the lab's end; nothing happens to a host that is off."""
        for process in self._all_processes():
            if process.is_alive:  # it may not have reached its cgroup yet
                os.killpg(process.pid, signal.SIGKILL)
        self.cgroup.kill()
        for process in self._all_processes():
            process.collect()
        self._holder = None
        if Path("/run/netns", self.netns).exists():
            self._switch.unplug(self.port)  # the kernel would do it too, but some time after the namespace has gone
            call(["ip", "netns", "del", self.netns])

    def _all_processes(self) -> tuple[Process, ...]:
        return (*self.processes.values(), *((self._holder,) if self._holder else ()))

    def _boot(self) -> None:
        if self.is_on:
            raise LabError(f"{self.name} is on already")
        for folder in (self.folder, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.daemons.make()
        self.work.make()
        self.cgroup.freeze(frozen=False)
        call(["ip", "netns", "add", self.netns])
        self._switch.plug(self.port, self.netns, self.address)
        self.dockerd.forget_run()
        self._holder = self._start_holder()

    def _start_holder(self) -> Process:
        """Return the process in the new mount namespace, once that is ready: it says so in a file."""
        ready = self.folder / "mounts-ready"
        ready.unlink(missing_ok=True)
        os.mkfifo(ready)
        script = f'{HOLDER} && echo ready > "$0" && exec sleep infinity'
        unshare = ("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", script, str(ready))
        holder = Process("mounts", self._joined(*unshare), self.logs / f"{self.name}-mounts.log", environment())
        try:
            call(["timeout", "10", "cat", str(ready)])
        except LabError as error:
            raise LabError(f"{self.name} has no mount namespace: {holder.log_tail()}") from error
        finally:
            ready.unlink()
        return holder

    def _joined(self, *command: str) -> list[str]:
        """Return the command as one that first moves itself into this host's cgroup."""
        return ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self.daemons.folder / "cgroup.procs"), *command]

    def _inside(self, *command: str) -> list[str]:
        """Return the command as one that runs in this host's cgroup, namespaces and folder, with its own pid."""
        if self._holder is None:
            raise LabError(f"{self.name} is off")
        # `nsenter --net` and not `ip netns exec`: that mounts a new /sys, without the cgroups dockerd needs.
        enter = ("nsenter", f"--net=/run/netns/{self.netns}", f"--mount=/proc/{self._holder.pid}/ns/mnt")
        return self._joined(*enter, "env", "-C", str(self.folder), *command)


def environment() -> dict[str, str]:
    """Return the test's environment for a host: without proxies, and where `python -m wherry` finds this checkout.

    Compiled code is kept, as wherever Wherry is installed: to compile all of it at each start takes memory for good.
    """
    left_out = ("_proxy", "dontwritebytecode")
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith(left_out)}
    return kept | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "PYTHON": sys.executable}
