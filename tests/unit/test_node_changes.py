"""What changes make of a node's labels, taints and metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.desired.node_changes import changed_intent
from manifests.errors import InvalidError
from manifests.node_changes import NodePatch
from manifests.nodes import NodeIntent

KEYS = st.sampled_from(["disk", "zone", "rack"])
VALUES = st.sampled_from(["a", "b", ""])


def test_labels_are_added_changed_and_removed_in_one_go() -> None:
    old = NodeIntent(name="n1", labels={"disk": "hdd", "rack": "r1"}, is_cordoned=True)
    new = changed_intent(old, NodePatch(labels={"disk": "ssd", "rack": None, "zone": "a"}), {})
    assert new == NodeIntent(name="n1", labels={"disk": "ssd", "zone": "a"}, is_cordoned=True)


def test_a_label_of_the_agent_can_be_covered_and_uncovered_but_not_removed() -> None:
    own = {"zone": "a"}
    covered = changed_intent(NodeIntent(name="n1"), NodePatch(labels={"zone": "b"}), own)
    assert covered.labels == {"zone": "b"}
    assert changed_intent(covered, NodePatch(labels={"zone": None}), own).labels == {}
    with pytest.raises(InvalidError) as raised:
        changed_intent(NodeIntent(name="n1"), NodePatch(labels={"zone": None}), own)
    assert [p.path for p in raised.value.problems] == ["labels.zone"]


def test_a_taint_of_the_same_key_and_effect_takes_the_place_of_the_old() -> None:
    old = NodeIntent(name="n1", taints=("gpu=a:noSchedule", "gpu=a:noExecute"))
    new = changed_intent(old, NodePatch(add_taints=("gpu=b:noSchedule", "x:noschedule")), {})
    assert new.taints == ("gpu=b:noSchedule", "gpu=a:noExecute", "x:noSchedule")


def test_taints_are_removed_by_key_or_by_key_and_effect() -> None:
    old = NodeIntent(name="n1", taints=("gpu=a:noSchedule", "gpu=a:noExecute", "x:noExecute"))
    assert changed_intent(old, NodePatch(remove_taints=("gpu",)), {}).taints == ("x:noExecute",)
    one = changed_intent(old, NodePatch(remove_taints=("gpu:noExecute",)), {})
    assert one.taints == ("gpu=a:noSchedule", "x:noExecute")


def test_a_taint_can_be_removed_and_set_anew_in_one_change() -> None:
    old = NodeIntent(name="n1", taints=("gpu=a:noSchedule",))
    patch = NodePatch(remove_taints=("gpu",), add_taints=("gpu=b:noExecute",))
    assert changed_intent(old, patch, {}).taints == ("gpu=b:noExecute",)


def test_every_fault_is_named_and_says_what_there_is() -> None:
    old = NodeIntent(name="n1", labels={"disk": "ssd"}, taints=("gpu:noExecute",))
    patch = NodePatch(labels={"dsk": None}, metadata={"owner": None}, remove_taints=("gpu:noSchedule",))
    with pytest.raises(InvalidError) as raised:
        changed_intent(old, patch, {"zone": "a"})
    said = {p.path: p.message for p in raised.value.problems}
    assert "disk, zone" in said["labels.dsk"]
    assert "there are none" in said["metadata.owner"]
    assert "gpu:noExecute" in said["removeTaints[0]"]


def test_there_is_an_end_to_labels() -> None:
    old = NodeIntent(name="n1", labels={f"k{i}": "v" for i in range(64)})
    with pytest.raises(InvalidError, match="1 problem"):
        changed_intent(old, NodePatch(labels={"one-more": "v"}), {})


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_what_was_set_can_be_taken_back(
    old: dict[str, str], changes: dict[str, str | None], own: dict[str, str]
) -> None:
    before = NodeIntent(name="n1", labels=old)
    after = changed_intent(before, NodePatch(labels=changes), own)
    assert {**own, **after.labels} == {**own, **old, **changes}
    back = changed_intent(after, NodePatch(labels={key: old.get(key) for key in changes}), own)
    assert back.labels == old
