"""The frames of the one long connection between an agent and a server: JSON text frames, and binary ones for logs.

The agent says Hello, the server answers Welcome or Refused, then a full Assignments, then both go on as things change.
Each heartbeat is acknowledged, so that a cut in one direction is noticed by the agent as well. A binary frame carries
bytes of a stream: its number (4 bytes, big-endian), then 0 for input (server to agent), 1 for stdout or 2 for stderr
(agent to server), then the bytes. Each direction of a stream has a window of LOG_WINDOW_BYTES, which MoreLogs and
MoreInput open again: a slow end slows down its stream alone.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from manifests.allocations import Allocation, AllocationStatus
from manifests.base import Model
from manifests.layers import Layer
from manifests.nodes import NodeFacts
from manifests.stats import NodeStats
from manifests.workloads import Workload

PROTOCOL = 1
STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER = struct.Struct(">IB")
LOG_WINDOW_BYTES = 256 * 1024  # of each log stream that may be under way unread


class Offer(StrEnum):
    """What an agent may be asked for. A server asks no agent for what it doesn't offer: it would end the session."""

    PREVIOUS_LOGS = "previousLogs"
    EXEC = "exec"
    FILES = "files"
    FORWARD = "forward"


class Hello(Model):
    type: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    cluster: str = ""  # the cluster it belonged to, "" on its first day: it must not obey another one
    facts: NodeFacts
    statuses: tuple[AllocationStatus, ...]  # all that it observes
    trouble: str = ""  # what keeps the node from starting containers
    applied_revision: int = 0  # of the assignments that it obeys: a server that is behind must catch up first
    generation: int = 0  # of the store, to which that revision belongs; 0 before the first assignments
    kept: tuple[Allocation, ...] = ()  # what it keeps running from an earlier generation, unknown to this one
    servers: int = 1  # how many it knows: one that knows several may be sent on to another
    offers: tuple[str, ...] = ()  # of Offer, what it understands beyond the first version of the frames
    answers: tuple[str, ...] = ()  # what it may be asked; an older agent takes an Ask for an error


class NodeReport(Model):
    """The node's facts have changed, or whether it can start containers."""

    type: Literal["nodeReport"] = "nodeReport"
    facts: NodeFacts
    trouble: str = ""
    kept: tuple[Allocation, ...] = ()


class Heartbeat(Model):
    type: Literal["heartbeat"] = "heartbeat"
    sequence: int


class Statuses(Model):
    """Changed statuses, and allocations of which nothing is left on the node and that are no longer desired."""

    type: Literal["statuses"] = "statuses"
    sequence: int
    statuses: tuple[AllocationStatus, ...] = ()
    forgotten: tuple[str, ...] = ()


class LogsEnded(Model):
    type: Literal["logsEnded"] = "logsEnded"
    stream: int
    error: str = ""
    status: int = 0  # of HTTP, for that error; 0: it broke off, or the agent is too old to tell


class StreamEnded(Model):
    """An attached stream is over: with the command's exit code, or with an error."""

    type: Literal["streamEnded"] = "streamEnded"
    stream: int
    exit_code: int | None = None
    what: str = ""  # of the error, "" without one; as in problem details
    why: str = ""
    fix: str = ""
    status: int = 0


class MoreInput(Model):
    """So many bytes of the stream's input were taken: as many more may come."""

    type: Literal["moreInput"] = "moreInput"
    stream: int
    count: int


class Answer(Model):
    """The answer to the Ask of that number: what was asked for, or an error."""

    type: Literal["answer"] = "answer"
    number: int
    stats: NodeStats | None = None
    layers: tuple[Layer, ...] | None = None
    error: str = ""


class Welcome(Model):
    type: Literal["welcome"] = "welcome"
    cluster: str
    server: str
    session: int
    generation: int = 0  # of the store: an agent obeys only the newest; 0: the server is too old to tell
    heartbeat_s: float
    lost_after_s: float


class Refused(Model):
    type: Literal["refused"] = "refused"
    what: str
    why: str = ""
    fix: str = ""


class Assigned(Model):
    """A desired allocation with the workload, at its version, that it is an instance of."""

    allocation: Allocation
    workload: Annotated[Workload, Field(discriminator="kind")]
    configs: dict[str, str] = Field(default_factory=dict)  # the content of each config that it uses, by name
    images: dict[str, str] = Field(default_factory=dict)  # the digest of each image that is pinned for its version
    fence: int = 0  # the revision that created the allocation: greater than that of whatever it replaced
    ended: AllocationStatus | None = None  # how the node said it had ended: should it have forgotten, it doesn't rerun


class Assignments(Model):
    """What the node must hold: everything if `is_full`, else what changed since the last one. At that revision."""

    type: Literal["assignments"] = "assignments"
    revision: int
    is_full: bool
    assigned: tuple[Assigned, ...] = ()
    withdrawn: tuple[str, ...] = ()  # ids that are no longer desired at all
    untold: tuple[str, ...] = ()  # ids that the server has but can't read: to be left as they are


class HeartbeatAck(Model):
    type: Literal["heartbeatAck"] = "heartbeatAck"
    sequence: int


class StatusesAck(Model):
    type: Literal["statusesAck"] = "statusesAck"
    sequence: int


class RemoveVolume(Model):
    """Remove a named volume that nothing uses. Told only to agents that have told of it."""

    type: Literal["removeVolume"] = "removeVolume"
    volume: str


class OpenLogs(Model):
    type: Literal["openLogs"] = "openLogs"
    stream: int
    allocation: str
    container: str = ""  # the one of a group
    follow: bool = False
    tail: int | None = None
    timed: bool = False  # each line begins with when it was written, and a space
    since: str = ""  # only lines from that time on, in the same form
    previous: bool = False  # of the attempt before


class MoreLogs(Model):
    """The reader has taken so many bytes of log off the stream: as many more may come."""

    type: Literal["moreLogs"] = "moreLogs"
    stream: int
    count: int


class OpenExec(Model):
    """Run a command inside, attached to it."""

    type: Literal["openExec"] = "openExec"
    stream: int
    allocation: str
    container: str = ""
    command: tuple[str, ...]
    has_input: bool = False
    has_terminal: bool = False
    columns: int = 80
    rows: int = 24


class OpenFiles(Model):
    """Send what is at a path as a tar archive, or (`is_write`) put there what comes as one."""

    type: Literal["openFiles"] = "openFiles"
    stream: int
    allocation: str
    container: str = ""
    path: str
    is_write: bool = False
    name: str = ""  # of what comes, for where the path is a folder


class OpenForward(Model):
    """Connect to a TCP port inside the allocation's network."""

    type: Literal["openForward"] = "openForward"
    stream: int
    allocation: str
    port: int


class Resize(Model):
    """The terminal has that size now."""

    type: Literal["resize"] = "resize"
    stream: int
    columns: int
    rows: int


class InputEnded(Model):
    type: Literal["inputEnded"] = "inputEnded"
    stream: int


class CloseStream(Model):
    type: Literal["closeStream"] = "closeStream"
    stream: int


class Ask(Model):
    """A question that the agent answers from what it sees now; only of what its Hello named."""

    type: Literal["ask"] = "ask"
    number: int
    what: Literal["stats", "layers"]
    allocation: str = ""  # of which the layers are asked for


@dataclass(frozen=True, slots=True)
class StreamData:
    """A binary frame: bytes of one stream."""

    stream: int
    data: bytes
    channel: int = 1

    def to_bytes(self) -> bytes:
        return _HEADER.pack(self.stream, self.channel) + self.data

    @classmethod
    def from_bytes(cls, frame: bytes) -> "StreamData":
        number, channel = _HEADER.unpack_from(frame)
        return cls(number, frame[_HEADER.size :], channel)


Attach: TypeAlias = OpenExec | OpenFiles | OpenForward
FromAgent: TypeAlias = Hello | NodeReport | Heartbeat | Statuses | LogsEnded | StreamEnded | MoreInput | Answer
FromServer: TypeAlias = (
    Welcome
    | Refused
    | Assignments
    | HeartbeatAck
    | StatusesAck
    | OpenLogs
    | MoreLogs
    | Attach
    | Resize
    | InputEnded
    | CloseStream
    | Ask
    | RemoveVolume
)
FROM_AGENT: TypeAdapter[FromAgent] = TypeAdapter(Annotated[FromAgent, Field(discriminator="type")])
FROM_SERVER: TypeAdapter[FromServer] = TypeAdapter(Annotated[FromServer, Field(discriminator="type")])
