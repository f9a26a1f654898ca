"""The ledger that the leader keeps from pass to pass is the one that it would make anew, whatever has happened."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import keys
from control_plane.controllers.standing import Standing
from control_plane.store.protocol import Delete, Put
from manifests.allocations import Allocation, Desired, HostPort, Phase
from manifests.containers import Resources
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.reasons import Choice
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from scheduler.layers import LEAVING
from scheduler.ledger import Ledger
from scheduler.model import Ask, Spread, Vector
from scheduler.place import place
from tests.builders import record, status
from tests.cache import Cache
from tests.scripted import facts

NODES = ("n1", "n2", "n3")
NAMES = ("web", "api")
events = st.lists(
    st.tuples(
        st.sampled_from(
            ("node", "node", "intent", "gone", "run", "run", "run", "stop", "end", "forget", "rank", "bad", "rolled")
        ),
        st.integers(0, 5),
        st.sampled_from(NODES),
        st.booleans(),
    ),
    max_size=25,
)


ASKS = [
    Ask(record(name="new").ref, 1, tuple(range(3)), Vector(1, 1, 1), spread=(spread,))
    for spread in (
        Spread("node.labels.zone", shares=(("a", 0.6),)),
        Spread("node.name", shares=(("n1", 0.5),)),
        Spread("node.labels.zone", max_skew=1),
    )
]


def allocation(number: int, node: str, *, desired: Desired = Desired.RUN) -> Allocation:
    of, gpus = record(name=NAMES[number % 2]), ["gpu"] if number == 3 else []
    return Allocation(
        id=f"{of.ref.name}-{number}-{node}",
        workload=of.ref,
        version=1 + number % 2,
        index=number,
        node=node,
        desired=desired,
        reserved=Resources.of(cpu_m=100 * (number + 1), memory_bytes=2**20, pids=1, devices=dict.fromkeys(gpus, 1)),
        devices=dict.fromkeys(gpus, ("gpu0",)),
        ports=(HostPort(name="http", container=80, host=20_000 + number),),
        why=Choice(0.0, ()),
        created_s=0.0,
    )


def write(event: tuple[str, int, str, bool]) -> Put | Delete:
    what, number, node, flag = event
    placed = keys.placed_id(node, allocation(number, node).id)
    match what:
        case "node":
            kept = (allocation(number, node),) if flag else ()
            liveness = Liveness.LOST if number == 5 else Liveness.READY
            known = facts(node, zone="ab"[number % 2])
            there = NodeStatus(facts=known, liveness=liveness, server="s1", session=1, changed_s=0.0, kept=kept)
            return Put(keys.NODES + node, there.to_bytes())
        case "intent":
            taints = ("gpu:noSchedule",) if flag else ()
            intent = NodeIntent(name=node, is_cordoned=number % 2 == 0, taints=taints)
            return Put(keys.NODE_INTENTS + node, intent.to_bytes())
        case "bad":
            return Put(keys.NODE_INTENTS + node, b"{") if flag else Delete(keys.NODE_INTENTS + node)
        case "gone":
            return Delete(keys.NODES + node)
        case "run" | "stop":
            desired = Desired.STOP if what == "stop" else Desired.RUN
            return Put(keys.ALLOCATIONS + placed, allocation(number, node, desired=desired).to_bytes())
        case "end":
            phase = Phase.STOPPED if flag else Phase.RUNNING
            return Put(keys.STATUSES + placed, status(allocation(number, node), phase).to_bytes())
        case "forget":
            return Delete((keys.ALLOCATIONS if flag else keys.STATUSES) + placed)
        case "rolled":
            of = record(name=NAMES[number % 2])
            state = RolloutState.COMPLETE if flag else RolloutState.PROGRESSING
            rollout = Rollout(version=1, target=1, state=state)
            said = WorkloadStatus(ref=of.ref, generation=1, rollout=rollout)
            return Put(keys.WORKLOAD_STATUSES + keys.id_of_ref(of.ref), said.to_bytes())
        case _ if flag:
            return Delete(keys.WORKLOADS + keys.id_of_ref(record(name=NAMES[number % 2]).ref))
        case _:
            ranked = record(name=NAMES[number % 2], priority=10 * number)
            return Put(keys.WORKLOADS + keys.id_of_ref(ranked.ref), ranked.to_bytes())


def told(ledger: Ledger) -> dict[str, Any]:
    """Return all that a plan can see of a ledger, without its row numbers."""
    found: dict[str, Any] = {"may miss": ledger.may_miss}
    shape = (4 + len(ledger.nodes.device_kinds), ledger.nodes.size)
    layers = {LEAVING: ledger.layers.leaving(shape), **dict(ledger.layers.below(101, shape))}
    for row in ledger.nodes.present().tolist():
        view = ledger.nodes.view(row)
        kinds = ("cpu", "memory", "pids", "disk", *ledger.nodes.device_kinds)
        held = {k: v for k, v in zip(kinds, ledger.free[:, row].tolist(), strict=True) if v or k in kinds[:4]}
        here = sorted(ledger.holdings.on(row), key=lambda a: a.id)
        ports = {port: ledger.holdings.port_holders((20_000 + port, "tcp"), row) for port in range(6)}
        counts = [ledger.holdings.running(key).get(row, 0) for key in sorted(keys_of(ledger))]
        zone = ledger.nodes.column("node.labels.zone").value(row)
        devices = dict(ledger.holdings.devices(row))
        is_open = bool(ledger.nodes.is_open[row])
        ports = {port: tuple(sorted(holders)) for port, holders in ports.items()}
        layered = {layer: sum(amounts[:, row].tolist()) for layer, amounts in layers.items() if amounts[:, row].any()}
        found[view.name] = (view, held, here, ports, counts, zone, devices, is_open, layered)
    return found


def keys_of(ledger: Ledger) -> set[tuple[str, str, str, str]]:
    refs = [record(name=name).ref for name in NAMES]
    return {(ref.uid, ref.namespace, ref.kind, ref.name) for ref in refs}


@given(events, st.integers(1, 4))
@settings(max_examples=300)
def test_the_ledger_that_is_kept_is_the_one_that_would_be_made_anew(
    happened: list[tuple[str, int, str, bool]], looks: int
) -> None:
    cache = Cache()
    standing = Standing(cache.state)
    cache.state.subscribe(standing.on_batch)
    for number, event in enumerate(happened):
        cache.write([write(event)])
        if number % looks == 0:
            place(ASKS, standing.ledger(), seed=1)
    kept, anew = standing.ledger(), Standing(cache.state).ledger()
    assert told(kept) == told(anew)
    assert place(ASKS, kept, seed=1) == place(ASKS, anew, seed=1)
    assert [view.name for view in standing.views()] == sorted(cache.state.nodes.ids())
