"""The Driver: what the agent asks of a container manager. Every driver passes tests/conformance/test_driver.py.

A driver knows containers and images, nothing of allocations, nodes or the control plane. Errors of the manager are
raised as DriverError in words that say what to do; each call is bounded in time by the driver itself.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, Protocol, runtime_checkable

from manifests.containers import PullPolicy
from manifests.errors import DriverError
from manifests.layers import Layer

ContainerId = NewType("ContainerId", str)
SANDBOX_IMAGE = "wherry/sandbox:1"  # made by drivers themselves, never pulled: a program that only waits


class ImageError(DriverError):
    """The image is missing and can't, or may not, be pulled: trying again at once is no use."""


class StartError(DriverError):
    """The container was created but can't start: a wrong command, a port that is taken, a limit refused."""


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A container's port on an address of the host."""

    container_port: int
    host_port: int
    host_address: str  # "" for all
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host that the container sees at `target`."""

    source: str  # absolute; it must exist
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cgroup enforces; and weights from 1 to 10,000, of which 100 is usual. None: the manager's own."""

    cpu_m: int  # millicores, by quota
    memory_bytes: int  # memory and swap together: no swap
    pids: int
    cpu_weight: int | None = None
    io_weight: int | None = None
    memory_soft_bytes: int | None = None  # above it, the kernel takes memory from here first


@dataclass(frozen=True, slots=True)
class Tmpfs:
    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Isolation:
    """How the container is kept apart. What a driver can't do it refuses with InvalidError, and never leaves out."""

    capabilities: tuple[str, ...] | None = None  # without CAP_; None: the usual ones
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # soft and hard, -1 for none
    tmpfs: tuple[Tmpfs, ...] = ()
    shm_bytes: int | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)  # of the network, given to who holds it
    may_gain_privileges: bool = False
    is_confined: bool = True  # by the manager's own seccomp profile


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that is needed to create a container.

    `name` is unique for one attempt of one allocation, and stable: when the answer to a create is lost, the next try
    finds the container by its name and adopts it.
    """

    name: str
    image: str
    command: tuple[str, ...]  # replaces the image's entrypoint and arguments; empty: the image's own
    args: tuple[str, ...]  # replaces the image's arguments; empty: the image's own
    env: Mapping[str, str]
    labels: Mapping[str, str]
    limits: Limits
    ports: tuple[PublishedPort, ...] = ()
    host_network: bool = False
    working_dir: str = ""
    user: str = ""
    read_only_root: bool = False
    stop_signal: str = "SIGTERM"
    cgroup_parent: str = ""  # "" for the manager's own
    hostname: str = ""
    network_of: ContainerId | None = None  # lives in that container's network, which has the ports and the hostname
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()  # paths, the same inside
    isolation: Isolation = Isolation()
    # The OCI runtime, by name; "" for the manager's default. Of a sandbox: that of the containers that share it. It may
    # have another itself: it runs nothing of the user's, and has no room for a kernel of its own.
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the manager sees it now. Times are seconds since the epoch on the node's clock, 0.0 if not yet."""

    id: ContainerId
    name: str
    labels: Mapping[str, str]
    image: str
    state: ContainerState
    pid: int = 0
    exit_code: int | None = None  # None unless exited
    oom_killed: bool = False
    error: str = ""  # the manager's words when it couldn't start
    started_s: float = 0.0
    finished_s: float = 0.0
    address: str = ""  # on the node's bridge; "" with host networking, and in another container's network
    network_of: str = ""  # the id of the container in whose network it lives


@dataclass(frozen=True, slots=True)
class DriverInfo:
    name: str  # docker
    version: str
    attributes: Mapping[str, str] = field(default_factory=dict)  # cgroup.version, runtimes, ...


@dataclass(frozen=True, slots=True)
class LogChunk:
    stream: str  # stdout | stderr
    data: bytes


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    output: bytes  # stdout and stderr as they came, cut at 4 KiB


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command to run inside a container by somebody who is attached to it."""

    command: tuple[str, ...]
    has_input: bool = False
    has_terminal: bool = False  # then all output is stdout, and what is typed may become signals
    columns: int = 80
    rows: int = 24


class Attached(Protocol):
    """Something that takes bytes and gives bytes: a command inside a container, a connection, an archive."""

    async def read(self) -> LogChunk | None:
        """Return what came next, None once no more comes."""
        ...

    async def write(self, data: bytes) -> None:
        """Return once it is taken; dropped if nobody reads it any more."""
        ...

    async def end_input(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def exit_code(self) -> int:
        """Return how it ended (128+n: by signal n), once `read` has given None."""
        ...


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image that containers can be made of."""

    digest: str = ""  # by which its registry knows it, such as `sha256:…`; "" where none does
    was_pulled: bool = False  # for whoever asked: it wasn't here before, or not in this form


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image that the manager has."""

    id: str
    names: tuple[str, ...]  # references by tag and by digest; () for one that has lost all of them
    size_bytes: int  # of which it may share some with others
    is_used: bool  # a container has it, whoever's, also one that doesn't run


class Driver(Protocol):
    async def info(self) -> DriverInfo: ...

    async def ensure_image(self, image: str, policy: PullPolicy) -> ReadyImage:
        """Make the image ready to run: present already, or pulled. One pull an image at a time.

        One that has a digest is ready to run under its repository and that digest as well.

        SANDBOX_IMAGE is never pulled: the driver makes it. Raises ImageError if it is missing and can't or may not
        be pulled.
        """
        ...

    def pulling(self, image: str) -> str:
        """Say how far the pull of an image has come that is under way, in a few words; "" if that isn't known."""
        ...

    async def list_images(self) -> Sequence[HeldImage]:
        """Return all images that it has, but for those that the driver makes itself."""
        ...

    async def remove_image(self, name: str) -> None:
        """Take this name from an image (or the image, by its id), which goes with the last of them.

        Raises NotFoundError if there is none of that name, and ConflictError if a container has it.
        """
        ...

    async def image_folder(self) -> str:
        """Return a folder of the file system on which images are kept."""
        ...

    async def create(self, spec: ContainerSpec) -> ContainerId:
        """Create the container, or return the one of that name if it exists already and has the same labels."""
        ...

    async def start(self, container: ContainerId) -> None:
        """Start it; a container that runs already is left alone. Raises StartError with the manager's reason.

        UnavailableError if the container whose network it is to live in doesn't run: that isn't its own fault.
        """
        ...

    async def stop(self, container: ContainerId, *, signal: str, grace_s: float) -> None:
        """Send the signal, and SIGKILL after the grace. Returns when it has ended; fine if it is gone already."""
        ...

    async def remove(self, container: ContainerId) -> None:
        """Remove it, killing it if it still runs; fine if it is gone already."""
        ...

    async def inspect(self, container: ContainerId) -> Container | None: ...

    async def list_containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        """Return all containers that have all these labels, running or not, each as `inspect` gives it."""
        ...

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[ContainerId]:
        """Yield the ids of containers with these labels to which something happened: hints, which may be lost.

        Ends or raises when the manager goes away; then subscribe again and list.
        """
        ...

    def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncIterator[LogChunk]:
        """Yield what it wrote: the last `tail` lines (None: all), then what follows until it ends, if asked to.

        `timed`: each line begins with when it was written (RFC 3339, nine digits, UTC) and a space. `since`: only lines
        from that time on, in the same form.
        """
        ...

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command inside. Raises TimedOutError after `timeout_s`."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class SupportsAttach(Protocol):
    """A driver that can run commands for somebody who is attached to them."""

    def attach_exec(self, container: ContainerId, spec: ExecSpec) -> AbstractAsyncContextManager[Attached]:
        """Run it inside, for as long as the block lasts: what still runs of it then is killed.

        Raises DriverError if the container doesn't run.
        """
        ...


@runtime_checkable
class ShowsLayers(Protocol):
    """A driver that can say how its manager sees a container; what the kernel says needs no driver."""

    async def layers(self, container: Container) -> Layer:
        """Return the container as the manager calls it, with its image (and bundle and runtime) below it.

        Each fact has the manager's own command that shows it. Raises NotFoundError if the container is gone.
        """
        ...
