"""How a container is kept apart from its node: ulimits, capabilities, tmpfs, sysctls.

What isn't written means the safe default. What takes a container further needs a permission: manifests.permissions.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from manifests.base import Bytes, FieldError, Model
from manifests.permissions import BASE_CAPABILITIES, CapabilityName

LEAST_TMPFS_BYTES = 64 * 2**10
DEFAULT_TMPFS_BYTES = 64 * 2**20
UNLIMITED = -1
_SYSCTL = re.compile(r"[0-9]{1,10}(?:[ ,-][0-9]{1,10}){0,15}")
_ULIMIT = re.compile(r"(unlimited|[0-9]{1,18})(?::(unlimited|[0-9]{1,18}))?")


def _checked_ulimit(value: object) -> object:
    """Return it as `soft:hard`."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _ULIMIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a number, `unlimited`, or two of them as soft:hard, such as 1024:4096")
    soft, hard = match[1], match[2] or match[1]
    if hard != "unlimited" and (soft == "unlimited" or int(soft) > int(hard)):
        raise ValueError(f"the soft limit {soft} is above the hard one, {hard}: raise the second or lower the first")
    return f"{soft}:{hard}"


Ulimit = Annotated[str, BeforeValidator(_checked_ulimit)]


class UlimitsSpec(Model):
    """Of setrlimit(2), those that limit a process and give it no priority over others: soft[:hard]."""

    core: Ulimit | None = None
    cpu: Ulimit | None = None
    data: Ulimit | None = None
    fsize: Ulimit | None = None
    memlock: Ulimit | None = None
    msgqueue: Ulimit | None = None
    nofile: Ulimit | None = None
    nproc: Ulimit | None = None
    sigpending: Ulimit | None = None
    stack: Ulimit | None = None

    def given(self) -> dict[str, tuple[int, int]]:
        """Return the soft and the hard limit of each that is given, UNLIMITED where there is none."""
        return {name: ulimit_values(ulimit) for name, ulimit in self if ulimit is not None}


def ulimit_values(ulimit: str) -> tuple[int, int]:
    """Return the soft and the hard limit, UNLIMITED where there is none.

    >>> ulimit_values("1024:unlimited")
    (1024, -1)
    """
    soft, _, hard = ulimit.partition(":")
    return _number(soft), _number(hard)


def _number(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)


def _checked_sysctl(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _SYSCTL.fullmatch(text):
        raise ValueError("must be numbers, such as 1024 or '1024 65000'")
    return text


SysctlValue = Annotated[str, BeforeValidator(_checked_sysctl)]


class SysctlsSpec(Model):
    """Those that belong to a network namespace, so that a container changes nothing for others."""

    somaxconn: SysctlValue | None = Field(None, alias="net.core.somaxconn")
    local_port_range: SysctlValue | None = Field(None, alias="net.ipv4.ip_local_port_range")
    local_reserved_ports: SysctlValue | None = Field(None, alias="net.ipv4.ip_local_reserved_ports")
    unprivileged_port_start: SysctlValue | None = Field(None, alias="net.ipv4.ip_unprivileged_port_start")
    ping_group_range: SysctlValue | None = Field(None, alias="net.ipv4.ping_group_range")
    tcp_fin_timeout: SysctlValue | None = Field(None, alias="net.ipv4.tcp_fin_timeout")
    tcp_keepalive_interval: SysctlValue | None = Field(None, alias="net.ipv4.tcp_keepalive_intvl")
    tcp_keepalive_probes: SysctlValue | None = Field(None, alias="net.ipv4.tcp_keepalive_probes")
    tcp_keepalive_time: SysctlValue | None = Field(None, alias="net.ipv4.tcp_keepalive_time")
    tcp_max_syn_backlog: SysctlValue | None = Field(None, alias="net.ipv4.tcp_max_syn_backlog")
    tcp_syncookies: SysctlValue | None = Field(None, alias="net.ipv4.tcp_syncookies")
    tcp_tw_reuse: SysctlValue | None = Field(None, alias="net.ipv4.tcp_tw_reuse")

    def given(self) -> dict[str, str]:
        """Return the values by the kernel's names."""
        fields = type(self).model_fields
        return {fields[name].alias or name: value for name, value in self if value is not None}


_KERNELS = ("/proc", "/sys", "/dev")  # where the kernel's own files are


def _checked_place(path: str) -> str:
    parts = path.split("/")
    if path == "/" or ".." in parts or "." in parts or "" in parts[1:]:
        raise ValueError(
            f"'{path}' must be an absolute path in plain form, without '.', '..', '//' and a '/' at its end"
        )
    kernels = next((top for top in _KERNELS if path == top or path.startswith(f"{top}/")), None)
    if kernels is not None:
        hint = ": for /dev/shm there is shmSize" if path == "/dev/shm" else ""
        raise ValueError(f"nothing can be mounted in {kernels}, where the kernel's own files are{hint}")
    return path


# Where something can be mounted in a container.
Place = Annotated[
    str,
    Field(pattern=r"^/[!-+\--~]{0,1023}\z", description="an absolute path without spaces and commas"),
    AfterValidator(_checked_place),
]


class TmpfsSpec(Model):
    """A folder in memory: what is in it counts as the container's memory, and is gone with the container."""

    path: Place
    size_bytes: Annotated[Bytes, Field(ge=LEAST_TMPFS_BYTES)] = Field(DEFAULT_TMPFS_BYTES, alias="size")


class CapabilitiesSpec(Model):
    """What root in the container may do more, and less, than by default. `drop: [ALL]` begins with nothing."""

    add: tuple[CapabilityName, ...] = ()
    drop: tuple[CapabilityName | Literal["ALL"], ...] = ()

    def given(self) -> tuple[str, ...]:
        """Return what it has: the default without what is dropped, and what is added."""
        kept = () if "ALL" in self.drop else (name for name in BASE_CAPABILITIES if name not in self.drop)
        return tuple(sorted({*kept, *self.add}))


def refuse_shared_places(places: Iterable[tuple[tuple[str | int, ...], str]], taken: Iterable[str] = ()) -> None:
    """Raise FieldError at the second of two fields that name one place."""
    seen = set(taken)
    for field, place in places:
        if place in seen:
            raise FieldError(field, f"'{place}' is there twice: give each its own")
        seen.add(place)
