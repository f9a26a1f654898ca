"""Whatever `explain` says is so: each reason, and each remedy once it is carried out, as the rules are read naively."""

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.explanations import Change, Explanation, Lift, Remedy
from manifests.quantities import parse_bytes, parse_cpu
from manifests.reasons import Code, Rejection
from manifests.taints import parse_toleration
from scheduler.explain import explain
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, Neighbour, NodeView, PlacedAllocation, Snapshot, Spread, Vector
from scheduler.place import place
from tests.property.test_place import (
    can_take,
    free_on,
    holders,
    holds,
    is_beside,
    is_open,
    is_too_uneven,
    is_true,
    running_on,
    tolerates,
    value_of,
)
from tests.strategies import asks, constraints, snapshots

MEBIBYTE = 2**20
AMOUNTS = {"cpu": "cpu_m", "memory": "memory_bytes", "pids": "pids", "disk": "disk_bytes"}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Ask, Snapshot]:
    """Return an ask that often fits nowhere, on nodes whose memory is no round number, among others of all ranks."""
    snapshot, ask = draw(snapshots()), draw(asks())
    odd = draw(st.integers(-3 * MEBIBYTE, 3 * MEBIBYTE))
    nodes = tuple(_with_odd_memory(n, odd) for n in snapshot.nodes)
    ranks = st.sampled_from((0, 10, 50, 90))
    allocations = tuple(replace(a, priority=draw(ranks)) for a in snapshot.allocations)
    more = draw(st.sampled_from((1, 1, 2, 4)))
    grown = replace(ask.reserved, cpu_m=ask.reserved.cpu_m * more, memory_bytes=ask.reserved.memory_bytes * more)
    second = (draw(constraints()),) if draw(st.booleans()) else ()
    ask = replace(ask, reserved=grown, constraints=(*ask.constraints, *second), indexes=(100,))
    if draw(st.booleans()):  # crowded and to be even, where lifting one rule moves what another one says
        ask = replace(ask, spread=(Spread("node.labels.zone", max_skew=1),), neighbours=(), ports=())
        allocations = tuple(replace(a, workload=ask.workload, is_wanted=True) for a in allocations)
    return ask, Snapshot(snapshot.revision, nodes, allocations)


def _with_odd_memory(node: NodeView, odd: int) -> NodeView:
    memory = max(node.allocatable.memory_bytes + odd, 0)
    return replace(node, allocatable=replace(node.allocatable, memory_bytes=memory))


def ask_why(ask: Ask, snapshot: Snapshot) -> Explanation:
    return explain(ask, Ledger.of(snapshot), seed=1)


# --- reasons -----------------------------------------------------------------------------------------------------


@given(questions())
@settings(max_examples=200)
def test_every_node_that_cant_take_it_is_told_of_with_all_that_rules_it_out(question: tuple[Ask, Snapshot]) -> None:
    ask, snapshot = question
    told = ask_why(ask, snapshot)
    named = {n.node: n.faults for group in told.groups for n in group.nodes}
    in_question = [n for n in snapshot.nodes if ask.only_node in (None, n.name)]
    assert named.keys() == {n.name for n in in_question if not can_take(n, ask, snapshot)}
    assert told.fits == len(in_question) - len(named)
    for node in in_question:
        faults = named.get(node.name, ())
        assert all(is_so(fault, ask, snapshot) for fault in faults)
        assert sorted({fault.code for fault in faults}) == sorted(broken_rules(node, ask, snapshot))
        untolerated = [str(t) for t in node.taints if not tolerates(ask, t)]
        assert [f.found for f in faults if f.code is Code.TAINT] == untolerated
    assert sum(group.count for group in told.groups) == len(named)
    assert told.more == 0


def is_so(fault: Rejection, ask: Ask, snapshot: Snapshot) -> bool:
    if fault.code is Code.TAINT:
        node = named_node(snapshot, fault.node)
        return fault.found in [str(t) for t in node.taints if not tolerates(ask, t)]
    if fault.code in (Code.MEMORY, Code.DISK):
        free = free_on(named_node(snapshot, fault.node), snapshot)
        left = max(free.memory_bytes if fault.code is Code.MEMORY else free.disk_bytes, 0)
        said = 0 if fault.found == "0" else parse_bytes(fault.found)
        return said <= left < parse_bytes(fault.needed) and (left - said < MEBIBYTE)
    if fault.code is Code.CONSTRAINT:
        failed = [c for c in ask.constraints if str(c) == fault.needed]
        return fault.found == (value_of(named_node(snapshot, fault.node), failed[0].attribute) or "not set")
    return is_true(fault, ask, snapshot)


def broken_rules(node: NodeView, ask: Ask, snapshot: Snapshot) -> set[Code]:
    """Return the codes of all rules that the node breaks, each tried by itself."""
    free, reserved, held = free_on(node, snapshot), ask.reserved, holders(node, snapshot)
    required = [n for n in ask.neighbours if n.weight is None]
    wanted, there = dict(reserved.devices), dict(free.devices)
    found = {
        Code.TAINT: any(not tolerates(ask, t) for t in node.taints),
        Code.CONSTRAINT: any(not _meets(node, ask, number) for number in range(len(ask.constraints))),
        Code.MAX_PER_NODE: ask.max_per_node is not None and running_on(node, ask, snapshot) >= ask.max_per_node,
        Code.CPU: reserved.cpu_m > free.cpu_m,
        Code.MEMORY: reserved.memory_bytes > free.memory_bytes,
        Code.PIDS: reserved.pids > free.pids,
        Code.DISK: reserved.disk_bytes > free.disk_bytes,
        Code.DEVICES: any(count > there.get(kind, 0) for kind, count in wanted.items()),
        Code.HOST_PORT: any((p.host, p.protocol) in held for p in ask.ports),
        Code.APART: any(not n.is_wanted and is_beside(node, n, snapshot) for n in required),
        Code.TOGETHER: any(n.is_wanted and not is_beside(node, n, snapshot) for n in required),
        Code.SKEW: any(is_open(n, ask) for n in snapshot.nodes) and is_too_uneven(node, ask, snapshot),
    }
    closed = set() if node.eligibility is Eligibility.READY else {Code(node.eligibility.value)}
    return closed | {code for code, is_broken in found.items() if is_broken}


def _meets(node: NodeView, ask: Ask, number: int) -> bool:
    constraint = ask.constraints[number]
    return holds(constraint, value_of(node, constraint.attribute))


# --- remedies ----------------------------------------------------------------------------------------------------


@given(questions())
@settings(max_examples=400)
def test_each_remedy_carried_out_lets_it_fit_where_was_said_and_less_would_not(question: tuple[Ask, Snapshot]) -> None:
    ask, snapshot = question
    told = ask_why(ask, snapshot)
    assert not (told.fits and told.remedies)
    for remedy in told.remedies:
        assert remedy.sentence()
        moved = [change.subject for change in remedy.changes if change.lift is Lift.MOVE]
        assert all(a.priority < ask.priority for a in snapshot.allocations if a.id in moved)
        cured, after = carried_out(remedy, ask, snapshot)
        name = remedy.node or NEW
        assert can_take(named_node(after, name), cured, after), remedy.sentence()
        assert place([cured], after, seed=1).placements
        for number in range(len(remedy.changes)):  # no part of it is for nothing
            rest = Remedy(remedy.node, remedy.changes[:number] + remedy.changes[number + 1 :])
            if rest.changes:
                cured, after = carried_out(rest, ask, snapshot)
                assert not can_take(named_node(after, name), cured, after), remedy.sentence()
        for less in next_smaller(remedy):
            cured, after = carried_out(less, ask, snapshot)
            assert not can_take(named_node(after, name), cured, after), (remedy.sentence(), less.sentence())


@given(questions())
@settings(max_examples=200)
def test_an_amount_is_the_largest_of_all_nodes(question: tuple[Ask, Snapshot]) -> None:
    ask, snapshot = question
    for remedy in ask_why(ask, snapshot).remedies:
        if [change.lift for change in remedy.changes] == [Lift.RESERVE]:
            for more in next_smaller(remedy):
                cured, after = carried_out(more, ask, snapshot)
                assert not any(can_take(n, cured, after) for n in after.nodes)


@given(questions())
@settings(max_examples=200)
def test_where_one_amount_alone_is_short_a_remedy_says_so(question: tuple[Ask, Snapshot]) -> None:
    ask, snapshot = question
    told = ask_why(ask, snapshot)
    for code in (Code.CPU, Code.MEMORY, Code.PIDS, Code.DISK):
        in_question = [n for n in snapshot.nodes if ask.only_node in (None, n.name)]
        short = [n for n in in_question if broken_rules(n, ask, snapshot) == {code}]
        if not told.fits and any(getattr(free_on(n, snapshot), AMOUNTS[code]) > 0 for n in short):
            lifted = [r.changes[0].subject for r in told.remedies if r.changes[0].lift is Lift.RESERVE]
            assert code.value in lifted


NEW = "one-more"
ANY_LABELS = {"zone": "b", "disk": "ssd"}  # of a node of which is only said how much must be free there


def carried_out(remedy: Remedy, ask: Ask, snapshot: Snapshot) -> tuple[Ask, Snapshot]:
    for change in remedy.changes:
        if change.lift.is_of_the_workload:
            ask = changed_ask(change, ask)
        else:
            snapshot = changed_snapshot(change, remedy.node, snapshot)
    return ask, snapshot


def changed_ask(change: Change, ask: Ask) -> Ask:
    match change.lift:
        case Lift.RESERVE:
            return replace(ask, reserved=with_amount(ask.reserved, change))
        case Lift.MAX_PER_NODE:
            return replace(ask, max_per_node=int(change.value))
        case Lift.TOLERATE:
            return replace(ask, tolerations=(*ask.tolerations, parse_toleration(change.value)))
        case Lift.CONSTRAINT:
            return replace(ask, constraints=tuple(c for c in ask.constraints if str(c) != change.subject))
        case Lift.MAX_SKEW:
            eased = [replace(s, max_skew=int(change.value)) if s.over == change.subject else s for s in ask.spread]
            return replace(ask, spread=tuple(eased))
        case _:
            is_wanted = change.lift is Lift.TOGETHER
            return replace(
                ask,
                neighbours=tuple(
                    n
                    for n in ask.neighbours
                    if n.weight is not None or n.is_wanted is not is_wanted or in_words(n) != change.subject
                ),
            )


def in_words(neighbour: Neighbour) -> str:
    over = "" if neighbour.over == "node.name" else f" over {neighbour.over}"
    return f"service/{neighbour.workload.name}{over}"


def with_amount(reserved: Vector, change: Change) -> Vector:
    match change.subject:
        case "cpu":
            return replace(reserved, cpu_m=parse_cpu(change.value))
        case "memory":
            return replace(reserved, memory_bytes=parse_bytes(change.value))
        case "disk":
            return replace(reserved, disk_bytes=parse_bytes(change.value))
        case "pids":
            return replace(reserved, pids=int(change.value))
    count = int(change.value)
    return replace(reserved, devices=((change.subject, count),) if count else ())


def changed_snapshot(change: Change, node: str, snapshot: Snapshot) -> Snapshot:
    match change.lift:
        case Lift.HOST_PORT:
            port = change.subject
            holding = [a.id for a in snapshot.allocations if a.node == node and port in ports_of(a)]
            assert change.value == " and ".join(holding)
            freed = [
                replace(a, ports=tuple(p for p in a.ports if f"{p.host}/{p.protocol}" != port)) if a.node == node else a
                for a in snapshot.allocations
            ]
            return replace(snapshot, allocations=tuple(freed))
        case Lift.MOVE:
            assert change.subject in [a.id for a in snapshot.allocations if a.node == node]
            return replace(snapshot, allocations=tuple(a for a in snapshot.allocations if a.id != change.subject))
        case Lift.READY:
            assert named_node(snapshot, node).eligibility.value == change.subject
            opened = [replace(n, eligibility=Eligibility.READY) if n.name == node else n for n in snapshot.nodes]
            return replace(snapshot, nodes=tuple(opened))
        case _:
            like = named_node(snapshot, change.subject) if change.subject else None
            labels, attributes = (like.labels, like.attributes) if like else (ANY_LABELS, {"arch": "arm64"})
            made = NodeView(NEW, Eligibility.READY, labels, attributes, amounts_in(change.value))
            return replace(snapshot, nodes=(*snapshot.nodes, made))


def ports_of(allocation: PlacedAllocation) -> list[str]:
    return [f"{p.host}/{p.protocol}" for p in allocation.ports]


def amounts_in(text: str) -> Vector:
    found = {name: amount for amount, name in re.findall(r"(\S+) (\w+)(?:,| and|$)", text)}
    cpu, memory, pids, disk = (found.pop(name) for name in ("cpu", "memory", "pids", "disk"))
    devices = tuple((name, int(count)) for name, count in found.items())
    return Vector(parse_cpu(cpu), parse_bytes(memory), int(pids), parse_bytes(disk), devices)


def next_smaller(remedy: Remedy) -> list[Remedy]:
    """Return the remedy with each number one unit nearer to what it is now."""
    nearer = []
    for number, change in enumerate(remedy.changes):
        if change.lift in (Lift.RESERVE, Lift.MAX_PER_NODE, Lift.MAX_SKEW):
            value = one_more(change) if change.lift is Lift.RESERVE else str(int(change.value) - 1)
            changes = (*remedy.changes[:number], replace(change, value=value), *remedy.changes[number + 1 :])
            nearer.append(Remedy(remedy.node, changes))
    return nearer


def one_more(change: Change) -> str:
    match change.subject:
        case "cpu":
            return f"{parse_cpu(change.value) + 1}m"
        case "memory" | "disk":
            amount = parse_bytes(change.value)
            return str(amount + (MEBIBYTE if amount >= MEBIBYTE else 1))
    return str(int(change.value) + 1)


def named_node(snapshot: Snapshot, name: str) -> NodeView:
    return next(n for n in snapshot.nodes if n.name == name)
