"""Between the driver's words and the Docker Engine's JSON: pure, no I/O. Used by agent.drivers.docker alone."""

import base64
import calendar
import json
import re
import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from time import strptime
from typing import Any, TypeAlias

from agent.driver import (
    SANDBOX_IMAGE,
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    HeldImage,
    Isolation,
    Limits,
    LogChunk,
)
from agent.drivers.spec_checks import check_limits
from agent.drivers.weights import cpu_shares, io_weight_v1
from agent.registries import Access
from manifests.errors import DriverError

Json: TypeAlias = dict[str, Any]

LOG_FILE_SIZE = "10m"  # a container's logs take three such files at most
LOG_FILES = "3"
_CPU_PERIOD_US = 100_000
JOINED = "container:"  # before the id of the container in whose network another one lives
_LEAST_CPU_QUOTA_US = 1_000  # the kernel refuses less: 10 millicores

_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.RUNNING,
    "restarting": ContainerState.RUNNING,
    "removing": ContainerState.EXITED,
    "exited": ContainerState.EXITED,
    "dead": ContainerState.EXITED,
}


def to_create_body(spec: ContainerSpec, *, cgroup_v2: bool = False) -> Json:
    """Return the body of `POST /containers/create`. Raises InvalidError when a limit is missing."""
    check_limits(spec)
    body: Json = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": dict(spec.labels),
        "StopSignal": spec.stop_signal,
        "Healthcheck": {"Test": ["NONE"]},  # health is the agent's: an image's own check would only cost an exec each
        "HostConfig": _host_config(spec, cgroup_v2=cgroup_v2),
    }
    has_own_network = not spec.host_network and spec.network_of is None
    optional: Json = {
        "Entrypoint": list(spec.command),
        "Cmd": list(spec.args),
        "WorkingDir": spec.working_dir,
        "User": spec.user,
        "Hostname": spec.hostname if spec.network_of is None else "",
    }
    body |= {field: value for field, value in optional.items() if value}
    if has_own_network:
        body["ExposedPorts"] = {f"{port.container_port}/{port.protocol}": {} for port in spec.ports}
    return body


def _host_config(spec: ContainerSpec, *, cgroup_v2: bool) -> Json:
    config: Json = {
        **to_limits(spec.limits, cgroup_v2=cgroup_v2),
        **_isolation(spec.isolation),
        "NetworkMode": _network_mode(spec),
        "ReadonlyRootfs": spec.read_only_root,
        "RestartPolicy": {"Name": "no"},  # restarts are the agent's, which counts them and backs off
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_SIZE, "max-file": LOG_FILES}},
    }
    if spec.cgroup_parent:
        config["CgroupParent"] = spec.cgroup_parent
    if spec.runtime and spec.image != SANDBOX_IMAGE:
        config["Runtime"] = spec.runtime
    if spec.devices:
        config["Devices"] = [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in spec.devices
        ]
    if spec.mounts:
        # Unlike Binds, these fail when the source is missing, where Docker would make a folder of that name.
        config["Mounts"] = [
            {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
            for mount in spec.mounts
        ]
    if not spec.host_network and spec.network_of is None:
        bindings: dict[str, list[Json]] = {}
        for port in spec.ports:
            bound = {"HostIp": port.host_address, "HostPort": str(port.host_port)}
            bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(bound)
        config["PortBindings"] = bindings
    return config


def _network_mode(spec: ContainerSpec) -> str:
    if spec.network_of is not None:
        return f"{JOINED}{spec.network_of}"
    return "host" if spec.host_network else "bridge"


def _isolation(isolation: Isolation) -> Json:
    options = [
        *(() if isolation.may_gain_privileges else ("no-new-privileges",)),
        *(() if isolation.is_confined else ("seccomp=unconfined",)),
    ]
    config: Json = {"SecurityOpt": options, "CapDrop": ["NET_RAW"]}  # it forges packets of other containers
    if isolation.capabilities is not None:
        config |= {"CapDrop": ["ALL"], "CapAdd": list(isolation.capabilities)}
    optional: Json = {
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in isolation.ulimits.items()],
        "Tmpfs": {tmpfs.path: f"size={tmpfs.size_bytes},mode=1777,noexec,nosuid,nodev" for tmpfs in isolation.tmpfs},
        "ShmSize": isolation.shm_bytes,
        "Sysctls": dict(isolation.sysctls),
    }
    return config | {field: value for field, value in optional.items() if value}


def to_limits(limits: Limits, *, cgroup_v2: bool) -> Json:
    """Return the cgroup's limits.

    The quota is given in microseconds because Docker refuses NanoCpus beyond the machine's count of CPUs.
    """
    optional: Json = {
        "CpuShares": limits.cpu_weight and cpu_shares(limits.cpu_weight, cgroup_v2=cgroup_v2),
        "BlkioWeight": limits.io_weight and io_weight_v1(limits.io_weight),
        "MemoryReservation": limits.memory_soft_bytes,
    }
    return {field: value for field, value in optional.items() if value} | {
        "CpuPeriod": _CPU_PERIOD_US,
        "CpuQuota": max(_LEAST_CPU_QUOTA_US, limits.cpu_m * _CPU_PERIOD_US // 1000),
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together
        "PidsLimit": limits.pids,
    }


def to_container(inspected: Json) -> Container:
    """Return the container that `GET /containers/{id}/json` describes."""
    state, config = inspected["State"], inspected["Config"]
    network = str((inspected.get("HostConfig") or {}).get("NetworkMode", ""))
    phase = _STATES.get(state["Status"], ContainerState.EXITED)
    started_s = to_seconds(state["StartedAt"])
    if phase is ContainerState.EXITED and not started_s:
        phase = ContainerState.CREATED  # it is being removed and never ran: its exit code means nothing
    return Container(
        id=ContainerId(inspected["Id"]),
        name=inspected["Name"].removeprefix("/"),
        labels=config["Labels"] or {},
        image=config["Image"],
        state=phase,
        pid=state["Pid"] if phase is ContainerState.RUNNING else 0,
        exit_code=state["ExitCode"] if phase is ContainerState.EXITED else None,
        oom_killed=state["OOMKilled"],  # true is certain; beside 137, false is not: containerd may lose the event
        error=state["Error"],
        started_s=started_s,
        # While it runs, Docker still tells the end of the run before. The end of a very short run is stamped by
        # containerd, sometimes a moment before dockerd stamps the start.
        finished_s=max(started_s, to_seconds(state["FinishedAt"])) if phase is ContainerState.EXITED else 0.0,
        address=_address(inspected["NetworkSettings"]),
        network_of=network.removeprefix(JOINED) if network.startswith(JOINED) else "",
    )


def _address(settings: Json) -> str:
    networks: Mapping[str, Json] = settings.get("Networks") or {}
    return next((str(network["IPAddress"]) for network in networks.values() if network.get("IPAddress")), "")


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


def to_seconds(text: str) -> float:
    """Return an RFC 3339 time as seconds since the epoch, 0.0 for Go's zero time.

    >>> to_seconds("1970-01-01T00:01:00.250000001Z"), to_seconds("0001-01-01T00:00:00Z")
    (60.250000001, 0.0)
    """
    match = _TIME.fullmatch(text)
    if match is None or text.startswith("0001-"):
        return 0.0
    whole, fraction, zone = match.groups()
    return datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp() + float(fraction or 0)


def with_tag(image: str) -> str:
    """Return the reference with a tag or a digest: without one, Docker would pull every tag of the repository.

    >>> with_tag("nginx"), with_tag("host:5000/web"), with_tag("web:1"), with_tag("web@sha256:abc")
    ('nginx:latest', 'host:5000/web:latest', 'web:1', 'web@sha256:abc')
    """
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def to_held_image(image: Json, used: AbstractSet[str]) -> HeldImage:
    """Return an image of a list; `used` are the ids of those that containers have."""
    names = (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ()))
    known = tuple(name for name in names if "<none>" not in name)
    is_used = _hex(str(image["Id"])) in map(_hex, used)
    return HeldImage(str(image["Id"]), known, int(image.get("Size", 0)), is_used)


def _hex(image_id: str) -> str:
    """Return the id without its kind, which Podman leaves out in some answers."""
    return image_id.removeprefix("sha256:")


def to_auth_header(access: Access) -> dict[str, str]:
    """Return the header that has the credentials for a pull; dockerd gives them to the image's registry alone."""
    if not access.username:
        return {}
    words = {"username": access.username, "password": access.password, "serveraddress": access.address}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(words).encode()).decode()}


_HEADER = struct.Struct(">BxxxI")
TIME_BYTES = len("2026-11-24T22:15:00.123456789Z ")
_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr", 3: "stderr"}  # 3 is dockerd's own complaint


class Frames:
    """Takes apart Docker's multiplexed output: 8 bytes of header (stream, length), then that many bytes.

    Chunks may be cut anywhere. Payload is passed on as it comes, so that a huge frame is never held whole; what comes
    together of one stream, a frame for each line, is passed on together. Docker splits long lines into several frames;
    `is_timed` says that each begins with a time, which is left out where a line only goes on.
    """

    def __init__(self, *, is_timed: bool = False) -> None:
        self._is_timed = is_timed
        self._header = b""
        self._stream = ""
        self._left = 0
        self._skip = 0  # bytes of the frame that are left out
        self._is_within_line: dict[str, bool] = {}  # by stream: its last frame didn't end one

    def feed(self, data: bytes) -> list[LogChunk]:
        """Return what the bytes complete, in order."""
        runs: list[tuple[str, list[bytes]]] = []
        data, at = self._header + data, 0
        self._header = b""
        while at < len(data):
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                piece, self._skip = piece[self._skip :], max(0, self._skip - len(piece))
                if not piece:
                    continue
                self._is_within_line[self._stream] = not piece.endswith(b"\n")
                if not runs or runs[-1][0] != self._stream:
                    runs.append((self._stream, []))
                runs[-1][1].append(piece)
            elif len(data) - at < _HEADER.size:
                self._header = data[at:]
                break
            else:
                self._begin(*_HEADER.unpack_from(data, at))
                at += _HEADER.size
        return [LogChunk(stream, b"".join(pieces)) for stream, pieces in runs]

    def _begin(self, kind: int, length: int) -> None:
        if kind not in _STREAMS:
            raise DriverError(
                "cannot read a container's output",
                why=f"docker sent a frame of the unknown kind {kind}",
                fix="Was the container created with a terminal by someone else? Read it with `docker logs`.",
            )
        self._stream, self._left = _STREAMS[kind], length
        self._skip = TIME_BYTES if self._is_timed and self._is_within_line.get(self._stream) else 0


def to_unix_time(time: str) -> str:
    """Return the time as Docker takes it in queries: seconds since the epoch, exact to the nanosecond.

    >>> to_unix_time("1970-01-01T00:01:00.000000007Z")
    '60.000000007'
    """
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{calendar.timegm(strptime(whole, '%Y-%m-%dT%H:%M:%S'))}.{fraction:0<9}"
