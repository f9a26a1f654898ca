"""When a server has so many agents that some should go on to others."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.spreading import surplus_of

counts_of_servers = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500), min_size=1)


@given(counts_of_servers)
def test_nobody_gives_away_more_than_what_is_over_the_fair_share(counts: dict[str, int]) -> None:
    for server, count in counts.items():
        assert 0 <= surplus_of(counts, server) <= max(0, count - sum(counts.values()) // len(counts))


@given(counts_of_servers)
def test_moving_the_surplus_to_whoever_has_least_ends(counts: dict[str, int]) -> None:
    moves = 0
    while server := next((s for s in sorted(counts) if surplus_of(counts, s)), None):
        least = min(counts, key=lambda s: (counts[s], s))
        counts[server] -= 1
        counts[least] += 1
        moves += 1
        assert moves <= 5000
    assert max(counts.values()) <= max(1.25, 1) * -(-sum(counts.values()) // len(counts)) + 2


def test_a_single_server_keeps_all() -> None:
    assert surplus_of({"a": 500}, "a") == 0


def test_a_server_that_isn_t_known_yet_gives_nothing_away() -> None:
    assert surplus_of({"a": 5, "b": 50}, "c") == 0
