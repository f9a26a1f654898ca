"""What must hold, as checkers: of each revision of the store, and of what really runs. For simulator and real clusters.

The numbers S1..S20 and L1..L12 are those of the list of invariants in docs/simulation.md; each checker names its own.
"""
