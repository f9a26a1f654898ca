"""Threads of the oci driver that live in a mount namespace of their own, and what they start with them.

Why: overlay mounts of hundreds of containers stay out of the host's mount table, and crun, which refuses a hybrid
cgroup tree (version 1 beside a `unified` one of version 2), doesn't see its second half. Mounts of the host still
arrive here, none of ours goes back. Blocking calls of the driver run here, by `run`.
"""

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from manifests.errors import UnavailableError

MOST_THREADS = 64  # commands inside containers, which may take long, hold one each
COMMAND_TIMEOUT_S = 10.0
_CLONE_NEWNS, _CLONE_FS, _CLONE_NEWNET = 0x00020000, 0x00000200, 0x40000000
_MS_REC, _MS_SLAVE, _MNT_DETACH = 0x4000, 1 << 19, 2
_CGROUPS = "/sys/fs/cgroup"
_libc = ctypes.CDLL(None, use_errno=True)
P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """`close` it. `netns` is the path of the network namespace that counts as the host's; None: the agent's own."""

    def __init__(self, *, netns: str | None = None) -> None:
        self._netns = netns
        self._lock = threading.Lock()
        self._namespace: int | None = None  # a descriptor of the mount namespace, once the first thread made it
        self._failure: OSError | None = None
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="oci", initializer=self._enter)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what the function returns. If this is cancelled, the function still runs to its end."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))
            return await future
        except BrokenExecutor as broken:
            raise UnavailableError(
                "cannot run containers by the oci driver",
                why=f"a mount namespace was refused ({self._failure})",
                fix="Run the agent as root, with CAP_SYS_ADMIN.",
            ) from broken

    def close(self) -> None:
        """Wait for what still runs, and end the threads. The namespace lives on while a container's shim is in it."""
        self._threads.shutdown()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    def _enter(self) -> None:
        try:
            with self._lock:
                if self._namespace is None:
                    self._namespace = _own_mounts()
                else:
                    _check(_libc.unshare(_CLONE_FS), "unshare")
                    _check(_libc.setns(self._namespace, _CLONE_NEWNS), "setns")
            if self._netns is not None:
                enter_network(self._netns)
        except OSError as error:
            self._failure = error
            raise


def _own_mounts() -> int:
    """Move this thread to a new mount namespace, and return a descriptor of that."""
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_FS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount")
    if not Path(_CGROUPS, "cgroup.controllers").exists() and Path(_CGROUPS, "unified").is_dir():
        _libc.umount2(f"{_CGROUPS}/unified".encode(), _MNT_DETACH)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def enter_network(path: str) -> None:
    """Move this thread to the network namespace of that file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")
    finally:
        os.close(descriptor)


def mount_overlay(layers: Sequence[str], upper: Path, work: Path, target: Path, *, inside: Path) -> None:
    """Mount the layers, the topmost first, as one tree at `target`; what is written goes to `upper`.

    Layers may be relative to `inside`: many long paths wouldn't fit in the page that mount(2) takes. Call it in a
    thread of Workers, each of which has a working directory of its own.
    """
    options = f"lowerdir={':'.join(map(_escaped, layers))},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    os.chdir(inside)
    try:
        _check(_libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, os.fsencode(options)), "mount overlay")
    finally:
        os.chdir("/")


def unmount(target: Path) -> None:
    """Detach what is mounted there; fine if nothing is."""
    _libc.umount2(os.fsencode(target), _MNT_DETACH)


def run_command(command: Sequence[str], *, timeout_s: float = COMMAND_TIMEOUT_S, stdin: bytes = b"") -> tuple[int, str]:
    """Run a short command and return its exit code and all that it wrote. Raises UnavailableError after the time."""
    try:
        done = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise UnavailableError(
            f"{command[0]} did not answer within {timeout_s:g} s",
            why=" ".join(command),
            fix="Look at the load of this node, and at `dmesg`.",
        ) from late
    except OSError as missing:
        raise UnavailableError(
            f"cannot run {command[0]}", why=missing.strerror or str(missing), fix="Install it on this node."
        ) from missing
    return done.returncode, done.stdout.decode(errors="replace").strip()


def _escaped(path: str | Path) -> str:
    """Return the path as overlayfs takes it in its options."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
