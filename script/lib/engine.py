"""A Docker engine for the demo: the machine's own if one answers, else one that is started here and leaves no trace.

Its own engine has its own folder, socket and bridge, and touches no firewall rules: published ports are answered by
Docker's userland proxy alone.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSTEM_SOCKET = Path("/var/run/docker.sock")
BRIDGE = "wherry-demo0"
BRIDGE_ADDRESS = "10.213.77.1/24"
READY_S = 60.0


@contextmanager
def engine(folder: Path) -> Iterator[Path]:
    """Yield the socket of an engine that answers. Raises SystemExit with what to do if there can be none."""
    if _answers(SYSTEM_SOCKET):
        yield SYSTEM_SOCKET
        return
    if os.geteuid() != 0:
        raise SystemExit(
            "demo: no Docker engine answers, and starting one needs root: run it with sudo, or start Docker."
        )
    if shutil.which("dockerd") is None:
        raise SystemExit("demo: there is no Docker engine: `apt-get install docker.io` brings one.")
    print("demo: no Docker engine answers, so one is started for the demo alone", flush=True)
    started = _start(folder)
    try:
        _await(folder / "docker.sock", started, folder / "dockerd.log")
        yield folder / "docker.sock"
    finally:
        _stop(started, folder)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in probe.recv(64)
        except OSError:
            return False


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    # Without live-restore its containers end with it, however the demo ends.
    config = {"live-restore": False, "iptables": False, "ip-masq": False, "bridge": BRIDGE}
    (folder / "daemon.json").write_text(json.dumps(config))
    command = [
        "dockerd",
        *("--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "dockerd.pid")),
        *("-H", f"unix://{folder / 'docker.sock'}"),
    ]
    with (folder / "dockerd.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _await(path: Path, started: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not _answers(path):
        if started.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise SystemExit(f"demo: the Docker engine did not start; its last words:\n{tail}")
        time.sleep(0.1)


def _stop(started: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End the engine with all that it started, and take away its bridge and mounts."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    try:
        started.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    _ip("link", "delete", BRIDGE)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        mount = line.split()[1]
        if mount.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=False, capture_output=True)
