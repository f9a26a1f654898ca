"""Which driver an agent uses: the one that a flag names, else the one that it had, else the first that the node can do.

A new driver adds an Offer. The choice is written down in the agent's folder: should dockerd not answer after a reboot,
the agent waits for it, and doesn't run elsewhere what runs there.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.driver import Driver
from agent.drivers.docker import DockerDriver
from agent.drivers.oci import OciDriver
from agent.folder import Folder
from agent.options import AgentOptions
from agent.registries import Registries
from agent.state_file import STATE_FILE
from foundation.logs import Log
from manifests.errors import UnavailableError, UsageError

DRIVER_FILE = "driver"
OCI_FOLDER, CRI_LOGS = "oci", "logs"  # below the agent's data folder
_ANSWER_S = 2.0
_ASK_CRI_S = 15.0  # a Python starts, and asks
_ASK_CRI = """
import sys
from agent.drivers.cri_channel import answers_in
print(answers_in(sys.argv[1], float(sys.argv[2])))
"""
_CRI_SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")
_KUBELET = Path("/var/lib/kubelet/config.yaml")
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
    return _silent(options.docker_socket)


def _podman_missing(options: AgentOptions) -> str:
    return _silent(options.podman_socket)


def _silent(path: str) -> str:
    """Say why nothing answers on the socket as Docker does; any answer to a ping counts."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return "" if connection.recv(64).startswith(b"HTTP/") else f"{path} answers nothing"
        except OSError as error:
            return f"nothing answers at {path} ({error.strerror or error})"


def _cri_missing(options: AgentOptions) -> str:
    """Say why no runtime with the CRI is this agent's to drive. It is left to a kubelet where there is one."""
    if os.geteuid() != 0:
        return "it needs root"
    if importlib.util.find_spec("grpc") is None:
        return "the Python package grpcio is missing (`pip install wherry[cri]`)"
    if _KUBELET.exists():
        return "a kubelet drives the runtime, and removes what it doesn't know"
    path = _cri_socket(options)
    if not os.path.exists(path):
        return f"there is no {path}"
    # In a process of its own: gRPC would stay in the memory of agents that then use another driver.
    command = [sys.executable, "-c", _ASK_CRI, path, str(_ANSWER_S)]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_ASK_CRI_S, check=False, text=True).stdout.strip()
    except subprocess.TimeoutExpired:
        answer = ""
    return "" if answer == "True" else f"{path} doesn't speak the CRI (runtime.v1)"


def _cri(options: AgentOptions) -> Driver:
    """Make the driver; gRPC is an extra that other drivers don't need."""
    if importlib.util.find_spec("grpc") is None:
        raise UnavailableError("the driver cri needs the Python package grpcio", fix="Run `pip install wherry[cri]`.")
    from agent.drivers.cri import CriDriver

    return CriDriver(_cri_socket(options), log_root=options.data_dir / CRI_LOGS, registries=registries_of(options))


def _cri_socket(options: AgentOptions) -> str:
    """Return the socket that was given, else containerd's, or CRI-O's where there is only that."""
    return options.cri_socket or next((path for path in _CRI_SOCKETS if os.path.exists(path)), _CRI_SOCKETS[0])


def _oci_missing(options: AgentOptions) -> str:
    if os.geteuid() != 0:
        return "it needs root"
    wanted = (options.oci_runtime,) if options.oci_runtime else ("crun", "runc", "youki")
    if not any(map(shutil.which, wanted)):
        return f"there is no {' or '.join(wanted)}"
    return "" if shutil.which("conmon") else "there is no conmon"


def registries_of(options: AgentOptions) -> Registries:
    """Return the node's file of registries. Raises InvalidError if that is wrong: better now than at the first pull."""
    file = options.registries_file
    registries = Registries() if file is None else Registries(file, is_optional=False)
    registries.check()
    return registries


# The preferred first: operators see in `docker ps` what runs.
OFFERS = (
    Offer(
        "docker",
        _docker_missing,
        lambda options: DockerDriver(options.docker_socket, registries=registries_of(options)),
    ),
    Offer(
        "podman",
        _podman_missing,
        lambda options: DockerDriver(options.podman_socket, registries=registries_of(options)),
    ),
    Offer("cri", _cri_missing, _cri),
    Offer(
        "oci",
        _oci_missing,
        lambda options: OciDriver(
            options.data_dir / OCI_FOLDER,
            image_dirs=options.image_dirs,
            runtime=options.oci_runtime,
            registries=registries_of(options),
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
