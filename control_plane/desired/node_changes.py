"""What a change of a node's labels, taints and metadata makes of the operators' record of it. Pure."""

from collections.abc import Mapping

from manifests.documents import invalid
from manifests.node_changes import NodePatch
from manifests.nodes import NodeIntent
from manifests.problems import Problem
from manifests.taints import parse_taint, parse_taint_name

MOST_KEPT = 64  # labels, taints and entries of metadata of one node, each


def changed_intent(old: NodeIntent, patch: NodePatch, own_labels: Mapping[str, str]) -> NodeIntent:
    """Return the record with the changes made. Raises InvalidError, which names each field that can't be so.

    `own_labels` are those that the node's agent was started with: they can be covered, not removed.
    """
    problems: list[Problem] = []
    labels = _merged("labels", old.labels, patch.labels, problems, own_labels)
    metadata = _merged("metadata", old.metadata, patch.metadata, problems, {})
    taints = _taints(old.taints, patch, problems)
    kept = (("labels", len(labels)), ("metadata", len(metadata)), ("addTaints", len(taints)))
    problems += [Problem(0, field, f"a node has at most {MOST_KEPT} of them") for field, n in kept if n > MOST_KEPT]
    if problems:
        raise invalid(problems, f"the change of node {old.name}")
    return old.model_copy(update={"labels": labels, "metadata": metadata, "taints": taints})


def _merged(
    field: str,
    old: Mapping[str, str],
    changes: Mapping[str, str | None],
    problems: list[Problem],
    own: Mapping[str, str],
) -> dict[str, str]:
    merged = dict(old)
    for key, value in changes.items():
        if value is not None:
            merged[key] = value
        elif key in old:
            del merged[key]
        elif key in own:
            why = "can't be removed, as its agent was started with it: set another value, or start the agent without it"
            problems.append(Problem(0, f"{field}.{key}", why))
        else:
            there = ", ".join(sorted({*old, *own})) or "there are none"
            problems.append(Problem(0, f"{field}.{key}", f"isn't there to be removed; of these there are: {there}"))
    return merged


def _taints(old: tuple[str, ...], patch: NodePatch, problems: list[Problem]) -> tuple[str, ...]:
    """Return the taints afterwards: one of the same key and effect takes the place of the old."""
    taints = {(t.key, t.effect): t for t in map(parse_taint, old)}
    for number, text in enumerate(patch.remove_taints):
        key, effect = parse_taint_name(text)
        gone = [k for k in taints if k[0] == key and effect in (None, k[1])]
        if not gone:
            why = f"there is no such taint; there are: {', '.join(old) or 'none'}"
            problems.append(Problem(0, f"removeTaints[{number}]", why))
        for k in gone:
            del taints[k]
    for text in patch.add_taints:
        taint = parse_taint(text)
        taints[taint.key, taint.effect] = taint
    return tuple(str(t) for t in taints.values())
