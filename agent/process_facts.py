"""What /proc says of a container's processes: their namespaces, the shim above them, and each of them. Pure readers."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote

from agent.kernel import Cgroup, Kernel, read_text
from manifests.layers import Fact, Layer, LayerKind

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
MOST_PROCESSES = 100
_RIGHTS = ("CapEff", "NoNewPrivs", "Seccomp")  # of its first process; those that it starts may do no more
_ENTER = {"mnt": "--mount", "uts": "--uts", "ipc": "--ipc", "net": "--net", "pid": "--pid"}


def namespaces_of(kernel: Kernel, pid: int | str) -> dict[str, str]:
    """Return the inode number of each namespace of the process; none if it is gone."""
    found = {}
    for name in NAMESPACES:
        try:
            target = os.readlink(f"{kernel.proc}/{pid}/ns/{name}")
        except OSError:
            continue
        found[name] = target.partition("[")[2].rstrip("]")
    return found


def namespaces_layer(kernel: Kernel, pid: int, others: Mapping[str, int]) -> Layer:
    """Return the namespaces of a process, and with whom it shares them: the host, or `others` by what they are."""
    own, host = namespaces_of(kernel, pid), namespaces_of(kernel, "self")
    theirs = {who: namespaces_of(kernel, other) for who, other in others.items() if other and other != pid}
    facts = []
    for name, inode in own.items():
        shared = [who for who, found in theirs.items() if found.get(name) == inode]
        note = (
            "the host's" if host.get(name) == inode else f"shared with {' and '.join(shared)}" if shared else "its own"
        )
        facts.append(Fact(name=name, value=inode, note=note, command=f"lsns -n -t {name} -o NS -p {pid}"))
    entered = [flag for name, flag in _ENTER.items() if own.get(name) and own.get(name) != host.get(name)]
    note = f"enter them: nsenter --target {pid} {' '.join(entered)}" if entered else "all are the host's"
    return Layer(kind=LayerKind.NAMESPACES, name=str(pid), note=note, command=f"lsns -p {pid}", facts=tuple(facts))


def status_of(kernel: Kernel, pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status, white space made single."""
    lines = (read_text(f"{kernel.proc}/{pid}/status") or "").splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def command_line(kernel: Kernel, pid: int) -> str:
    return " ".join((read_text(f"{kernel.proc}/{pid}/cmdline") or "").split("\0")).strip()


def shim_of(kernel: Kernel, pid: int) -> int:
    """Return the parent of a container's main process, which keeps it without any engine; 0 if there is none."""
    parent = int(status_of(kernel, pid).get("PPid") or 0)
    return parent if parent > 1 and command_line(kernel, parent) else 0


def shim_layer(kernel: Kernel, shim: int) -> Layer:
    """Return what stands between the container and the rest of the machine."""
    words = command_line(kernel, shim)
    program, status = words.partition(" ")[0].rpartition("/")[2], status_of(kernel, shim)
    facts = [
        Fact(name="pid", value=str(shim), command=f"ps -o pid= -p {shim}"),
        Fact(name="command", value=words, command=f"tr '\\0' ' ' < {kernel.proc}/{shim}/cmdline"),
        *_status_fact(kernel, shim, status, "PPid", note="1: it outlives who started it"),
        *_status_fact(kernel, shim, status, "VmRSS", is_live=True),
    ]
    note = "keeps the container's output and tells how it ends, with or without its engine"
    return Layer(kind=LayerKind.SHIM, name=program, note=note, command=f"ps -f -p {shim}", facts=tuple(facts))


def processes_layer(kernel: Kernel, cgroup: Cgroup) -> Layer:
    """Return all processes in the cgroup and below it: their numbers on the host and inside, and their commands."""
    folder = cgroup.folders.get("pids") or cgroup.folders.get("memory") or ""
    pids = sorted(set(_pids_below(Path(folder)))) if folder else []
    note = f"{len(pids) - MOST_PROCESSES} more are not listed" if len(pids) > MOST_PROCESSES else ""
    below = [found for pid in pids[:MOST_PROCESSES] if (found := _process_layer(kernel, pid))]
    name = "1 process" if len(pids) == 1 else f"{len(pids)} processes"
    command = f"cat {quote(folder)}/cgroup.procs"
    return Layer(kind=LayerKind.PROCESSES, name=name, note=note, command=command, below=tuple(below))


def _process_layer(kernel: Kernel, pid: int) -> Layer | None:
    """Return one process; None if it is gone."""
    status, words = status_of(kernel, pid), command_line(kernel, pid)
    if not status:
        return None
    inside = status.get("NSpid", "").rpartition(" ")[2]
    rights = [fact for name in _RIGHTS for fact in _status_fact(kernel, pid, status, name)] if inside == "1" else []
    shown = Fact(name="command", value=words, command=f"tr '\\0' ' ' < {kernel.proc}/{pid}/cmdline")
    facts = [
        *([shown] if words else []),
        *_status_fact(kernel, pid, status, "NSpid", note=f"{inside} inside" if inside else ""),
        *_status_fact(kernel, pid, status, "Uid", note="real, effective, saved, of files"),
        *rights,
        *_status_fact(kernel, pid, status, "VmRSS", is_live=True),
        *_status_fact(kernel, pid, status, "State", is_live=True),
    ]
    return Layer(kind=LayerKind.PROCESS, name=str(pid), command=f"ps -f -p {pid}", facts=tuple(facts))


def _status_fact(
    kernel: Kernel, pid: int, status: Mapping[str, str], name: str, *, note: str = "", is_live: bool = False
) -> Iterator[Fact]:
    if status.get(name):
        note = note or _meaning(name, status[name])
        command = f"grep ^{name}: {kernel.proc}/{pid}/status"
        yield Fact(name=name, value=status[name], note=note, command=command, is_live=is_live)


def _meaning(name: str, value: str) -> str:
    """Return what a right says.

    >>> _meaning("CapEff", "00000000000000ff"), _meaning("Seccomp", "2")
    ('8 capabilities: capsh --decode=00000000000000ff', 'a filter refuses some system calls')
    """
    if name == "CapEff":
        return f"{int(value, 16).bit_count()} capabilities: capsh --decode={value}"
    known = {
        ("NoNewPrivs", "1"): "can't gain rights, by setuid or otherwise",
        ("Seccomp", "0"): "may make all system calls",
        ("Seccomp", "2"): "a filter refuses some system calls",
    }
    return known.get((name, value), "")


def _pids_below(folder: Path) -> Iterator[int]:
    for inner, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            yield from map(int, (read_text(f"{inner}/cgroup.procs") or "").split())
