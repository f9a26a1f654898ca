"""Hypothesis strategies for what the scheduler sees: small, crowded clusters, where limits are met often."""

from dataclasses import replace

from hypothesis import strategies as st

from manifests.allocations import HostPort
from manifests.constraints import Constraint, Operator
from manifests.placement import Policy
from manifests.taints import Effect, Taint, Toleration
from manifests.workloads import Kind, WorkloadRef
from scheduler.model import (
    Affinity,
    Ask,
    Eligibility,
    Neighbour,
    NodeView,
    PlacedAllocation,
    PortAsk,
    Snapshot,
    Spread,
    Vector,
)

NODE_NAMES = tuple(f"n{i}" for i in range(7))
WORKLOADS = tuple(
    WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}") for name in ("web", "api", "db")
)
ZONES = ("a", "b", "c")
KERNELS = ("5.10", "5.4.0-26-amd64", "6")
STATIC_PORTS = (8080, 8081, 20_005)  # the last is one of AUTO_PORTS
ELIGIBILITIES = (Eligibility.READY,) * 12 + tuple(Eligibility)
ATTRIBUTES = ("node.labels.zone", "node.labels.disk", "node.attributes.arch", "node.name")

versions = st.integers(1, 2)
refs = st.sampled_from(WORKLOADS)


def one_in(n: int) -> st.SearchStrategy[bool]:
    return st.integers(1, n).map(lambda drawn: drawn == n)


def vectors(most: int, *, least: int = 1) -> st.SearchStrategy[Vector]:
    amounts = st.integers(least, most)
    return st.builds(
        lambda cpu, memory, pids, disk: Vector(cpu * 100, memory * 64 * 2**20, pids * 16, disk * 2**30),
        *(amounts, amounts, amounts, amounts),
    )


def with_gpus(vector: Vector, count: int) -> Vector:
    return replace(vector, devices=(("gpu", count),)) if count else vector


def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={"zone": st.sampled_from(ZONES), "disk": st.sampled_from(("ssd", "hdd"))})


def taints() -> st.SearchStrategy[tuple[Taint, ...]]:
    one = st.builds(Taint, st.sampled_from(("gpu", "edge")), st.sampled_from(("", "a100")), st.sampled_from(Effect))
    return st.lists(one, min_size=1, max_size=2).map(tuple)


def tolerations() -> st.SearchStrategy[tuple[Toleration, ...]]:
    one = st.builds(Toleration, st.sampled_from(("gpu", "edge")), st.sampled_from((None, "", "a100")))
    return st.lists(one, max_size=2).map(tuple)


@st.composite
def constraints(draw: st.DrawFn) -> Constraint:
    operator = draw(st.sampled_from((Operator.EQUAL, Operator.NOT_EQUAL, *Operator)))
    if operator.compares_numbers:
        return Constraint("node.attributes.kernel", operator, (draw(st.sampled_from(KERNELS)),))
    values = st.sampled_from((*ZONES, "ssd", "amd64", "n1"))
    most = 3 if operator in (Operator.IN, Operator.NOT_IN) else 1
    chosen = draw(st.lists(values, min_size=1, max_size=most)) if operator.takes_values else []
    return Constraint(draw(st.sampled_from(ATTRIBUTES)), operator, tuple(chosen))


@st.composite
def neighbours(draw: st.DrawFn) -> Neighbour:
    weight = draw(st.one_of(st.none(), st.integers(-100, 100)))
    over = draw(st.sampled_from(("node.name", "node.labels.zone")))
    return Neighbour(draw(refs), draw(st.booleans()), over, weight)


@st.composite
def nodes(draw: st.DrawFn, *, name: str, is_ready: bool = False) -> NodeView:
    gpus = tuple(f"gpu{i}" for i in range(draw(st.sampled_from((0, 0, 1, 3)))))
    return NodeView(
        name=name,
        eligibility=Eligibility.READY if is_ready else draw(st.sampled_from(ELIGIBILITIES)),
        labels=draw(labels()),
        attributes={"arch": draw(st.sampled_from(("amd64", "arm64"))), "kernel": draw(st.sampled_from(KERNELS))},
        taints=() if is_ready else draw(st.one_of(st.just(()), st.just(()), taints())),
        allocatable=with_gpus(draw(vectors(3, least=0) if draw(one_in(6)) else vectors(24, least=8)), len(gpus)),
        devices={"gpu": gpus} if gpus else {},
    )


@st.composite
def snapshots(
    draw: st.DrawFn,
) -> Snapshot:
    """Return a cluster whose nodes may hold more than they have: their allocatable can have shrunk."""
    names = draw(st.permutations(NODE_NAMES))[: draw(st.sampled_from((7, 5, 4, 3, 2, 1, 0)))]
    views = tuple(draw(nodes(name=name)) for name in names)
    held: set[tuple[str, int]] = set()
    allocations = []
    for number in range(draw(st.integers(0, 10)) if names else 0):
        node = draw(st.sampled_from((*names, "gone")))
        wanted_ports = draw(st.sets(st.sampled_from(STATIC_PORTS), max_size=2))
        ports = sorted(p for p in wanted_ports if (node, p) not in held)
        held |= {(node, p) for p in ports}
        allocations.append(
            PlacedAllocation(
                id=f"old-{number}",
                workload=draw(refs),
                version=draw(versions),
                index=number,
                node=node,
                reserved=draw(vectors(5)),
                ports=tuple(HostPort(name=f"p{p}", container=80, host=p) for p in ports),
                is_wanted=draw(st.booleans()),
            )
        )
    return Snapshot(draw(st.integers(1, 99)), views, tuple(allocations))


@st.composite
def port_asks(draw: st.DrawFn) -> tuple[PortAsk, ...]:
    static = {draw(st.sampled_from(STATIC_PORTS))} if draw(one_in(4)) else set()
    autos = draw(st.integers(0, 2))
    protocol = draw(st.sampled_from(("tcp", "tcp", "udp")))
    return (
        *(PortAsk(f"p{p}", 80, p, protocol) for p in sorted(static)),
        *(PortAsk(f"auto{i}", 90 + i, None, protocol) for i in range(autos)),
    )


@st.composite
def spreads(draw: st.DrawFn) -> tuple[Spread, ...]:
    attributes = draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=2, unique=True))
    return tuple(Spread(a, max_skew=draw(st.sampled_from((None, None, 1, 2)))) for a in attributes)


@st.composite
def asks(draw: st.DrawFn, *, first_index: int = 100) -> Ask:
    return Ask(
        workload=draw(refs),
        version=draw(versions),
        indexes=tuple(range(first_index, first_index + draw(st.sampled_from((8, 5, 3, 2, 1, 0))))),
        reserved=with_gpus(
            draw(vectors(9) if draw(one_in(4)) else vectors(4)), draw(st.integers(1, 2)) * draw(one_in(4))
        ),
        ports=draw(port_asks()),
        constraints=(draw(constraints()),) if draw(one_in(4)) else (),
        spread=draw(spreads()),
        max_per_node=draw(st.sampled_from((None, None, 1, 2))),
        avoid=frozenset(draw(st.sets(st.sampled_from(NODE_NAMES), max_size=2))),
        only_node=draw(st.sampled_from(("n0", "n6"))) if draw(one_in(8)) else None,
        tolerations=draw(tolerations()),
        affinities=draw(st.lists(st.builds(Affinity, constraints(), st.integers(-100, 100)), max_size=1).map(tuple)),
        neighbours=(draw(neighbours()),) if draw(one_in(5)) else (),
        policy=draw(st.sampled_from(Policy)),
        priority=draw(st.sampled_from((50, 50, 20))),
    )


@st.composite
def ask_lists(draw: st.DrawFn) -> tuple[Ask, ...]:
    """Return asks whose slots don't overlap."""
    return tuple(draw(asks(first_index=100 * (i + 1))) for i in range(draw(st.integers(0, 4))))
