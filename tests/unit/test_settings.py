"""Settings of namespaces and of the cluster: what a manifest may say, and whose word holds for a workload."""

from typing import Any

import pytest

from control_plane import keys
from control_plane.controllers.asks import ask_of, resolved
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.writes import eviction_units
from control_plane.settings import Rules, Whose, rules_of
from control_plane.store.protocol import ABSENT, Delete, ModifiedAt, Put
from manifests.documents import read_document
from manifests.errors import InvalidError
from manifests.placement import Policy
from manifests.settings import Cluster, Namespace, SettingsRecord
from manifests.workloads import WorkloadRecord
from manifests.yaml_loader import load_text
from scheduler.model import Eviction
from tests.builders import record, seen
from tests.cache import Cache
from tests.clocks import StepClock

HEAD = "apiVersion: wherry/v1\n"


def settings(kind: str, name: str, **spec: Any) -> Put:
    read = read_document({"apiVersion": "wherry/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    assert isinstance(read, Cluster | Namespace)
    stored = SettingsRecord(created_s=0.0, settings=read)
    return Put(keys.key_of(read), stored.to_bytes())


def ruled(of: WorkloadRecord, *writes: Put) -> Rules:
    cache = Cache()
    cache.write(writes)
    return rules_of(cache.state, of)


def test_without_a_word_a_workload_is_packed_and_may_evict() -> None:
    assert ruled(record()) == Rules(Policy.PACK, Whose.DEFAULT, True, Whose.DEFAULT)


def test_the_nearest_word_on_the_policy_counts() -> None:
    cluster = settings("Cluster", "cluster", policy="spread")
    assert ruled(record(), cluster).policy is Policy.SPREAD
    assert ruled(record(), cluster).policy_of is Whose.CLUSTER
    own = ruled(record(placement={"policy": "pack"}), cluster)
    assert (own.policy, own.policy_of) == (Policy.PACK, Whose.WORKLOAD)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("namespace", [True, False])
@pytest.mark.parametrize("cluster", [True, False])
def test_anybody_may_forbid_a_workload_to_evict_and_nobody_may_allow_it_alone(
    own: bool, namespace: bool, cluster: bool
) -> None:
    rules = ruled(
        record(preempts=own),
        settings("Namespace", "default", preempts=namespace),
        settings("Namespace", "other", preempts=False),
        settings("Cluster", "cluster", preempts=cluster),
    )
    assert rules.preempts is (own and namespace and cluster)
    forbids = [Whose.WORKLOAD] * (not own) + [Whose.NAMESPACE] * (not namespace) + [Whose.CLUSTER] * (not cluster)
    assert rules.preempts_of is (forbids or [Whose.DEFAULT])[0]


def test_settings_that_cannot_be_read_evict_nothing() -> None:
    rules = ruled(record(), Put(keys.SETTINGS + "namespace/default", b'{"of": "a newer version"}'))
    assert (rules.preempts, rules.preempts_of) == (False, Whose.NAMESPACE)


def test_asks_follow_the_settings_once_they_are_resolved() -> None:
    cache, of = Cache(), record()
    cache.write([Put(keys.WORKLOADS + "default/service/web", of.to_bytes())])
    [before] = resolved([ask_of(of, [0])], cache.state)
    cache.write([settings("Cluster", "cluster", policy="spread", preempts=False)])
    [after] = resolved([ask_of(of, [0])], cache.state)
    assert (before.policy, before.preempts) == (Policy.PACK, True)
    assert (after.policy, after.preempts) == (Policy.SPREAD, False)
    cache.write([Delete(keys.SETTINGS + "cluster/cluster")])
    assert resolved([ask_of(of, [0])], cache.state) == [before]


def test_only_what_is_blocked_is_looked_at_again_when_settings_change() -> None:
    cache = Cache()
    cache.write([Put(keys.WORKLOADS + f"default/service/{n}", record(name=n).to_bytes()) for n in ("web", "db")])
    dirty = DirtySet(cache.state, StepClock())
    cache.state.subscribe(dirty.on_batch)
    dirty.take_now()
    dirty.blocked = {"default/service/db"}
    cache.write([settings("Cluster", "cluster", preempts=False)])
    assert dirty.take_now() == ["default/service/db"]


def test_an_eviction_compares_the_settings_by_which_it_was_decided() -> None:
    cache, web = Cache(), record(name="web")
    victim = seen(web, 0).allocation
    placed_at = keys.ALLOCATIONS + keys.placed_id(victim.node, victim.id)
    revision = cache.write([Put(placed_at, victim.to_bytes()), settings("Cluster", "cluster", policy="spread")])
    eviction = Eviction(victim.id, victim.node, web.ref, record(name="db", uid="u2").ref, 80)
    [unit] = eviction_units(cache.state, [eviction])
    assert ModifiedAt(keys.SETTINGS + "cluster/cluster", revision) in unit.compares
    assert ModifiedAt(keys.SETTINGS + "namespace/default", ABSENT) in unit.compares


def test_settings_need_no_spec_and_are_in_no_namespace() -> None:
    [one] = load_text(f"{HEAD}kind: Namespace\nmetadata: {{name: batch}}\n", "a.yaml")
    assert isinstance(one.manifest, Namespace)
    assert one.manifest.spec.preempts
    assert one.manifest.metadata.namespace == "-"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Cluster\nmetadata: {name: prod}\n", "a.yaml:3: metadata.name: must be 'cluster'; found 'prod'"),
        (
            "kind: Cluster\nmetadata: {name: cluster}\nspec:\n  policy: scatter\n",
            "a.yaml:5: spec.policy: must be 'pack' or 'spread'; found 'scatter'",
        ),
        (
            "kind: Namespace\nmetadata: {name: batch}\nspec:\n  preempt: false\n",
            "a.yaml:5: spec.preempt: unknown field; did you mean 'preempts'?",
        ),
        (
            "kind: Namespace\nmetadata:\n  name: batch\n  namespace: default\n",
            "a.yaml:5: metadata.namespace: unknown field; the fields here are: labels, name",
        ),
        ("kind: Namespace\nmetadata: {name: batch}\nspec:\n", "a.yaml:4: spec: has no fields: write them below it"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load_text(HEAD + text, "a.yaml")
    assert problem in str(caught.value.why)
