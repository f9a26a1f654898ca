"""Answers `why not`: for one more allocation, what rules out each node, and what would change that.

It judges by the very rules that `place` plans by. Whoever asks gives the ledger of this moment, or one of a what-if.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from manifests.constraints import Constraint
from manifests.explanations import Explanation, Goal, Room, Victim
from scheduler.faults import Faults
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, Eviction
from scheduler.place import place
from scheduler.preemption import make_room
from scheduler.ranking import Orders
from scheduler.remedies import Remedies
from scheduler.soundness import unsound

MOST_ROOMS = 8  # nodes on which it is looked for who would make room, where each is to have one


def explain(
    ask: Ask,
    ledger: Ledger,
    *,
    seed: int,
    among: Collection[str] | None = None,
    is_for_each: bool = False,
    forbids: str = "",
) -> Explanation:
    """Explain one more allocation of the ask on all nodes, or on those `among` them.

    `is_for_each`: each of these nodes is to have one, as a Daemon's are, so that what rules out any of them counts.
    `forbids` says why nothing is evicted for it, if that is so.
    """
    if note := unsound(ask) or _nowhere(ask, ledger, among):
        return Explanation(note=note)
    faults = Faults(ask, ledger, among)
    fitting = faults.fitting
    groups, more = faults.groups()
    remedies = Remedies(faults)
    if is_for_each:
        remedies.leave_out(faults.where(Constraint, Eligibility))
    wanted = is_for_each or not len(fitting)
    named = [ask.only_node] if among is None else [n.node for group in groups for n in group.nodes][:MOST_ROOMS]
    forbids = forbids or ("" if ask.preempts else "preempts is false")
    return Explanation(
        fits=len(fitting),
        goal=_goal(ask, ledger, seed=seed) if len(fitting) and among is None else None,
        groups=groups,
        more=more,
        remedies=remedies.best(with_new_node=among is None) if wanted else (),
        rooms=tuple(_rooms(ask, ledger, named, forbids)) if wanted else (),
    )


def _rooms(ask: Ask, ledger: Ledger, named: Iterable[str | None], forbids: str) -> Iterator[Room]:
    """Yield what makes room for one of the ask, on each of these nodes; None: on the best of all."""
    orders = Orders(ledger)
    for node in named:
        one = replace(ask, indexes=ask.indexes[:1] or (0,), only_node=node, preempts=True)
        made = make_room(one, 1, ledger.fork(), orders.ties_of(one))
        for wait in made.waits:
            evicted = tuple(_victim(eviction, ledger) for eviction in made.evictions)
            leaving = tuple(a for a in wait.leaving if a not in {victim.allocation for victim in evicted})
            yield Room(wait.node, leaving, evicted, forbids if evicted else "")


def _victim(eviction: Eviction, ledger: Ledger) -> Victim:
    known = ledger.holdings.find(ledger.nodes.rows[eviction.node], eviction.allocation)
    return Victim(eviction.allocation, str(eviction.workload), known.priority if known else 0)


def _goal(ask: Ask, ledger: Ledger, *, seed: int) -> Goal | None:
    one = replace(ask, indexes=ask.indexes[:1] or (0,))
    made = place([one], ledger, seed=seed).placements
    return Goal(made[0].node, made[0].why) if made else None


def _nowhere(ask: Ask, ledger: Ledger, among: Collection[str] | None) -> str:
    rows = ledger.nodes.rows
    if not rows:
        return "there are no nodes"
    if ask.only_node is not None and ask.only_node not in rows:
        return f"there is no node {ask.only_node}"
    missing = [name for name in among or () if name not in rows]
    return f"there is no node {missing[0]}" if missing else ""
