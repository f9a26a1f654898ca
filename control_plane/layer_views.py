"""The cluster's part of an allocation's layers: its manifest, its version and itself, above what its node found.

Pure: records in, layers out. Each fact has the `wherry` command that shows the same.
"""

from control_plane import keys
from control_plane.state import ClusterState
from manifests.allocations import Allocation
from manifests.base import render_timestamp
from manifests.layers import Fact, Layer, LayerKind


def layers_of(state: ClusterState, a: Allocation, below: tuple[Layer, ...]) -> Layer:
    """Return the whole tree of an allocation, with the containers that its node told below it."""
    ref = a.workload
    kind, name = ref.kind.lower(), ref.name
    where = "" if ref.namespace == "default" else f" -n {ref.namespace}"
    record = state.workloads.get(keys.id_of_ref(ref))
    show = f"wherry get {kind} {name}{where} -o yaml"
    version = Layer(
        kind=LayerKind.VERSION,
        name=str(a.version),
        note="an immutable copy of the manifest",
        command="" if kind == "job" else f"wherry rollout history {kind}/{name}{where}",
        facts=_version_facts(state, a),
        below=(_allocation(state, a, below),),
    )
    newer = record is not None and record.version != a.version
    note = f"its version {record.version} is newer than this allocation's" if record and newer else ""
    return Layer(kind=LayerKind.MANIFEST, name=f"{kind}/{name}", note=note, command=show, below=(version,))


def _version_facts(state: ClusterState, a: Allocation) -> tuple[Fact, ...]:
    found = state.versions.get(keys.version_id(keys.id_of_ref(a.workload), a.version))
    if found is None:
        return ()
    spec = found.workload.spec
    show = f"wherry describe allocation {a.id}"
    images = list(dict.fromkeys(c.image for c in (*spec.init_containers, *spec.members.values())))
    cpu, memory = (str(a.reserved.to_json()[name]) for name in ("cpu", "memory"))
    return (
        *(Fact(name="image", value=image) for image in images),
        Fact(name="reserves", value=f"{cpu} cpu, {memory} memory", note="what the scheduler counts", command=show),
    )


def _allocation(state: ClusterState, a: Allocation, below: tuple[Layer, ...]) -> Layer:
    status = state.statuses.get(a.id)
    show = f"wherry describe allocation {a.id}"
    facts = [
        Fact(name="node", value=a.node, command=show),
        Fact(name="why there", value=a.why.sentence(), command=f"wherry explain allocation/{a.id}"),
        Fact(name="created", value=render_timestamp(a.created_s)),
    ]
    if status is not None:
        facts.append(Fact(name="phase", value=status.phase, command=show, is_live=True))
        facts.append(Fact(name="health", value=status.health, command=show, is_live=True))
    return Layer(kind=LayerKind.ALLOCATION, name=a.id, command=show, facts=tuple(facts), below=below)
