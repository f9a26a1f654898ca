"""What a workload asks of the scheduler, made of its record; and what other workloads' rules add to it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from control_plane import keys
from control_plane.settings import rules_of
from control_plane.state import ClusterState, Table
from manifests.constraints import Constraint, parse_constraint, permission_constraint, volume_constraint
from manifests.engines import engine_constraints
from manifests.placement import NeighbourSpec, SpreadSpec
from manifests.taints import parse_toleration
from manifests.volumes import volume_id
from manifests.workloads import Kind, WorkloadRecord, WorkloadRef, WorkloadSpec
from scheduler.model import Affinity, Ask, Neighbour, PortAsk, Spread, vector_of

_KINDS = {kind.lower(): kind for kind in Kind}


def ask_of(
    record: WorkloadRecord,
    indexes: Sequence[int],
    *,
    avoid: frozenset[str] = frozenset(),
    only_node: str | None = None,
) -> Ask:
    """Return the ask for allocations of the workload's present version.

    Its neighbours are known by name alone, and nothing of what the cluster's settings say: see `resolved`.
    """
    spec: WorkloadSpec = record.workload.spec
    placement = spec.placement
    return Ask(
        workload=record.ref,
        version=record.version,
        indexes=tuple(indexes),
        reserved=vector_of(spec.reservation()),
        ports=_ports_of(spec),
        constraints=(*needs_of(spec), *(parse_constraint(c) for c in placement.constraints)),
        spread=tuple(_spread(s) for s in placement.spread),
        max_per_node=placement.max_per_node,
        avoid=avoid,
        only_node=only_node,
        tolerations=tuple(parse_toleration(t) for t in placement.tolerations),
        affinities=tuple(
            Affinity(parse_constraint(a.constraint), a.weight) for a in placement.affinities if a.constraint
        ),
        neighbours=tuple(_neighbours(record)),
        priority=spec.priority,
        volumes=_volumes_of(record),
    )


def needs_of(spec: WorkloadSpec) -> tuple[Constraint, ...]:
    """Return what a node must have and allow, whatever the manifest's own constraints are."""
    permissions = (permission_constraint(permission) for permission in spec.all_permissions())
    return (*engine_constraints(spec.driver, spec.runtime), *permissions)


def _volumes_of(record: WorkloadRecord) -> tuple[str, ...]:
    """Return the named volumes that pin an index to the node that keeps them; those of a Daemon are on each node."""
    if record.workload.kind == "Daemon":
        return ()
    return tuple(volume.named for volume in record.workload.spec.volumes if volume.named)


def _pinned(ask: Ask, state: ClusterState) -> list[Ask]:
    """Return the ask, or one for each index where it has volumes, which must be where some node keeps them."""
    if not ask.volumes:
        return [ask]
    kept = {volume for node in state.nodes.values() for volume in node.facts.volumes}
    asks = []
    for index in ask.indexes:
        ids = (volume_id(ask.workload.namespace, named, index) for named in ask.volumes)
        pins = tuple(volume_constraint(volume) for volume in ids if volume in kept)
        asks.append(replace(ask, indexes=(index,), constraints=(*ask.constraints, *pins)))
    return asks


def _spread(spec: SpreadSpec) -> Spread:
    shares = tuple((value, percent / 100) for value, percent in sorted(spec.shares.items()))
    return Spread(spec.over, shares, spec.max_skew)


def _neighbours(record: WorkloadRecord) -> Iterator[Neighbour]:
    placement, namespace = record.workload.spec.placement, record.workload.metadata.namespace
    for spec in placement.apart:
        yield Neighbour(_named(spec, namespace), is_wanted=False, over=spec.over)
    for spec in placement.together:
        yield Neighbour(_named(spec, namespace), over=spec.over)
    for affinity in placement.affinities:
        if affinity.near is not None:
            yield Neighbour(_named(affinity.near, namespace), over=affinity.near.over, weight=affinity.weight)


def _named(spec: NeighbourSpec, namespace: str) -> WorkloadRef:
    return WorkloadRef(namespace=namespace, kind=_KINDS[spec.kind], name=spec.name, uid="")


def resolved(asks: Sequence[Ask], state: ClusterState) -> list[Ask]:
    """Return the asks as they are in this cluster, whose settings they follow.

    Their neighbours are those that live now, and those that keep apart from them are among these.
    """
    if not asks:
        return []
    records = state.workloads
    keeps_apart = _who_keeps_apart(records.values())
    asks = [pinned for ask in asks for pinned in _pinned(ask, state)]
    asks = [_ruled(ask, state) for ask in asks]
    return [_resolved(ask, records, keeps_apart.get(keys.id_of_ref(ask.workload), ())) for ask in asks]


def _ruled(ask: Ask, state: ClusterState) -> Ask:
    record = state.workloads.get(keys.id_of_ref(ask.workload))
    if record is None:
        return ask
    rules = rules_of(state, record)
    if (rules.policy, rules.preempts) == (ask.policy, ask.preempts):
        return ask
    return replace(ask, policy=rules.policy, preempts=rules.preempts)


def _resolved(ask: Ask, records: Table[WorkloadRecord], others: Sequence[Neighbour]) -> Ask:
    if not (ask.neighbours or others):
        return ask
    own = []
    for neighbour in ask.neighbours:
        record = records.get(keys.id_of_ref(neighbour.workload))  # one that doesn't exist is nowhere
        own.append(replace(neighbour, workload=record.ref) if record else neighbour)
    return replace(ask, neighbours=(*own, *others))


def _who_keeps_apart(records: Iterable[WorkloadRecord]) -> dict[str, list[Neighbour]]:
    """Return who keeps apart from whom, by the id of the one that says nothing of it itself."""
    found: dict[str, list[Neighbour]] = {}
    for record in records:
        for spec in record.workload.spec.placement.apart:
            other = keys.workload_id(record.workload.metadata.namespace, spec.kind, spec.name)
            found.setdefault(other, []).append(Neighbour(record.ref, is_wanted=False, over=spec.over))
    return found


def _ports_of(spec: WorkloadSpec) -> tuple[PortAsk, ...]:
    """With host networking every port is the node's; else only the published ones are."""
    if spec.network == "host":
        return tuple(PortAsk(p.name, p.container, p.container, p.protocol) for p in spec.all_ports())
    return tuple(
        PortAsk(p.name, p.container, None if p.publish == "auto" else p.publish, p.protocol)
        for p in spec.all_ports()
        if p.publish is not None
    )
