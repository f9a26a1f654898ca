"""Weights of cgroup v2 (1 to 10,000, usually 100) in the words of cgroup v1, which runtimes speak. Pure.

Sources: the kernel's cgroup-v1/blkio-controller and cgroup-v2 documents; the OCI runtime specification, whose `shares`
runtimes turn into weights by 1 + (shares - 2) * 9999 / 262142, and `weight` by 1 + (weight - 10) * 9999 / 990.
"""

_USUAL_SHARES, _LEAST_SHARES, _MOST_SHARES = 1024, 2, 262_144


def cpu_shares(weight: int, *, cgroup_v2: bool) -> int:
    """Return shares: in the same proportion to everybody's 1024, or those from which a runtime makes the weight.

    >>> cpu_shares(100, cgroup_v2=False), cpu_shares(1, cgroup_v2=False), cpu_shares(100, cgroup_v2=True)
    (1024, 10, 2598)
    """
    if cgroup_v2:
        return _LEAST_SHARES + -(-(weight - 1) * 262_142 // 9_999)
    return min(_MOST_SHARES, max(_LEAST_SHARES, weight * _USUAL_SHARES // 100))


def io_weight_v1(weight: int) -> int:
    """Return the weight between 10 and 1000 from which a runtime makes that one, as nearly as it can be told.

    >>> io_weight_v1(1), io_weight_v1(100), io_weight_v1(10_000)
    (10, 20, 1000)
    """
    return 10 + round((weight - 1) * 990 / 9_999)
