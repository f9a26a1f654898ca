"""Which driver an agent uses: the one that a flag names, else the one that it had, else the first that the node can do.

A new driver adds an Offer. The choice is written down in the agent's folder: should dockerd not answer after a reboot,
the agent waits for it, and doesn't run elsewhere what runs there.
"""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.driver import Driver
from agent.drivers.docker import DockerDriver
from agent.drivers.oci import OciDriver
from agent.folder import Folder
from agent.options import AgentOptions
from agent.state_file import STATE_FILE
from foundation.logs import Log
from manifests.errors import UnavailableError, UsageError

DRIVER_FILE = "driver"
OCI_FOLDER = "oci"  # below the agent's data folder
_ANSWER_S = 2.0
_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """One driver: why this node can't have it ("" if it can), and how it is made."""

    name: str
    missing: Callable[[AgentOptions], str]
    make: Callable[[AgentOptions], Driver]


@dataclass(frozen=True, slots=True)
class Choice:
    name: str
    available: tuple[str, ...]  # all that this node can have, the preferred first
    make: Callable[[AgentOptions], Driver]


def _docker_missing(options: AgentOptions) -> str:
    """Say why no dockerd answers on the socket; any answer to a ping counts."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(options.docker_socket)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return "" if connection.recv(64).startswith(b"HTTP/") else f"{options.docker_socket} answers nothing"
        except OSError as error:
            return f"nothing answers at {options.docker_socket} ({error.strerror or error})"


def _oci_missing(options: AgentOptions) -> str:
    if os.geteuid() != 0:
        return "it needs root"
    wanted = (options.oci_runtime,) if options.oci_runtime else ("crun", "runc", "youki")
    if not any(map(shutil.which, wanted)):
        return f"there is no {' or '.join(wanted)}"
    return "" if shutil.which("conmon") else "there is no conmon"


# The preferred first: operators see in `docker ps` what runs.
OFFERS = (
    Offer("docker", _docker_missing, lambda options: DockerDriver(options.docker_socket)),
    Offer(
        "oci",
        _oci_missing,
        lambda options: OciDriver(
            options.data_dir / OCI_FOLDER, image_dirs=options.image_dirs, runtime=options.oci_runtime
        ),
    ),
)


def choose(options: AgentOptions, folder: Folder) -> Choice:
    """Return the driver to use, and write it down. Blocks for some seconds where a manager hangs.

    Raises UsageError for a name that isn't known, and UnavailableError if nothing is installed and none was named.
    """
    missing = {offer.name: offer.missing(options) for offer in OFFERS}
    available = tuple(name for name, why in missing.items() if not why)
    kept = _kept(folder)
    name = options.driver or kept or next(iter(available), "")
    if not name:
        raise UnavailableError(
            "this node has nothing that runs containers",
            why="; ".join(f"{driver}: {why}" for driver, why in missing.items()),
            fix="Install Docker (Debian: `apt install docker.io`), or a runtime alone (`apt install crun conmon`).",
        )
    offer = next((offer for offer in OFFERS if offer.name == name), None)
    if offer is None:
        raise UsageError(f"there is no driver {name}", fix=f"Write one of {', '.join(missing)}.")
    if missing[name]:
        _log.warning("driver is not available now", driver=name, why=missing[name])
    if kept and name != kept:
        _log.warning("driver was changed", driver=name, before=kept, note="what the other one runs is left to itself")
    if name != kept:
        folder.write(DRIVER_FILE, f"{name}\n".encode())
    return Choice(name, available, offer.make)


def _kept(folder: Folder) -> str:
    """Return the driver of the agent before this one: docker if that was of a time when there was no other."""
    try:
        return folder.read(DRIVER_FILE).decode().strip()
    except FileNotFoundError:
        pass
    try:
        folder.read(STATE_FILE)
    except FileNotFoundError:
        return ""
    return "docker"
