"""Which nodes a workload may be on at all: those that take new allocations and meet its constraints."""

from collections.abc import Iterable, Sequence

from manifests.constraints import Constraint, attribute_of
from scheduler.model import Eligibility, NodeView, Snapshot


def matches(node: NodeView, constraints: Iterable[Constraint]) -> bool:
    """Say whether all constraints hold on the node."""
    return failed_constraint(node, constraints) is None


def failed_constraint(node: NodeView, constraints: Iterable[Constraint]) -> tuple[Constraint, str | None] | None:
    """Return the first constraint that doesn't hold and what the node has instead, or None if all hold."""
    for constraint in constraints:
        found = attribute_of(constraint.attribute, node.name, node.labels, node.attributes)
        if not constraint.holds(found):
            return constraint, found
    return None


def eligible_nodes(constraints: Sequence[Constraint], snapshot: Snapshot) -> tuple[NodeView, ...]:
    """Return the nodes where a Daemon of these constraints gets a new allocation, by name.

    What already runs on a cordoned node stays there: ask `matches` for that.
    """
    ready = (n for n in snapshot.nodes if n.eligibility is Eligibility.READY and matches(n, constraints))
    return tuple(sorted(ready, key=lambda n: n.name))
