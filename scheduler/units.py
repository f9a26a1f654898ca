"""How much the parts of a score weigh. Scores are whole millionths inside, so that sums are exact on every machine.

Why these parts and weights: docs/decisions/0004-scoring.md.
"""

MILLIONTHS = 1_000_000
SPREAD_WEIGHT = 10.0  # for each allocation more at the same value: above all that the parts of one node can differ by
SPREAD_STEP = 100.0  # each attribute of `spread` weighs so many times the next one
SAME_VERSION_WEIGHT = 0.5
AFFINITY_WEIGHT = 2.0  # of an affinity of 100: from 50 on it outweighs any difference in how full nodes are
