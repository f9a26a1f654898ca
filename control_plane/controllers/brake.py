"""Decides which silent nodes are lost, and holds that up when too many fall silent at once. Pure.

One node that falls silent has died; most of a cluster that falls silent at once is a network, a switch or a store that
failed, and to start all of it anew on what is left would make things worse. So when 3 or more nodes and over 55 % of
those that were there are silent together, none of them is lost for 5 minutes, unless an operator confirms it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.nodes import Liveness

LEAST_NODES = 3
SHARE = 0.55
HOLD_S = 300.0  # after that the silent ones are lost, however many they are
AT_ONCE_S = 60.0  # a node that was lost counts for so long as one of those that fell silent together


@dataclass(frozen=True, slots=True)
class NodeSilence:
    """A node as the leader knows it; `silent_for_s` is how long nothing was heard of it, 0 if something is."""

    name: str
    liveness: Liveness
    silent_for_s: float = 0.0
    is_confirmed: bool = False  # an operator says that it is gone


@dataclass(frozen=True, slots=True)
class Episode:
    """The brake is on: since when, and for which nodes that fell silent together. Some may be back, or confirmed."""

    members: frozenset[str]
    on_for_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    lost: tuple[str, ...]  # to be marked so now
    held: tuple[str, ...]  # would be lost by now, but for the brake
    members: frozenset[str] = frozenset()  # of the brake's episode, from now on; none: it is off
    there: int = 0  # how many nodes were there, of which the members fell silent
    is_new: bool = False  # a new episode: its time begins now


def judge(
    nodes: Sequence[NodeSilence], episode: Episode | None, *, lost_after_s: float, hold_s: float = HOLD_S
) -> Verdict:
    """Return which nodes are lost by now, and what the brake holds. Only suspect nodes ever become lost."""
    is_over = episode is not None and episode.on_for_s >= hold_s
    members = episode.members if episode else frozenset[str]()
    released = members if is_over else frozenset[str]()
    ready = {n.name for n in nodes if n.liveness is Liveness.READY}
    suspects = [n for n in nodes if n.liveness is Liveness.SUSPECT]
    kept = members - released - ready
    silent = kept | ({n.name for n in suspects} - released) | _lost_just_now(nodes, lost_after_s)
    open_ = [n for n in suspects if not n.is_confirmed and n.name not in released]
    overdue = {n.name for n in suspects if n.silent_for_s >= lost_after_s}
    is_on = is_mass_loss(len(silent), len(ready)) and any(n.name in overdue or n.name in kept for n in open_)
    held = {n.name for n in open_} & overdue if is_on else set[str]()
    lost = overdue - held
    return Verdict(
        lost=tuple(sorted(lost)),
        held=tuple(sorted(held)),
        members=frozenset(silent) if is_on else released if lost else frozenset(),
        there=len(ready) + len(silent),
        is_new=is_on and not kept,
    )


def is_mass_loss(silent: int, heard: int) -> bool:
    """Say whether so many silent nodes, beside those that are heard, are too many to be lost at once."""
    return silent >= LEAST_NODES and silent > SHARE * (silent + heard)


def _lost_just_now(nodes: Sequence[NodeSilence], lost_after_s: float) -> set[str]:
    return {n.name for n in nodes if n.liveness is Liveness.LOST and n.silent_for_s <= lost_after_s + AT_ONCE_S}
