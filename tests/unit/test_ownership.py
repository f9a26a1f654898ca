"""Tests of agent.ownership."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ownership import ALLOCATION, ATTEMPT, CONTAINER, KEY_FILE, NODE, SEAL, VERSION, Identity, Ownership
from manifests.errors import InvalidError

WEB = Identity("c1", "node-a", "default.web.0", version=3, attempt=2)
texts = st.text(max_size=12)
numbers = st.integers(0, 10**6)
identities = st.builds(Identity, texts, texts, texts, numbers, numbers, st.sampled_from(("main", "app", "log", "")))


@given(identities)
def test_sealed_labels_give_back_the_identity(identity: Identity) -> None:
    ours = Ownership(b"k" * 32)
    assert ours.owned({**ours.labels(identity), "maintainer": "someone"}) == identity


@given(identities, identities)
def test_a_seal_is_right_for_one_identity_only(one: Identity, other: Identity) -> None:
    ours = Ownership(b"k" * 32)
    moved = {**ours.labels(other), SEAL: ours.labels(one)[SEAL]}
    assert (ours.owned(moved) is not None) == (one == other)


def test_a_container_of_the_version_before_groups_is_still_owned() -> None:
    ours = Ownership(b"k" * 32)
    labels = ours.labels(WEB)
    del labels[CONTAINER]
    assert ours.owned(labels) == WEB
    assert labels[SEAL] == "87669b3a1c0abe3dc8b9983e559fea8804fa147aa403b29d0b0bbe46bbfb1cca"


def test_a_container_of_a_group_is_not_taken_for_another_one_of_it() -> None:
    ours = Ownership(b"k" * 32)
    app = ours.labels(dataclasses.replace(WEB, container="app"))
    assert ours.owned({**app, CONTAINER: "main"}) is None
    assert ours.owned({name: value for name, value in app.items() if name != CONTAINER}) is None
    assert ours.owned({**ours.labels(WEB), CONTAINER: "app"}) is None


def test_labels_of_another_node_s_key_are_not_owned() -> None:
    assert Ownership(b"a" * 32).owned(Ownership(b"b" * 32).labels(WEB)) is None


@pytest.mark.parametrize("missing", [NODE, ALLOCATION, VERSION, ATTEMPT, SEAL])
def test_a_missing_label_is_not_owned(missing: str) -> None:
    ours = Ownership(b"k" * 32)
    labels = ours.labels(WEB)
    del labels[missing]
    assert ours.owned(labels) is None


@pytest.mark.parametrize("version", ["03", " 3", "+3", "3_", "x", "", "٣"])
def test_another_spelling_of_a_number_is_not_owned(version: str) -> None:
    ours = Ownership(b"k" * 32)
    assert ours.owned({**ours.labels(WEB), VERSION: version}) is None


def test_fields_do_not_run_into_each_other() -> None:
    ours = Ownership(b"k" * 32)
    shifted = dataclasses.replace(WEB, cluster="c1n", node="ode-a")
    assert ours.labels(shifted)[SEAL] != ours.labels(WEB)[SEAL]


@pytest.mark.parametrize("seal", ["é", "\ud800", ""])
def test_a_seal_of_odd_characters_is_not_owned(seal: str) -> None:
    ours = Ownership(b"k" * 32)
    assert ours.owned({**ours.labels(WEB), SEAL: seal}) is None


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = Ownership.load(tmp_path / "agent")
    key = tmp_path / "agent" / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in key.parent.iterdir()] == [KEY_FILE]
    assert Ownership.load(tmp_path / "agent").owned(first.labels(WEB)) == WEB


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Ownership.load(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InvalidError, match="0640"):
        Ownership.load(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    Ownership.load(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(InvalidError, match="5 bytes"):
        Ownership.load(tmp_path)
