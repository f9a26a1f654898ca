"""What takes a container beyond the safe defaults: its node's operator allows it (`wherry agent --allow`), or not.

No manifest and no server can raise that ceiling. Pure, without pydantic: constraints, manifests and agents share it.
"""

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

# What root in a container may do by default, with every driver. Beside Docker's list: no NET_RAW, which forges packets
# of other containers on the bridge.
BASE_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
# Source: capabilities(7).
CapabilityName = Literal[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
]
Permission: TypeAlias = str  # capability:NAME | seccomp:unconfined | new-privileges | host-path:/PATH
NEW_PRIVILEGES, UNCONFINED = "new-privileges", "seccomp:unconfined"
CAPABILITY, HOST_PATH = "capability:", "host-path:"
ANY_CAPABILITY = f"{CAPABILITY}ALL"
PERMISSION = re.compile(rf"{NEW_PRIVILEGES}|{UNCONFINED}|{CAPABILITY}[A-Z_]{{2,32}}|{HOST_PATH}/[!-~]{{0,1023}}")


def is_capability(permission: Permission) -> bool:
    """Say whether it names a capability that there is, or all of them."""
    return permission.removeprefix(CAPABILITY) in (*get_args(CapabilityName), "ALL")


def lacking(needed: Iterable[Permission], allowed: Iterable[Permission]) -> tuple[Permission, ...]:
    """Return what of the needed permissions isn't given. A folder that is allowed allows what is below it.

    >>> lacking(["capability:NET_ADMIN", "host-path:/srv/a/b", "host-path:/srv/ab"], ["host-path:/srv/a"])
    ('capability:NET_ADMIN', 'host-path:/srv/ab')
    """
    given = frozenset(allowed)
    return tuple(permission for permission in needed if not _is_allowed(permission, given))


def _is_allowed(permission: Permission, allowed: frozenset[Permission]) -> bool:
    if permission in allowed:
        return True
    if permission.startswith(CAPABILITY):
        return ANY_CAPABILITY in allowed
    folders = (word.rstrip("/") for word in allowed if word.startswith(HOST_PATH))
    return any(permission.startswith(f"{folder}/") for folder in folders)
