"""What `update` may say in a manifest, and what undo and reverts take from a version and what not."""

from typing import Any

import pytest

from manifests.documents import workload_of
from manifests.errors import InvalidError
from manifests.workloads import DaemonSpec, ServiceSpec, makes_new_version, with_template_of
from tests.builders import workload


def applied(kind: str, update: dict[str, Any]) -> None:
    document = {
        "apiVersion": "wherry/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"image": "a", "update": update},
    }
    workload_of(document)


@pytest.mark.parametrize("kind", ["Service", "Daemon"])
def test_a_deadline_that_no_version_could_meet_is_refused(kind: str) -> None:
    with pytest.raises(InvalidError) as refused:
        applied(kind, {"minHealthyTime": "3m"})
    assert "spec.update.progressDeadline: must be longer than minHealthyTime (3m)" in refused.value.why
    applied(kind, {"minHealthyTime": "3m", "progressDeadline": "4m"})


def test_a_daemon_has_no_surge_and_must_let_one_node_go_without() -> None:
    with pytest.raises(InvalidError, match="1 problem"):
        applied("Daemon", {"maxSurge": 1})
    with pytest.raises(InvalidError) as refused:
        applied("Daemon", {"maxUnavailable": 0})
    assert "must be at least 1" in refused.value.why


def test_how_an_update_goes_belongs_to_no_version() -> None:
    before = workload("Daemon")
    assert not makes_new_version(before, workload("Daemon", update={"maxUnavailable": 3}))


def test_a_copied_version_brings_its_containers_and_leaves_the_rest_as_it_is() -> None:
    now = workload(replicas=5, env={"A": "new"}, update={"maxSurge": 2}, placement={"maxPerNode": 3})
    kept = workload(replicas=1, env={"A": "old"}, update={"maxSurge": 1})
    copied = with_template_of(now, kept.spec).spec
    assert isinstance(copied, ServiceSpec)
    assert copied.env == {"A": "old"}
    assert (copied.replicas, copied.update.max_surge, copied.placement.max_per_node) == (5, 2, 3)


def test_a_copied_version_of_a_daemon_keeps_its_update() -> None:
    now = workload("Daemon", env={"A": "new"}, update={"maxUnavailable": 2})
    copied = with_template_of(now, workload("Daemon", env={"A": "old"}).spec).spec
    assert isinstance(copied, DaemonSpec)
    assert (copied.env, copied.update.max_unavailable) == ({"A": "old"}, 2)
