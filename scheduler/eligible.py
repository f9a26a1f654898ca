"""Which nodes a workload may be on at all."""

from collections.abc import Iterable

from manifests.constraints import Constraint, attribute_of
from scheduler.model import NodeView


def matches(node: NodeView, constraints: Iterable[Constraint]) -> bool:
    """Say whether all constraints hold on the node."""
    return all(c.holds(attribute_of(c.attribute, node.name, node.labels, node.attributes)) for c in constraints)
