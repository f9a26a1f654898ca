"""Makes records small that were just read: what many have in common is one object, and none has a dictionary.

A cache holds as many allocations and statuses as the cluster has. As pydantic makes them, each repeats its node's name,
its workload, the nodes that were ruled out, and the set of its fields' names. Nothing that is read from them changes.
"""

from collections import defaultdict
from collections.abc import Hashable
from sys import intern
from typing import TypeVar

from manifests.allocations import Allocation, AllocationStatus, HostPort
from manifests.base import Model
from manifests.containers import Resources
from manifests.nodes import NodeStatus
from manifests.reasons import Choice, Runner
from manifests.status import WorkloadStatus
from manifests.workloads import VersionRecord, Workload, WorkloadRecord, WorkloadRef

T = TypeVar("T")
M = TypeVar("M", bound=Model)
R = TypeVar("R", bound=Resources)

MOST_KEPT = 65_536  # values of each kind to share with what comes later; then it begins anew
_put = object.__setattr__  # on what nobody else has seen yet: it is frozen for its readers


class Shared:
    """Gives one object for all equal values, of those that came lately."""

    def __init__(self) -> None:
        self._known: dict[Hashable, object] = {}

    def one(self, key: Hashable, value: T) -> T:
        """Return what came first under the key, which must tell all of the value."""
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        return self._known.setdefault(key, value)  # type: ignore[return-value]  # a key has values of one type


class Compactor:
    """Compacts the records of one cache, each right after it was read: before anybody else has it."""

    def __init__(self) -> None:
        self._shared: defaultdict[str, Shared] = defaultdict(Shared)  # by what they are

    def allocation(self, a: Allocation) -> Allocation:
        return self._slim(
            a,
            id=intern(a.id),
            node=intern(a.node),
            workload=self._workload(a.workload),
            reserved=self._amounts(a.reserved),
            ports=self._held(a.ports),
            devices=a.devices or _NOTHING,
            why=self._choice(a.why),
        )

    def status(self, s: AllocationStatus) -> AllocationStatus:
        images = None if s.images is None else self._texts(s.images)
        return self._slim(s, id=intern(s.id), node=intern(s.node), workload=self._workload(s.workload), images=images)

    def node(self, n: NodeStatus) -> NodeStatus:
        facts = self._slim(
            n.facts,
            name=intern(n.facts.name),
            agent_version=intern(n.facts.agent_version),
            labels=self._texts(n.facts.labels),
            attributes={intern(key): intern(value) for key, value in n.facts.attributes.items()},
            capacity=self._amounts(n.facts.capacity),
            allocatable=self._amounts(n.facts.allocatable),
            devices=n.facts.devices or _NOTHING,
        )
        return self._slim(n, facts=facts, server=intern(n.server))

    def workload(self, r: WorkloadRecord) -> WorkloadRecord:
        return self._slim(r, workload=self._manifest(r.workload))

    def version(self, r: VersionRecord) -> VersionRecord:
        return self._slim(r, workload=self._manifest(r.workload))

    def workload_status(self, s: WorkloadStatus) -> WorkloadStatus:
        return self._slim(s, ref=self._workload(s.ref))

    def _manifest(self, workload: Workload) -> Workload:
        """Most parts of a spec say what the parts of other specs say: nothing but defaults."""
        spec = workload.spec
        parts = {name: self._part(part) for name, part in spec.__dict__.items() if isinstance(part, Model)}
        return self._slim(workload, metadata=self._slim(workload.metadata), spec=self._slim(spec, **parts))

    def _part(self, part: Model) -> Model:
        return self._shared["specs"].one((type(part), part.to_bytes(), frozenset(part.model_fields_set)), part)

    def _held(self, ports: tuple[HostPort, ...]) -> tuple[HostPort, ...]:
        key = tuple((p.name, p.container, p.host, p.protocol) for p in ports)
        return self._shared["ports"].one(key, tuple(map(self._slim, ports)))

    def _choice(self, why: Choice) -> Choice:
        _put(why, "runners_up", tuple(map(self._runner, why.runners_up)))
        _put(why, "score", self._shared["numbers"].one(why.score, why.score))
        _put(why, "more", self._shared["counts"].one(why.more, why.more))
        _put(why, "parts", self._shared["parts"].one(why.parts, why.parts))
        _put(why, "rejections", self._shared["rejections"].one(why.rejections, why.rejections))
        return why

    def _runner(self, runner: Runner) -> Runner:
        _put(runner, "node", intern(runner.node))
        _put(runner, "score", self._shared["numbers"].one(runner.score, runner.score))
        return self._shared["runners"].one((runner.node, runner.score), runner)

    def _workload(self, ref: WorkloadRef) -> WorkloadRef:
        return self._shared["refs"].one((ref.namespace, ref.kind, ref.name, ref.uid), ref)

    def _amounts(self, r: R) -> R:
        key = (type(r), r.cpu_m, r.memory_bytes, r.pids, r.disk_bytes, tuple(r.devices.items()))
        return self._shared["resources"].one(key, r)

    def _texts(self, texts: dict[str, str]) -> dict[str, str]:
        return self._shared["mappings"].one(tuple(texts.items()), texts)

    def _slim(self, record: M, **changes: object) -> M:
        """Return an equal record, with these equal values in it, which stand in the object and in no dictionary.

        An object whose attributes are set one by one, in the order in which others of its class had theirs set, needs
        no keys of its own, as long as nobody asks for its `__dict__`.
        """
        slim = object.__new__(type(record))
        for name, value in (record.__dict__ | changes).items():
            _put(slim, name, value)
        names = record.model_fields_set
        _put(slim, "__pydantic_fields_set__", self._shared["fields"].one(frozenset(names), names))
        _put(slim, "__pydantic_extra__", None)
        _put(slim, "__pydantic_private__", None)
        return slim


_NOTHING: dict[str, tuple[str, ...]] = {}
