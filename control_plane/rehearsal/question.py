"""What is to be different in a rehearsal: nodes that are lost, drained or added, as writes to the fork."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from control_plane import keys
from control_plane.controllers.losses import marked_silent
from control_plane.controllers.snapshot import labels_of
from control_plane.state import ClusterState
from control_plane.store.protocol import Put
from manifests.base import checked_label_value
from manifests.containers import NodeResources
from manifests.errors import InvalidError, NotFoundError, UsageError
from manifests.nodes import Liveness, NodeFacts, NodeIntent, NodeStatus

MOST_ADDED = 1_000
PIDS = 32_768  # of a node that is added
_ADDED = re.compile(r"(?:(?P<count>\d{1,4})x)?(?P<cpu>[0-9.]+m?)(?:cpu)?/(?P<memory>[0-9.]+[A-Za-z]*)")
_HOW_TO_ADD = "Write COUNTxCPUcpu/MEMORY, and labels behind it: 2x4cpu/8Gi,zone=b"


@dataclass(frozen=True, slots=True)
class Question:
    """Names of nodes to lose; names or `label=value` of nodes to drain; what to add, as `2x4cpu/8Gi,label=value`."""

    lose: Sequence[str] = ()
    drain: Sequence[str] = ()
    add: Sequence[str] = ()

    def writes(self, state: ClusterState, wall_s: float) -> list[Put]:
        """Return what makes it so. Raises NotFoundError for a node that isn't there, UsageError for a wrong word."""
        writes = [_lost(state, name, wall_s) for name in dict.fromkeys(self.lose)]
        writes += [_drained(state, name) for name in dict.fromkeys(n for d in self.drain for n in _chosen(state, d))]
        return writes + [_added(facts, wall_s) for facts in self._new_nodes(state)]

    def _new_nodes(self, state: ClusterState) -> Iterator[NodeFacts]:
        number = 0
        for text in self.add:
            count, room, labels = parse_added(text)
            for _ in range(count):
                number += 1
                while f"new-{number}" in state.nodes:
                    number += 1
                yield _facts(f"new-{number}", room, labels, _common_attributes(state))


def parse_added(text: str) -> tuple[int, NodeResources, dict[str, str]]:
    """Return how many nodes are added, what each has, and its labels.

    >>> parse_added("2x4cpu/8Gi,zone=b")[2], parse_added("2x4cpu/8Gi")[0]
    ({'zone': 'b'}, 2)
    """
    size, *pairs = text.split(",")
    match = _ADDED.fullmatch(size.strip())
    count = int(match["count"] or 1) if match else 0
    if match is None or not 1 <= count <= MOST_ADDED:
        raise UsageError(f"'{text[:60]}' doesn't say what nodes to add", fix=_HOW_TO_ADD)
    try:
        given = {"cpu": match["cpu"], "memory": match["memory"], "pids": PIDS}
        room = NodeResources.model_validate(given)
        labels = {key: checked_label_value(value) for key, sep, value in (p.partition("=") for p in pairs) if sep}
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UsageError(f"'{text[:60]}' doesn't say what nodes to add", why=why, fix=_HOW_TO_ADD) from error
    if len(labels) != len(pairs):
        raise UsageError(f"'{text[:60]}' doesn't say what nodes to add", why="a label is KEY=VALUE", fix=_HOW_TO_ADD)
    return count, room, labels


def _lost(state: ClusterState, name: str, wall_s: float) -> Put:
    status = _known(state, name)
    lost = marked_silent(status, Liveness.LOST, "it is lost in this rehearsal", 0.0, wall_s)
    return Put(keys.NODES + name, lost.to_bytes())


def _drained(state: ClusterState, name: str) -> Put:
    intent = state.intents.get(name) or NodeIntent(name=name)
    drained = intent.model_copy(update={"is_cordoned": True, "is_draining": True})
    return Put(keys.NODE_INTENTS + name, drained.to_bytes())


def _chosen(state: ClusterState, words: str) -> list[str]:
    """Return the node of that name, or all nodes with that label."""
    key, is_label, value = words.partition("=")
    if not is_label:
        _known(state, words)
        return [words]
    having = [n for n, s in _all(state) if labels_of(s, state.intents.get(n)).get(key) == value]
    if not having:
        raise NotFoundError(f"no node has the label {words}", fix="Run `wherry get nodes -o wide` for their labels.")
    return having


def _known(state: ClusterState, name: str) -> NodeStatus:
    status = state.nodes.get(name)
    if status is None:
        names = sorted(state.nodes.ids())
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        known = ", ".join(names[:20]) + more if names else "none"
        raise NotFoundError(f"there is no node {name}", why=f"the nodes are: {known}")
    return status


def _added(facts: NodeFacts, wall_s: float) -> Put:
    there = NodeStatus(facts=facts, liveness=Liveness.READY, server="", session=0, changed_s=wall_s)
    return Put(keys.NODES + facts.name, there.to_bytes())


def _facts(name: str, room: NodeResources, labels: dict[str, str], attributes: dict[str, str]) -> NodeFacts:
    try:
        return NodeFacts(
            name=name,
            agent_id=name,
            boot_id=name,
            agent_version="",
            labels=labels,
            attributes=attributes,
            capacity=room,
            allocatable=room,
        )
    except ValidationError as error:
        raise InvalidError(f"node {name} can't be added", why=str(error.errors()[0]["msg"])) from error


def _common_attributes(state: ClusterState) -> dict[str, str]:
    """Return what is so of all nodes: a new one will be like them."""
    shared: set[tuple[str, str]] | None = None
    for _, status in _all(state):
        pairs = set(status.facts.attributes.items())
        shared = pairs if shared is None else shared & pairs
    return dict(sorted(shared or ()))


def _all(state: ClusterState) -> Iterable[tuple[str, NodeStatus]]:
    return ((name, status) for name in sorted(state.nodes.ids()) if (status := state.nodes.get(name)))
