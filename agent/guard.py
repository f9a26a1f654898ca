"""Kills containers whose node has had no word from a server for too long, should the agent be dead or frozen by then.

A process of its own, made by agent.guard_process and outliving it. It knows two small files in its folder: `leases`,
which containers may go without word for how long, and `heard`, when the last acknowledged heartbeat was sent, on
CLOCK_BOOTTIME. Past its time a container's processes get SIGKILL. They are found by the container's id in their cgroup
paths, so that no container manager is asked, which may hang as well, and nothing else is ever hit.

Standard library only, and nothing of Wherry: it is small, and one of an older version serves a newer agent as well.
"""

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterator

LEASES, HEARD, LOCK, LOG = "leases", "heard", "lock", "log"
POLL_S = 0.25  # how soon new leases are seen, and how late a container may be killed
IDLE_S = 5.0  # without leases it ends
GIVE_UP_S = 120.0  # so long after everything was killed it ends, though no agent has taken the leases back
LOCK_TRIES = 20  # the agent holds the lock for a moment when it looks whether a guard lives
_ID = re.compile(r"[0-9a-f]{32,128}")  # a container's id: long enough to be no one else's


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def read_leases(folder: str) -> dict[str, float]:
    """Return how long each container may go without word; none if the file is of another boot. Raises ValueError."""
    try:
        with open(f"{folder}/{LEASES}") as file:
            told = json.load(file)
    except FileNotFoundError:
        return {}
    if told["boot"] != boot_id():
        return {}
    found = {str(lease["container"]): float(lease["silent_s"]) for lease in told["leases"]}
    return {container: silent_s for container, silent_s in found.items() if _ID.fullmatch(container)}


def read_heard(folder: str) -> float | None:
    """Return when the last acknowledged heartbeat was sent; None if that can't be read, or was half written."""
    try:
        with open(f"{folder}/{HEARD}") as file:
            first, second = file.read().split()
        return float(first) if first == second else None
    except (OSError, ValueError):
        return None


def processes_of(containers: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield each process in a cgroup of one of these containers, with the container's id."""
    named = _pattern(containers)
    for entry in os.listdir("/proc") if containers else ():
        if entry.isdigit() and (found := named.search(_cgroups(entry))):
            yield int(entry), found.group(1)


def kill(containers: Collection[str]) -> list[tuple[int, str]]:
    """Send SIGKILL to every process of these containers, and return which they were."""
    named = _pattern(containers)
    return [(pid, container) for pid, container in processes_of(containers) if _kill_one(pid, named)]


def _pattern(containers: Collection[str]) -> re.Pattern[str]:
    """Match a path of which one part is such an id, as with cgroupfs, or ends in it, as with systemd's scopes."""
    return re.compile(rf"[/-]({'|'.join(map(re.escape, containers))})(?:\.scope)?(?:/|$)", re.MULTILINE)


def _kill_one(pid: int, named: re.Pattern[str]) -> bool:
    """Kill the process unless its number has passed to another one: the descriptor holds on to who was looked at."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not named.search(_cgroups(str(pid))):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _cgroups(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            return file.read()
    except OSError:
        return ""


class Guard:
    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._leases: dict[str, float] = {}
        self._heard_s = boot_s()  # until the agent has written when
        self._busy_s = boot_s()  # when there was last something to wait for, or to kill

    def run(self) -> None:
        """Watch until nothing needs it any more."""
        while True:
            now_s = boot_s()
            self._read()
            overdue = {c for c, silent_s in self._leases.items() if now_s - self._heard_s >= silent_s}
            killed = kill(overdue)
            for pid, container in killed:
                self._log(f"killed process {pid} of container {container}: {now_s - self._heard_s:.1f}s without word")
            if killed or self._leases.keys() - overdue:
                self._busy_s = now_s
            if now_s - self._busy_s >= (GIVE_UP_S if self._leases else IDLE_S):
                return
            waits = [self._heard_s + s - now_s for c, s in self._leases.items() if c not in overdue]
            time.sleep(max(0.01, min([POLL_S, *waits])))

    @property
    def has_work(self) -> bool:
        self._read()
        return bool(self._leases) and boot_s() - self._busy_s < GIVE_UP_S

    def _read(self) -> None:
        """Take in what the agent has written; what can't be read changes nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._leases = read_leases(self._folder)
        heard_s = read_heard(self._folder)
        if heard_s is not None:
            self._heard_s = heard_s

    def _log(self, text: str) -> None:
        with contextlib.suppress(OSError), open(f"{self._folder}/{LOG}", "a") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def serve(folder: str, lock: int | None) -> None:
    """Guard for as long as there is something to guard, holding the lock that tells others so."""
    guard = Guard(folder)
    while lock is not None:
        guard.run()
        os.close(lock)
        # An agent that wrote a lease just before that took this guard for alive: so it looks once more.
        lock = take_lock(folder) if guard.has_work else None


def take_lock(folder: str) -> int | None:
    """Return the lock, held; None if another guard has it."""
    descriptor = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(0.05)
    os.close(descriptor)
    return None


def main(folder: str) -> None:
    """Become a process that no one waits for, out of reach of the agent's signals and of the kernel's memory killer.

    The lock is held before this returns to the agent, so that what it starts then is guarded.
    """
    lock = take_lock(folder)
    if lock is None or os.fork():
        return
    os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-999")
    serve(folder, lock)


if __name__ == "__main__":
    main(sys.argv[1])
