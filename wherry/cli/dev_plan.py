"""What `wherry dev` runs: folders, addresses, and the command of each process. Starts nothing itself."""

import hashlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from manifests.errors import ConflictError, UnavailableError, UsageError
from manifests.quantities import render_bytes, render_cpu
from wherry.cli.machine import Capacity

HOST = "127.0.0.1"
MOST_NODES = 50
ZONES = "abc"  # the nodes are in one of these in turn, so that there is something to spread over
SETTINGS_FILE = "settings.json"


class Plan(NamedTuple):
    """One cluster on this machine, all of which is under one folder."""

    data_dir: Path
    nodes: int
    port: int
    store: str  # sqlite or etcd
    etcd_endpoints: str  # of an etcd that runs already; "" for one of our own
    etcd_ports: tuple[int, int]  # client and peer
    docker: str
    has_cgroupfs: bool  # dockerd leaves it to us where a node's cgroups are
    part: Capacity  # of each node
    driver: str = "docker"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def names(self) -> list[str]:
        return [f"n{i}" for i in range(1, self.nodes + 1)]

    @property
    def cgroup_parent(self) -> str:
        return f"/wherry-{hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:8]}"

    @property
    def has_own_etcd(self) -> bool:
        return self.store == "etcd" and not self.etcd_endpoints

    @property
    def images_dir(self) -> Path:
        """Where images of driver oci in files may lie."""
        return self.data_dir / "images"

    @property
    def nodes_dir(self) -> Path:
        return self.data_dir / "nodes"

    @property
    def server_dir(self) -> Path:
        return self.data_dir / "server"

    def etcd_command(self) -> list[str]:
        client, peer = (f"http://{HOST}:{port}" for port in self.etcd_ports)
        return [
            *("etcd", "--name", "wherry-dev", "--data-dir", str(self.data_dir / "etcd"), "--logger", "zap"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"wherry-dev={peer}", "--log-level", "warn"),
        ]

    def server_command(self) -> list[str]:
        store = f"sqlite:{self.server_dir / 'store.db'}"
        if self.store == "etcd":
            store = f"etcd:{self.etcd_endpoints or f'http://{HOST}:{self.etcd_ports[0]}'}"
        return [
            *wherry_command(),
            *("server", "--name", "server", "--store", store, "--listen", f"{HOST}:{self.port}"),
            *("--data-dir", str(self.server_dir)),
        ]

    def agent_command(self, name: str) -> list[str]:
        """Return the command of a node's agent. Each has a zone, and a loopback address of its own for its ports."""
        number = self.names.index(name) + 1
        return [
            *wherry_command(),
            *("agent", "--name", name, "--server", self.url, "--data-dir", str(self.nodes_dir / name)),
            *("--join-token-file", str(self.server_dir / "join.token"), "--driver", self.driver),
            *(("--docker", self.docker) if self.driver == "docker" else ("--image-dir", str(self.images_dir))),
            *("--cpu", render_cpu(self.part.cpu_m), "--memory", render_bytes(self.part.memory_bytes)),
            *("--pids", str(self.part.pids), "--publish-address", f"127.0.1.{number}"),
            *("--label", f"zone={ZONES[(number - 1) % len(ZONES)]}"),
            *(("--cgroup-parent", f"{self.cgroup_parent}/{name}") if self.has_cgroupfs else ()),
        ]


def wherry_command() -> list[str]:
    return [sys.executable, "-m", "wherry"]


def child_env() -> dict[str, str]:
    """Return the environment of children: this very code, and nothing that would point them elsewhere."""
    root = str(Path(__file__).resolve().parents[2])
    env = {key: value for key, value in os.environ.items() if not key.startswith("WHERRY_")}
    return env | {"PYTHONPATH": os.pathsep.join(p for p in (root, env.get("PYTHONPATH")) if p)}


def check_port(port: int) -> int:
    """Return the port, a free one for 0. Raises ConflictError if somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConflictError(
                f"port {port} of {HOST} is taken",
                why=(error.strerror or str(error)).lower(),
                fix="Stop what listens there, or choose another with --port (0 takes a free one).",
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen


def settle_store(data_dir: Path, store: str | None, endpoints: str) -> tuple[str, str]:
    """Return the store kind and endpoints: those of the cluster in the folder, if there is one already.

    Raises UsageError if another one is asked for: the nodes belong to the cluster that is there.
    """
    path = data_dir / SETTINGS_FILE
    asked = (store or ("etcd" if endpoints else "sqlite"), endpoints)
    if endpoints and asked[0] != "etcd":
        raise UsageError("--etcd-endpoints goes with --store etcd")
    if path.exists():
        kept = json.loads(path.read_text())
        known = (str(kept["store"]), str(kept["etcdEndpoints"]))
        if (store or endpoints) and asked != known:
            raise UsageError(
                f"the cluster in {data_dir} is kept in {known[0]}",
                why=f"{asked[0]} was asked for" if asked[0] != known[0] else f"at {known[1] or 'an etcd of its own'}",
                fix="Leave the store away to go on with it, or choose another folder with --data-dir.",
            )
        return known
    if asked[0] == "etcd" and not endpoints and shutil.which("etcd") is None:
        raise UnavailableError(
            "cannot start etcd",
            why="there is no `etcd` on the PATH",
            fix="Install it (Debian: `apt install etcd-server`), or use --store sqlite, or --etcd-endpoints URL.",
        )
    path.write_text(json.dumps({"store": asked[0], "etcdEndpoints": endpoints}) + "\n")
    return asked
