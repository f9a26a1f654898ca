"""What chaos breaks at once never takes away what is promised to survive, and a seed repeats it."""

from itertools import combinations_with_replacement
from random import Random

import pytest

from tests.chaos.fault import Kind, Part
from tests.chaos.pairs import PAIR_EVERY, Deck, may_pair
from tests.chaos.run import KINDS

BY_NAME = {kind.name: kind for kind in KINDS}


def dealt(seed: int, count: int, kinds: tuple[Kind, ...] = KINDS) -> list[tuple[Kind, ...]]:
    deck = Deck(kinds, Random(seed))
    return [deck.deal(number) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("server killed", "host cut off"),
        ("engine restarted", "etcd member killed"),
        ("etcd without quorum", "power cut"),
        ("agent killed", "agent killed"),
        ("agent cloned", "etcd member frozen"),
    ],
)
def test_what_is_promised_to_survive_both_goes_together(one: str, other: str) -> None:
    assert may_pair(BY_NAME[one], BY_NAME[other])
    assert may_pair(BY_NAME[other], BY_NAME[one])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("etcd member killed", "etcd member frozen"),  # would be a lost quorum
        ("etcd member killed", "etcd without quorum"),
        ("etcd without quorum", "etcd out of space"),
        ("server killed", "server frozen"),
        ("server killed", "etcd without quorum"),
        ("server killed", "lease revoked"),
        ("agent's disk full", "agent's disk full"),  # of the same node, always
        ("agent cloned", "agent killed"),
        ("agent cloned", "server killed"),
    ],
)
def test_what_is_not_promised_to_survive_both_never_goes_together(one: str, other: str) -> None:
    assert not may_pair(BY_NAME[one], BY_NAME[other])
    assert not may_pair(BY_NAME[other], BY_NAME[one])


def test_no_two_kinds_at_once_take_two_members_or_two_servers() -> None:
    pairs = [(a.takes, b.takes) for a, b in combinations_with_replacement(KINDS, 2) if may_pair(a, b)]
    once = {Part.MEMBER, Part.SERVER, Part.STORE, Part.IDENTITY}
    assert pairs
    assert not [pair for pair in pairs if pair[0] is pair[1] and pair[0] in once]
    assert not [pair for pair in pairs if set(pair) == {Part.MEMBER, Part.STORE}]


@pytest.mark.parametrize("seed", range(50))
def test_each_fourth_is_a_pair_that_may_be_and_the_second_is_the_first_of_them(seed: int) -> None:
    made = dealt(seed, 40)
    assert [number for number, kinds in enumerate(made, start=1) if len(kinds) == 2] == list(range(2, 41, PAIR_EVERY))
    assert all(may_pair(*kinds) for kinds in made if len(kinds) == 2)
    assert not any(kinds[-1].node for kinds in made if len(kinds) == 2)  # what always hits one node comes first


@pytest.mark.parametrize("seed", range(50))
def test_every_kind_has_its_turn(seed: int) -> None:
    assert {kind for kinds in dealt(seed, len(KINDS)) for kind in kinds} == set(KINDS)


def test_a_seed_deals_the_same_again() -> None:
    assert dealt(7, 60) == dealt(7, 60)
    assert dealt(7, 60) != dealt(8, 60)


def test_what_nothing_goes_with_is_made_alone() -> None:
    assert all(len(kinds) == 1 for kinds in dealt(1, 12, (BY_NAME["server killed"], BY_NAME["server frozen"])))
