"""How far out of its box a namespace lets its workloads go: three levels, and the strictest where nobody can tell."""

from typing import Any

import pytest

from control_plane import keys
from control_plane.desired.isolation import check_isolation, isolation_of
from control_plane.store.protocol import Put
from manifests.errors import ForbiddenError
from manifests.settings import Isolation, Namespace, SettingsRecord
from manifests.workloads import Workload
from tests.builders import workload
from tests.cache import Cache

SAFE: dict[str, Any] = {"user": "1000", "capabilities": {"drop": ["ALL"]}, "readOnlyRoot": True}
BEYOND: list[dict[str, Any]] = [
    {"capabilities": {"add": ["NET_ADMIN"]}},
    {"seccomp": "unconfined"},
    {"noNewPrivileges": False},
    {"volumes": [{"name": "a", "host": "/srv"}], "mounts": [{"volume": "a", "path": "/a"}]},
]


def settings(isolation: str, name: str = "default") -> Namespace:
    document = {"apiVersion": "wherry/v1", "kind": "Namespace", "metadata": {"name": name}}
    return Namespace.model_validate(document | {"spec": {"isolation": isolation}})


def cache_with(isolation: str) -> Cache:
    cache = Cache()
    record = SettingsRecord(created_s=0.0, settings=settings(isolation))
    cache.write([Put(keys.SETTINGS + keys.settings_id("Namespace", "default"), record.to_bytes())])
    return cache


def group(of: str, spec: dict[str, Any]) -> Workload:
    """Return a group one container of which is that: a member, or an init container."""
    own = {name: value for name, value in spec.items() if name != "volumes"}
    boxes = {"containers": [{"name": "a", "image": "b:1"}], of: [{"name": "x", "image": "b:1", **own}]}
    shared = {"volumes": spec["volumes"]} if "volumes" in spec else {}
    fields: dict[str, Any] = {**boxes, **shared}
    return workload(image="", command=[], **fields)


@pytest.mark.parametrize("spec", BEYOND)
def test_each_field_that_goes_further_is_refused_by_itself_wherever_it_stands(spec: dict[str, Any]) -> None:
    state = Cache().state
    for asked in (workload(**spec), group("containers", spec), group("initContainers", spec)):
        with pytest.raises(ForbiddenError, match="isolation there is baseline: it needs"):
            check_isolation(state, [asked])
        check_isolation(cache_with("privileged").state, [asked])


@pytest.mark.parametrize("missing", sorted(SAFE))
def test_a_restricted_namespace_wants_every_precaution(missing: str) -> None:
    state = cache_with("restricted").state
    check_isolation(state, [workload(**SAFE)])
    with pytest.raises(ForbiddenError, match="container main"):
        check_isolation(state, [workload(**{name: value for name, value in SAFE.items() if name != missing})])


@pytest.mark.parametrize("user", ["root", "0", "00", "0:5", "root:web"])
def test_root_is_root_by_any_name(user: str) -> None:
    with pytest.raises(ForbiddenError, match="isn't root"):
        check_isolation(cache_with("restricted").state, [workload(**SAFE | {"user": user})])


def test_the_hosts_network_is_not_for_restricted_ones() -> None:
    with pytest.raises(ForbiddenError, match="host's network"):
        check_isolation(cache_with("restricted").state, [workload(network="host", **SAFE)])


def test_what_is_applied_together_counts_already() -> None:
    asked = workload(**BEYOND[0])
    check_isolation(Cache().state, [asked, settings("privileged")])
    with pytest.raises(ForbiddenError):
        check_isolation(cache_with("privileged").state, [settings("baseline"), asked])
    with pytest.raises(ForbiddenError):
        check_isolation(Cache().state, [asked, settings("privileged", "other")])


def test_settings_that_cannot_be_read_are_the_strictest() -> None:
    cache = Cache()
    cache.write([Put(keys.SETTINGS + keys.settings_id("Namespace", "default"), b'{"isolation": "privileged"')])
    assert isolation_of(cache.state, "default") is Isolation.RESTRICTED
