"""What a cgroup says of itself: every limit in force and every live value, each with the file that has it.

Pure readers of the kernel's files, for people who look into a container. Limits of the cgroups above hold as well.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote

from agent.kernel import PRESSURES, Cgroup, Kernel, read_text, value_in
from manifests.layers import Fact, Layer, LayerKind

_UNLIMITED_BYTES = 1 << 60  # version 1 writes the largest multiple of a page
_UNITS = (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


@dataclass(frozen=True, slots=True)
class _File:
    controller: str
    name: str
    is_live: bool = False
    is_bytes: bool = False
    lines: tuple[str, ...] = ()  # of a file with many


_V1 = (
    _File("cpu", "cpu.cfs_quota_us"),
    _File("cpu", "cpu.cfs_period_us"),
    _File("cpu", "cpu.shares"),
    _File("cpuset", "cpuset.cpus"),
    _File("cpuset", "cpuset.mems"),
    _File("memory", "memory.limit_in_bytes", is_bytes=True),
    _File("memory", "memory.memsw.limit_in_bytes", is_bytes=True),
    _File("memory", "memory.soft_limit_in_bytes", is_bytes=True),
    _File("memory", "memory.swappiness"),
    _File("pids", "pids.max"),
    _File("blkio", "blkio.throttle.read_bps_device"),
    _File("blkio", "blkio.throttle.write_bps_device"),
    _File("cpuacct", "cpuacct.usage", is_live=True),
    _File("cpu", "cpu.stat", is_live=True, lines=("nr_periods", "nr_throttled", "throttled_time")),
    _File("memory", "memory.usage_in_bytes", is_live=True, is_bytes=True),
    _File("memory", "memory.max_usage_in_bytes", is_live=True, is_bytes=True),
    _File("memory", "memory.oom_control", is_live=True, lines=("oom_kill",)),
    _File("pids", "pids.current", is_live=True),
    _File("freezer", "freezer.state", is_live=True),
)
_V2 = (
    _File("cpu", "cpu.max"),
    _File("cpu", "cpu.weight"),
    _File("cpuset", "cpuset.cpus.effective"),
    _File("memory", "memory.max", is_bytes=True),
    _File("memory", "memory.high", is_bytes=True),
    _File("memory", "memory.low", is_bytes=True),
    _File("memory", "memory.min", is_bytes=True),
    _File("memory", "memory.swap.max", is_bytes=True),
    _File("memory", "memory.oom.group"),
    _File("pids", "pids.max"),
    _File("io", "io.weight"),
    _File("io", "io.max"),
    _File("cpu", "cpu.stat", is_live=True, lines=("usage_usec", "nr_periods", "nr_throttled", "throttled_usec")),
    _File("memory", "memory.current", is_live=True, is_bytes=True),
    _File("memory", "memory.peak", is_live=True, is_bytes=True),
    _File("memory", "memory.events", is_live=True, lines=("high", "max", "oom", "oom_kill")),
    _File("pids", "pids.current", is_live=True),
    _File("cpu", "cgroup.freeze", is_live=True),
)
_CAPS = {
    1: (
        _File("cpu", "cpu.cfs_quota_us"),
        _File("memory", "memory.limit_in_bytes", is_bytes=True),
        _File("pids", "pids.max"),
    ),
    2: (_File("cpu", "cpu.max"), _File("memory", "memory.max", is_bytes=True), _File("pids", "pids.max")),
}


def cgroup_layer(kernel: Kernel, cgroup: Cgroup, pid: int) -> Layer:
    """Return the cgroup of a process with its limits and live values, and below it the cgroups that hold it."""
    path = Fact(name="path", value=cgroup.path, command=f"cat {kernel.proc}/{pid}/cgroup")
    files = _V2 if cgroup.version == 2 else _V1
    facts = [fact for file in files for fact in _facts(cgroup.folders.get(file.controller), file)]
    if cgroup.v2 is not None:
        for name in PRESSURES:
            text = read_text(file := f"{cgroup.v2}/{name}.pressure")
            if text:
                some = text.partition("\n")[0]
                note = f"waited for {name} in {some.partition('avg10=')[2].partition(' ')[0]} % of the last 10 s"
                facts.append(
                    Fact(name=f"{name}.pressure", value=some, note=note, command=f"cat {quote(file)}", is_live=True)
                )
    note = f"version {cgroup.version}" + (", pressure in the unified tree" if cgroup.version == 1 and cgroup.v2 else "")
    above = tuple(_above(kernel, cgroup))
    return Layer(kind=LayerKind.CGROUP, name=cgroup.path, note=note, facts=(path, *facts), below=above)


def _above(kernel: Kernel, cgroup: Cgroup) -> Iterator[Layer]:
    """Yield the cgroups above that limit something, the nearest first; the controllers' trees may differ."""
    found: dict[str, list[Fact]] = {}
    for file in _CAPS[cgroup.version]:
        folder = cgroup.folders.get(file.controller)
        top = str(kernel.cgroups if cgroup.version == 2 else kernel.cgroups / file.controller)
        while folder is not None and (folder := os.path.dirname(folder)).startswith(f"{top}/"):
            limiting = [fact for fact in _facts(folder, file) if not _is_unlimited(fact.value)]
            found.setdefault(folder.removeprefix(top), []).extend(limiting)
    for path in sorted(found, key=len, reverse=True):
        if found[path]:
            note = "above it: these limits hold for all that is in it together"
            yield Layer(kind=LayerKind.CGROUP, name=path, note=note, facts=tuple(found[path]))


def _facts(folder: str | None, file: _File) -> Iterator[Fact]:
    """Yield what the file says; nothing if it is empty or this kernel hasn't got it."""
    if folder is None:
        return
    path = f"{folder}/{file.name}"
    text = (read_text(path) or "").strip()
    if not text:
        return
    if not file.lines:
        note = _note(folder, file, text)
        yield Fact(name=file.name, value=text, note=note, command=f"cat {quote(path)}", is_live=file.is_live)
    for line in file.lines:
        value = value_in(f"{text}\n", line)
        if value is not None:
            command = f"grep '^{line} ' {quote(path)}"
            yield Fact(name=f"{file.name}: {line}", value=f"{line} {value}", command=command, is_live=file.is_live)


def _note(folder: str, file: _File, text: str) -> str:
    if file.is_bytes:
        return "no limit" if _is_unlimited(text) and not file.is_live else _size(text)
    if file.name == "cpu.max":
        return _quota(*text.split()[:2])
    if file.name == "cpu.cfs_quota_us":
        return _quota(text, (read_text(f"{folder}/cpu.cfs_period_us") or "").strip())
    if file.name == "pids.max" and _is_unlimited(text):
        return "no limit"
    if file.name == "cpuacct.usage" and text.isdecimal():
        return f"{int(text) / 1e9:.3f} s"
    return ""


def _is_unlimited(text: str) -> bool:
    """Say whether that is how the kernel writes that there is no limit.

    >>> [_is_unlimited(text) for text in ("max", "-1", "max 100000", "9223372036854771712", "67108864")]
    [True, True, True, True, False]
    """
    return text.startswith("max") or text == "-1" or (text.isdecimal() and int(text) >= _UNLIMITED_BYTES)


def _quota(quota: str, period: str = "") -> str:
    """Return a quota as a manifest writes it.

    >>> _quota("20000", "100000"), _quota("150000", "100000"), _quota("max", "100000"), _quota("-1", "100000")
    ('200m of a core', '1.5 cores', 'no limit', 'no limit')
    """
    if not quota.isdecimal() or not period.isdecimal() or period == "0":
        return "no limit"
    amount_m = round(1000 * int(quota) / int(period))
    return f"{amount_m}m of a core" if amount_m < 1000 else f"{amount_m / 1000:g} cores"


def _size(text: str) -> str:
    """Return bytes for people.

    >>> _size("67108864"), _size("1234567"), _size("12")
    ('64Mi', '1.18Mi', '12 bytes')
    """
    amount = int(text) if text.isdecimal() else 0
    for unit, size in _UNITS:
        if amount >= size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount} bytes"
