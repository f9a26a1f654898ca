"""The brake on mass loss, case by case: to be read as its manual."""

from control_plane.controllers.brake import HOLD_S, Episode, NodeSilence, Verdict, judge
from manifests.nodes import Liveness


def ready(*names: str) -> list[NodeSilence]:
    return [NodeSilence(name, Liveness.READY) for name in names]


def silent(*names: str, for_s: float = 5.0, confirmed: bool = False) -> list[NodeSilence]:
    return [NodeSilence(name, Liveness.SUSPECT, for_s, confirmed) for name in names]


def lost(*names: str, for_s: float = 5.0) -> list[NodeSilence]:
    return [NodeSilence(name, Liveness.LOST, for_s) for name in names]


def verdict(*nodes: list[NodeSilence], episode: Episode | None = None) -> Verdict:
    return judge([n for group in nodes for n in group], episode, lost_after_s=5.0)


def test_a_node_is_lost_once_it_was_silent_for_long_enough() -> None:
    assert verdict(silent("a", for_s=4.9), ready("b")).lost == ()
    assert verdict(silent("a", for_s=5.0), ready("b")).lost == ("a",)


def test_two_of_two_silent_nodes_are_lost() -> None:
    assert verdict(silent("a", "b")).lost == ("a", "b")


def test_three_of_six_are_lost_and_four_of_seven_are_held() -> None:
    assert verdict(silent("a", "b", "c"), ready("d", "e", "f")).lost == ("a", "b", "c")
    held = verdict(silent("a", "b", "c", "d"), ready("e", "f", "g"))
    assert (held.lost, held.held, held.there, held.is_new) == ((), ("a", "b", "c", "d"), 7, True)


def test_a_node_that_is_only_just_suspect_counts_as_silent_too() -> None:
    held = verdict(silent("a"), silent("b", "c", for_s=2.5), ready("d", "e"))
    assert (held.lost, held.held) == ((), ("a",))
    assert held.members == {"a", "b", "c"}


def test_a_short_silence_of_all_brakes_nothing() -> None:
    assert verdict(silent("a", "b", "c", for_s=4.0)) == Verdict((), (), frozenset(), 3)


def test_nodes_that_fall_silent_one_after_the_other_are_counted_together() -> None:
    held = verdict(lost("a", "b", for_s=30), silent("c"), ready("d", "e"))
    assert (held.lost, held.held) == ((), ("c",))


def test_what_was_lost_long_ago_is_not_there_and_not_silent() -> None:
    assert verdict(lost("a", "b", "c", for_s=1000), silent("d"), ready("e", "f")).lost == ("d",)
    held = verdict(lost("a", "b", "c", for_s=1000), silent("d", "e", "f"), ready("g", "h"))
    assert (held.held, held.there) == (("d", "e", "f"), 5)


def test_an_operator_can_confirm_one_and_the_others_stay_held() -> None:
    episode = Episode(frozenset("abc"), 100)
    first = verdict(silent("a", for_s=105, confirmed=True), silent("b", "c", for_s=105), ready("d"), episode=episode)
    assert (first.lost, first.held) == (("a",), ("b", "c"))
    then = verdict(lost("a", for_s=200), silent("b", "c", for_s=200), ready("d"), episode=episode)
    assert (then.lost, then.held, then.is_new) == ((), ("b", "c"), False)


def test_a_deleted_node_still_counts_in_the_episode_in_which_it_fell_silent() -> None:
    assert verdict(silent("b", "c"), ready("d"), episode=Episode(frozenset("abc"), 100)).held == ("b", "c")


def test_after_its_time_the_silent_are_lost_and_the_brake_stays_on_until_that_is_stored() -> None:
    episode = Episode(frozenset("abc"), HOLD_S)
    released = verdict(silent("a", "b", "c", for_s=305), ready("d"), episode=episode)
    assert (released.lost, released.held, released.members) == (("a", "b", "c"), (), frozenset("abc"))
    assert verdict(lost("a", "b", "c", for_s=305), ready("d"), episode=episode).members == frozenset()


def test_another_wave_after_the_first_is_held_in_its_turn() -> None:
    episode = Episode(frozenset("abc"), HOLD_S)
    wave = verdict(silent("a", "b", "c", for_s=305), silent("d", "e", "f"), ready("g"), episode=episode)
    assert (wave.lost, wave.held, wave.is_new) == (("a", "b", "c"), ("d", "e", "f"), True)


def test_when_enough_are_back_the_rest_is_lost() -> None:
    episode = Episode(frozenset("abcd"), 100)
    assert verdict(silent("d"), ready("a", "b", "c"), episode=episode).lost == ("d",)


def test_while_the_rest_is_given_time_the_brake_stays_on_only_if_it_is_still_too_many() -> None:
    episode = Episode(frozenset("abcde"), 100)
    still = verdict(silent("a", "b", "c", "d", for_s=0.1), ready("e"), episode=episode)
    assert (still.lost, still.members) == ((), frozenset("abcd"))
    assert verdict(silent("a", for_s=0.1), ready("b", "c", "d", "e"), episode=episode).members == frozenset()
