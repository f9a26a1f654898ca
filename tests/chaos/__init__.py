"""Chaos on real processes: a whole cluster in network namespaces, a fault every 20 s, and a user who works meanwhile.

`script/chaos` runs it (`__main__`). `world` is the cluster and what runs on it, `user` changes it, the `*_faults` break
it, now and then two at once, as `pairs` allows; tests.lab.chronicle writes down what the store says and tests.lab.truth
what ran; `explain` checks that each container's end had a cause. The pure parts are tested in
tests/unit/test_chaos_checkers.py and test_chaos_pairs.py.
"""
