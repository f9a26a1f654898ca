"""What no container manager may be asked for, whichever it is: said before it gets it wrong in its own way."""

import os

from agent.driver import ContainerSpec
from manifests.errors import DriverError, InvalidError


def check_limits(spec: ContainerSpec) -> None:
    """Raise InvalidError for a limit of 0, which means no limit at all to managers."""
    limits = spec.limits
    if min(limits.cpu_m, limits.memory_bytes, limits.pids) < 1:
        raise InvalidError(
            f"cannot create container {spec.name}",
            why=f"a limit is missing: cpu {limits.cpu_m}m, memory {limits.memory_bytes} bytes, pids {limits.pids}",
            fix="Give cpu, memory and pids a value above 0 under `resources` or `limits`.",
        )


def check_mounts(spec: ContainerSpec) -> None:
    """Raise DriverError for a source that is missing, of which some managers make an empty folder. Reads the disk."""
    for mount in spec.mounts:
        if not os.path.exists(mount.source):
            raise DriverError(
                f"cannot create container {spec.name}",
                why=f"{mount.source}, which it is to see at {mount.target}, is not there",
                fix="It was removed since the container was ordered, or never made: look at the agent's log.",
            )
