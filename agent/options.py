"""What an agent is started with. The command line fills it in; agent.facts finds what depends on the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.image_choice import ImagePolicy
from manifests.permissions import Permission


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The amounts, where given, are allocatable exactly; else what the machine has of them, less a reserve."""

    servers: tuple[str, ...]  # base URLs; any of them will do
    name: str
    data_dir: Path
    driver: str = ""  # "": the one that it had, else the first that the node can do
    docker_socket: str = "/var/run/docker.sock"
    podman_socket: str = "/run/podman/podman.sock"
    cri_socket: str = ""  # "": containerd's, else CRI-O's
    oci_runtime: str = ""  # of the oci driver: "" for the first that works here
    image_dirs: tuple[Path, ...] = (Path("/var/lib/wherry/images"),)  # where its images in files may lie
    registries_file: Path | None = None  # None: the default one, if it is there
    image_policy: ImagePolicy = field(default_factory=ImagePolicy)  # which images are removed, and when
    token: str = ""
    token_file: Path | None = None  # instead of `token`
    cpu_m: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    cpu_overcommit: float = 1.0  # how many times the allocatable cpu may be reserved
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by kind: their paths under /dev
    allow: frozenset[Permission] = frozenset()  # the ceiling: what manifests may ask for beyond the safe defaults
    publish_address: str = ""  # where published ports answer; "" for all of the node's addresses
    cgroup_parent: str | None = None  # None: one of its own, "": that of the container manager
    labels: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    start_concurrency: int | None = None  # None: four times the cores, at least 8
    log_level: str = "info"
