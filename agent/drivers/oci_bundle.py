"""Writes the config.json of a bundle: the driver's words in those of the OCI runtime specification. Pure.

Source: the OCI runtime specification 1.0.2, config.md and config-linux.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.cgroups import has_io_weight
from agent.driver import ContainerSpec, ImageError
from agent.drivers.oci_images import Image
from agent.drivers.spec_checks import check_limits
from agent.drivers.weights import cpu_shares, io_weight_v1
from manifests.errors import InvalidError
from manifests.permissions import BASE_CAPABILITIES

Json: TypeAlias = dict[str, Any]
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 << 20
_CPU_PERIOD_US = 100_000
_LEAST_CPU_QUOTA_US = 1_000  # the kernel refuses less: 10 millicores
_NO_LIMIT = 2**64  # -1 becomes the largest number, which stands for none

# Calls that reach the kernel's own parts, or out of the box; programs in containers don't make them.
_REFUSED_CALLS = (
    *("acct", "add_key", "bpf", "create_module", "delete_module", "fanotify_init", "finit_module", "fsconfig"),
    *("fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load"),
    *("kexec_load", "keyctl", "lookup_dcookie", "mbind", "migrate_pages", "mount", "mount_setattr", "move_mount"),
    *("move_pages", "name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open"),
    *("pivot_root", "process_vm_readv", "process_vm_writev", "query_module", "quotactl", "reboot", "request_key"),
    *("set_mempolicy", "setns", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "swapoff"),
    *("swapon", "sysfs", "syslog", "_sysctl", "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat"),
    *("vhangup", "vm86", "vm86old"),
)
_SECCOMP: Json = {
    "seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": list(_REFUSED_CALLS), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
}
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Device:
    path: str
    kind: str  # c | b
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Around:
    """What the container finds on this node, besides its spec and its image."""

    root: Path  # where its file system is mounted
    user: User
    hostname: str
    cgroup: str
    network: str | None  # the path of the namespace that it joins, "" for one of its own, None for the host's
    files: Sequence[tuple[Path, str]] = ()  # of ours: /etc/hosts and the like, each with its place inside
    devices: Sequence[Device] = ()
    has_cgroup_v2: bool = False
    oom_score: int = 0  # how likely the kernel kills it when the host runs out of memory


def bundle_config(spec: ContainerSpec, image: Image, around: Around) -> Json:
    """Return the config.json. Raises ImageError if nothing says what to run."""
    return {
        "ociVersion": "1.0.2",
        "process": _process(spec, image, around),
        "root": {"path": str(around.root), "readonly": spec.read_only_root},
        "hostname": around.hostname,
        "mounts": _mounts(spec, image, around),
        "annotations": dict(spec.labels),
        "linux": {
            "cgroupsPath": around.cgroup,
            "namespaces": _namespaces(around),
            "resources": {**to_limits(spec, cgroup_v2=around.has_cgroup_v2), **_devices(around.devices)},
            "devices": [
                {"path": d.path, "type": d.kind, "major": d.major, "minor": d.minor, "fileMode": 0o660, "uid": 0}
                for d in around.devices
            ],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            **(_SECCOMP if spec.isolation.is_confined else {}),
            **_sysctl(spec, around),
        },
    }


def _process(spec: ContainerSpec, image: Image, around: Around) -> Json:
    given = spec.isolation.capabilities
    may = [f"CAP_{name}" for name in (BASE_CAPABILITIES if given is None else given)]
    now = may if around.user.uid == 0 else []  # another user has what its files give it, which is nothing
    return {
        "terminal": False,
        "user": {"uid": around.user.uid, "gid": around.user.gid, "additionalGids": list(around.user.groups)},
        "args": list(command_of(spec, image)),
        "env": _env(spec, image, around),
        "cwd": spec.working_dir or image.working_dir or "/",
        "capabilities": {"bounding": may, "effective": now, "permitted": now},
        "noNewPrivileges": not spec.isolation.may_gain_privileges,
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": soft % _NO_LIMIT, "hard": hard % _NO_LIMIT}
            for name, (soft, hard) in spec.isolation.ulimits.items()
        ],
        "oomScoreAdj": around.oom_score,
    }


def command_of(spec: ContainerSpec, image: Image) -> tuple[str, ...]:
    """Return what is run, as Docker puts it together: a command of the spec replaces all that the image says."""
    words = (*spec.command, *spec.args) if spec.command else (*image.entrypoint, *(spec.args or image.command))
    if not words:
        raise ImageError(
            f"cannot create container {spec.name}",
            why=f"image {spec.image} says nothing of what to run",
            fix="Give it a `command`.",
        )
    return words


def _env(spec: ContainerSpec, image: Image, around: Around) -> list[str]:
    """Return the variables: of the image over our own, of the spec over all."""
    variables = {"PATH": DEFAULT_PATH, "HOME": around.user.home, "HOSTNAME": around.hostname}
    variables |= dict(pair.split("=", 1) for pair in image.env if "=" in pair)
    return [f"{name}={value}" for name, value in (variables | dict(spec.env)).items()]


def _mounts(spec: ContainerSpec, image: Image, around: Around) -> list[Json]:
    shm = f"size={spec.isolation.shm_bytes or DEFAULT_SHM_BYTES}"
    mounts: list[Json] = [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "strictatime", "mode=755", "size=65536k", nodev=False),
        _mount("/dev/pts", "devpts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", nodev=False),
        _mount("/dev/shm", "tmpfs", "shm", "mode=1777", shm),
        _mount("/dev/mqueue", "mqueue", "mqueue"),
        _mount("/sys", "sysfs", "sysfs", "ro"),
    ]
    if around.has_cgroup_v2:  # with version 1 this would be a dozen mounts more for each container
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro"))
    mounts += [_bind(path, path) for path in image.binds]
    mounts += [_mount(t.path, "tmpfs", "tmpfs", "mode=1777", f"size={t.size_bytes}") for t in spec.isolation.tmpfs]
    mounts += [_bind(str(path), target) for path, target in around.files]
    mounts += [_bind(mount.source, mount.target, read_only=mount.read_only) for mount in spec.mounts]
    return mounts


def _mount(target: str, kind: str, source: str, *options: str, nodev: bool = True) -> Json:
    safe = ("nosuid", "noexec", *(("nodev",) if nodev else ()))
    return {"destination": target, "type": kind, "source": source, "options": [*safe, *options]}


def _bind(source: str, target: str, *, read_only: bool = True) -> Json:
    options = ["rbind", "ro", "rprivate"] if read_only else ["rbind", "rw", "rprivate", "nosuid", "nodev"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _namespaces(around: Around) -> list[Json]:
    namespaces: list[Json] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if around.has_cgroup_v2:
        namespaces.append({"type": "cgroup"})
    if around.network is not None:
        namespaces.append({"type": "network", **({"path": around.network} if around.network else {})})
    return namespaces


def _sysctl(spec: ContainerSpec, around: Around) -> Json:
    """In a network of its own, any user may listen on any port: there is nobody to protect from that."""
    usual = {"net.ipv4.ip_unprivileged_port_start": "0"} if around.network == "" else {}
    return {"sysctl": usual | dict(spec.isolation.sysctls)}


def to_limits(spec: ContainerSpec, *, cgroup_v2: bool) -> Json:
    """Return the cgroup's limits. Raises InvalidError when one is missing."""
    check_limits(spec)
    limits = spec.limits
    shares = {"shares": cpu_shares(limits.cpu_weight, cgroup_v2=cgroup_v2)} if limits.cpu_weight else {}
    soft = {"reservation": limits.memory_soft_bytes} if limits.memory_soft_bytes else {}
    has_io = limits.io_weight is not None and has_io_weight()
    return {
        "cpu": {
            "period": _CPU_PERIOD_US,
            "quota": max(_LEAST_CPU_QUOTA_US, limits.cpu_m * _CPU_PERIOD_US // 1000),
            **shares,
        },
        "memory": {"limit": limits.memory_bytes, "swap": limits.memory_bytes, **soft},  # together: no swap
        "pids": {"limit": limits.pids},
        **({"blockIO": {"weight": io_weight_v1(limits.io_weight or 0)}} if has_io else {}),
    }


def _devices(devices: Sequence[Device]) -> Json:
    allowed = [
        {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": "rwm"}
        for device in devices
    ]
    return {"devices": [{"allow": False, "access": "rwm"}, *allowed]}


def user_of(text: str, passwd: str, group: str) -> User:
    """Return who `name`, `uid`, `name:group` or `uid:gid` is, by the image's files. Raises InvalidError.

    >>> user_of("web", "web:x:101:102::/srv:/bin/sh", "www:x:103:web")
    User(uid=101, gid=102, groups=(103,), home='/srv')
    >>> user_of("7:www", "", "www:x:103:web")
    User(uid=7, gid=103, groups=(), home='/')
    """
    named, _, of_group = text.partition(":")
    users, groups = _entries(passwd, 7), _entries(group, 4)
    entry = next((line for line in users if named in (line[0], line[2])), None) if named else None
    if entry is None and named and not named.isdecimal():
        raise InvalidError(
            f"the image has no user {named}",
            why="its /etc/passwd has no such line" if users else "it has no /etc/passwd",
            fix="Set `user` to one of the image's, or to numbers (`1000:1000`).",
        )
    uid = int(entry[2]) if entry else int(named or 0)
    home = (entry[5] if entry else "") or ("/root" if uid == 0 else "/")
    if of_group:
        found = next((line[2] for line in groups if line[0] == of_group), of_group)
        if not found.isdecimal():
            raise InvalidError(f"the image has no group {of_group}", fix="Set `user` to numbers (`1000:1000`).")
        return User(uid, int(found), (), home)
    also = tuple(int(line[2]) for line in groups if entry and entry[0] in line[3].split(",")) if entry else ()
    return User(uid, int(entry[3]) if entry else 0, also, home)


def _entries(text: str, fields: int) -> list[list[str]]:
    """Return the lines of a passwd or group file that have numbers where numbers belong."""
    lines = [line.split(":") for line in text.splitlines()]
    return [
        line for line in lines if len(line) == fields and line[2].isdecimal() and (fields < 7 or line[3].isdecimal())
    ]
