"""Where another workload is: on which nodes, or in which zones, racks or whatever its neighbours go by."""

import numpy as np

from scheduler.columns import Flags
from scheduler.hashing import key_of
from scheduler.ledger import Ledger
from scheduler.model import Neighbour


def places_of(neighbour: Neighbour, ledger: Ledger) -> Flags:
    """Return for each value of what the rule is over whether the other workload is there."""
    column = ledger.nodes.column(neighbour.over)
    is_there = np.zeros(max(len(column.values), 1), np.bool_)
    for row in ledger.holdings.running(key_of(neighbour.workload)):
        is_there[column.codes[row]] = True
    return is_there
