"""What this machine has, how `wherry dev` shares it out among nodes, and whether its dockerd answers."""

import json
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from manifests.errors import InvalidError, UnavailableError, UsageError
from manifests.quantities import render_bytes, render_cpu

DOCKER_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 60.0
MOST_STOPS_AT_ONCE = 8
_MI = 2**20
_RESERVED_PART = 10  # of the machine, one part in so many stays with the system
_LEAST_RESERVED_CPU_M = 100
_LEAST_RESERVED_BYTES = 256 * _MI
_LEAST_NODE_CPU_M = 10
_LEAST_NODE_BYTES = 16 * _MI
_MOST_PIDS = 4_194_304
_CGROUPS = Path("/sys/fs/cgroup")


class Capacity(NamedTuple):
    cpu_m: int
    memory_bytes: int
    pids: int

    def __str__(self) -> str:
        return f"{render_cpu(self.cpu_m)} cpu, {render_bytes(self.memory_bytes)} memory, {self.pids} pids"


def this_machine() -> Capacity:
    """Return what this process may use of the machine: limits of the cgroup around it count."""
    cpu_m = len(os.sched_getaffinity(0)) * 1000
    memory = _meminfo_total()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number_in(_CGROUPS / name)
        memory = min(memory, limit) if limit else memory
    pids = min(p for p in (_number_in(Path("/proc/sys/kernel", n)) for n in ("pid_max", "threads-max")) if p)
    return Capacity(cpu_m, memory, min(pids, _MOST_PIDS))


def share(machine: Capacity, nodes: int) -> Capacity:
    """Return what each of so many nodes gets: the machine less what its system keeps, in equal parts.

    >>> share(Capacity(2000, 8 * 2**30, 32768), 3)
    Capacity(cpu_m=600, memory_bytes=2576351232, pids=9830)
    """
    cpu_m = machine.cpu_m - max(machine.cpu_m // _RESERVED_PART, _LEAST_RESERVED_CPU_M)
    memory = machine.memory_bytes - max(machine.memory_bytes // _RESERVED_PART, _LEAST_RESERVED_BYTES)
    part = Capacity(
        cpu_m // nodes,
        memory // nodes // _MI * _MI,
        (machine.pids - machine.pids // _RESERVED_PART) // nodes,
    )
    if part.cpu_m < _LEAST_NODE_CPU_M or part.memory_bytes < _LEAST_NODE_BYTES:
        raise UsageError(
            f"this machine is too small for {nodes} nodes",
            why=f"it has {machine}",
            fix="Ask for fewer nodes, or say what each pretends to have with --node-cpu and --node-memory.",
        )
    return part


class Docker:
    """The few calls to a dockerd that `wherry dev` makes itself."""

    def __init__(self, url: str) -> None:
        scheme, _, path = url.partition("://")
        if scheme != "unix" or not path.startswith("/"):
            raise UsageError(f"'{url}' is not a dockerd's socket", fix="Write for example unix:///var/run/docker.sock")
        self._url, self._path = url, path

    def cgroup_driver(self) -> str:
        """Return who makes cgroups, cgroupfs or systemd. Raises UnavailableError if no dockerd answers."""
        try:
            info: Mapping[str, Any] = self._call("GET", "/info")
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UnavailableError(
                f"no dockerd answers at {self._url}",
                why=f"{reason[:1].lower()}{reason[1:]}",
                fix="Install one (Debian: `apt install docker.io`) and start it (`systemctl start docker`),\n"
                "or name the socket of another with --docker unix:///PATH. Its group or root may use it.",
            ) from error
        return str(info.get("CgroupDriver", "cgroupfs"))

    def provide_image(self, image: str, make: Callable[[], bytes]) -> bool:
        """Load what `make` returns, as `docker load` does, if the image is not there; say whether it was made.

        A dockerd that won't take it is left without.
        """
        if self._call("GET", f"/images/{quote(image, safe='')}/json"):
            return False
        archive = make()
        with suppress(OSError, HTTPException, ValueError):  # ValueError: what it says of its progress is no JSON value
            self._call("POST", "/images/load?quiet=1", body=archive, timeout_s=LOAD_TIMEOUT_S)
        return True

    def remove_containers(self, cluster: str) -> int:
        """Stop, kindly, and remove all containers of a cluster. Returns how many there were."""
        try:
            listed = self._call("GET", f"/containers/json?all=1&filters={_label_filter(f'wherry.cluster={cluster}')}")
        except (OSError, HTTPException, ValueError):
            return 0  # dockerd is gone, and what it ran is beyond reach
        ours = [one["Id"] for one in listed]
        with ThreadPoolExecutor(MOST_STOPS_AT_ONCE) as threads:
            list(threads.map(self._remove, ours))
        return len(ours)

    def _remove(self, container: str) -> None:
        with suppress(OSError, HTTPException, ValueError):
            self._call("POST", f"/containers/{container}/stop", timeout_s=STOP_TIMEOUT_S)
        with suppress(OSError, HTTPException, ValueError):
            self._call("DELETE", f"/containers/{container}?force=1&v=1", timeout_s=STOP_TIMEOUT_S)

    def _call(self, method: str, target: str, *, body: bytes | None = None, timeout_s: float = DOCKER_TIMEOUT_S) -> Any:
        """Return what dockerd answers, or {} if it refuses."""
        http = HTTPConnection("docker", timeout=timeout_s)
        try:
            http.sock = socket.socket(socket.AF_UNIX)
            http.sock.settimeout(timeout_s)
            http.sock.connect(self._path)
            http.request(method, target, body, {"Content-Type": "application/x-tar"} if body else {})
            response = http.getresponse()
            data = response.read()
            if response.status >= 400:
                return {}
            return json.loads(data) if data else {}
        finally:
            http.close()


def remove_cgroups(parent: str) -> None:
    """Remove a cgroup and those below it in each hierarchy, where they are empty."""
    name = parent.strip("/")
    for top in (_CGROUPS / name, *(one / name for one in _CGROUPS.glob("*") if one.is_dir())):
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def parse_amounts(cpu: str | None, memory: str | None, part: Capacity) -> Capacity:
    """Return the part with what the user said instead."""
    from manifests.quantities import parse_bytes, parse_cpu

    try:
        return part._replace(
            cpu_m=parse_cpu(cpu) if cpu else part.cpu_m,
            memory_bytes=parse_bytes(memory) if memory else part.memory_bytes,
        )
    except ValueError as error:
        raise InvalidError(str(error)) from error


def _meminfo_total() -> int:
    text = Path("/proc/meminfo").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("MemTotal:")).split()[1]) * 1024


def _number_in(path: Path) -> int | None:
    """Return a file's number, None if there is no such file or it holds none, such as `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _label_filter(label: str) -> str:
    return quote(json.dumps({"label": [label]}))
