"""Answers `why not`: for one more allocation, what rules out each node, and what would change that.

It judges by the very rules that `place` plans by. Whoever asks gives the ledger of this moment, or one of a what-if.
"""

from collections.abc import Collection
from dataclasses import replace

from manifests.constraints import Constraint
from manifests.explanations import Explanation, Goal
from scheduler.faults import Faults
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility
from scheduler.place import place
from scheduler.remedies import Remedies
from scheduler.soundness import unsound


def explain(
    ask: Ask, ledger: Ledger, *, seed: int, among: Collection[str] | None = None, is_for_each: bool = False
) -> Explanation:
    """Explain one more allocation of the ask on all nodes, or on those `among` them.

    `is_for_each`: each of these nodes is to have one, as a Daemon's are, so that what rules out any of them counts.
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
    return Explanation(
        fits=len(fitting),
        goal=_goal(ask, ledger, seed=seed) if len(fitting) and among is None else None,
        groups=groups,
        more=more,
        remedies=remedies.best(with_new_node=among is None) if wanted else (),
    )


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
