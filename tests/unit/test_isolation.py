"""What manifests say of isolation, what it needs that a node must allow, and who holds that ceiling."""

from typing import Any

import pytest

from agent.admission import admit
from agent.container_spec import Surroundings, container_spec
from agent.drivers.docker_codec import to_create_body
from agent.ownership import Ownership
from agent.tracked import Moment, Tracked, newly_assigned, with_sight
from control_plane.controllers.asks import needs_of
from manifests.allocations import Phase
from manifests.containers import Resources
from manifests.errors import InvalidError, UsageError
from manifests.permissions import BASE_CAPABILITIES, lacking
from manifests.workloads import Service, WorkloadSpec
from manifests.yaml_loader import load_text
from scheduler.eligible import matches
from scheduler.model import Eligibility, NodeView, Vector
from tests.scripted_server import assigned
from wherry.cli.commands.agent import allowed_of

ROOM = Resources.of(cpu_m=4000, memory_bytes=2**30, pids=1000, disk_bytes=2**40)
NOW = Moment(0.0, 1000.0)
NET_ADMIN = "capability:NET_ADMIN"


def spec_of(text: str) -> WorkloadSpec:
    lines = "\n".join(f"  {line}" for line in text.splitlines())
    [loaded] = load_text(
        f"apiVersion: wherry/v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  image: b:1\n{lines}\n", "w.yaml"
    )
    assert isinstance(loaded.manifest, Service)
    return loaded.manifest.spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ulimits: {nofile: '2048:1024'}", "the soft limit 2048 is above the hard one"),
        ("ulimits: {nofile: many}", "must be a number, `unlimited`, or two of them"),
        ("ulimits: {nofiles: 5}", "nofile"),
        ("capabilities: {add: [NET_ADMN]}", "did you mean 'NET_ADMIN'"),
        ("capabilities: {add: [ALL]}", "capabilities.add"),
        ("tmpfs: [{path: /proc/x}]", "the kernel's own files"),
        ("tmpfs: [{path: /dev/shm}]", "there is shmSize"),
        ("tmpfs: [{path: /a/../b}]", "must be an absolute path"),
        ("tmpfs: [{path: /a}, {path: /a}]", "'/a' is there twice"),
        ("tmpfs: [{path: /a}]\nconfigs: [{name: c, path: /a}]", "'/a' is there twice"),
        ("tmpfs: [{path: /a, size: 1Ki}]", "at least"),
        ("sysctls: {kernel.panic: 1}", "sysctls"),
        ("sysctls: {net.core.somaxconn: lots}", "must be numbers"),
        ("network: host\nsysctls: {net.core.somaxconn: 9}", "has no meaning with network: host"),
        ("seccomp: none", "'default' or 'unconfined'"),
        ("limits: {cpuWeight: 0}", "at least 1"),
        ("limits: {memorySoft: 1Gi}", "is above the limit of memory"),
    ],
)
def test_a_fault_is_told_in_the_manifests_words(text: str, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        spec_of(text)
    assert message in str(caught.value)
    assert "w.yaml:" in str(caught.value)


def test_isolation_is_written_in_each_container_of_a_group_and_sysctls_once() -> None:
    group: dict[str, Any] = {
        "sysctls": {"net.core.somaxconn": 512},
        "containers": [{"name": "a", "image": "b:1", "seccomp": "unconfined"}, {"name": "b", "image": "b:1"}],
    }
    assert WorkloadSpec.model_validate(group).all_permissions() == ("seccomp:unconfined",)
    with pytest.raises(ValueError, match="belongs in the containers"):
        WorkloadSpec.model_validate(group | {"noNewPrivileges": False})


def test_what_is_safe_needs_no_permission() -> None:
    text = "capabilities: {drop: [ALL], add: [CHOWN, NET_BIND_SERVICE]}\nulimits: {core: 0}\ntmpfs: [{path: /t}]"
    spec = spec_of(text)
    assert spec.all_permissions() == ()
    assert spec.capabilities is not None
    assert spec.capabilities.given() == ("CHOWN", "NET_BIND_SERVICE")


def test_what_goes_further_names_its_permissions() -> None:
    spec = spec_of("capabilities: {add: [NET_ADMIN]}\nseccomp: unconfined\nnoNewPrivileges: false")
    assert spec.all_permissions() == (NET_ADMIN, "seccomp:unconfined", "new-privileges")
    assert lacking(spec.all_permissions(), ["capability:ALL", "seccomp:unconfined"]) == ("new-privileges",)


def test_dropping_keeps_the_other_usual_capabilities() -> None:
    spec = spec_of("capabilities: {drop: [MKNOD]}")
    assert spec.capabilities is not None
    assert set(spec.capabilities.given()) == set(BASE_CAPABILITIES) - {"MKNOD"}


def node(attributes: dict[str, str]) -> NodeView:
    return NodeView("n1", Eligibility.READY, {}, attributes, Vector(1, 1, 1))


def test_the_scheduler_passes_over_nodes_that_dont_allow_it() -> None:
    constraints = needs_of(spec_of("capabilities: {add: [NET_ADMIN]}"))
    assert not matches(node({}), constraints)
    assert not matches(node({"allows": "seccomp:unconfined"}), constraints)
    assert matches(node({"allows": f"{NET_ADMIN},seccomp:unconfined"}), constraints)
    assert str(constraints[0]) == f"node.attributes.allows includes {NET_ADMIN}"


def newcomer(**spec: Any) -> Tracked:
    return with_sight(newly_assigned(assigned("web-0-a", **spec)), None, attempt=1)


def wants_net_admin() -> Tracked:
    return newcomer(capabilities={"add": ["NET_ADMIN"]})


def test_a_node_refuses_what_its_operator_does_not_allow_whatever_the_leader_says() -> None:
    [refused] = admit([wants_net_admin()], ROOM, NOW)
    ending = refused.status.last_ending
    assert refused.status.phase is Phase.FAILED
    assert ending is not None
    assert ending.reason == "refused"
    assert ending.message == (
        f"the node doesn't allow {NET_ADMIN}: only its operator can, with `wherry agent --allow {NET_ADMIN}`"
    )
    [admitted] = admit([wants_net_admin()], ROOM, NOW, [NET_ADMIN])
    assert admitted.is_admitted


def test_a_container_that_was_admitted_under_a_higher_ceiling_is_not_made() -> None:
    ownership = Ownership(b"k" * 32)
    around = Surroundings("c1", "n1", "", "", Resources())
    with pytest.raises(InvalidError, match="cannot create"):
        container_spec(wants_net_admin(), around, ownership)
    allowing = Surroundings("c1", "n1", "", "", Resources(), frozenset([NET_ADMIN]))
    made = container_spec(wants_net_admin(), allowing, ownership)
    assert made.isolation.capabilities == tuple(sorted((*BASE_CAPABILITIES, "NET_ADMIN")))


def test_nothing_written_is_what_it_was_before_there_was_anything_to_write() -> None:
    around = Surroundings("c1", "n1", "", "", Resources())
    plain = to_create_body(container_spec(newcomer(), around, Ownership(b"k" * 32)))
    host = plain["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["CapDrop"] == ["NET_RAW"]
    assert not {"CapAdd", "Ulimits", "Tmpfs", "ShmSize", "Sysctls", "CpuShares", "BlkioWeight"} & set(host)


@pytest.mark.parametrize("word", ["capability:NET_ADMN", "capability:", "seccomp", "all", "", "new-privileges "])
def test_a_misspelt_permission_allows_nothing(word: str) -> None:
    with pytest.raises(UsageError, match="nothing that a node can allow"):
        allowed_of([word])


def test_permissions_are_read_as_they_are_written() -> None:
    assert allowed_of(["capability:ALL", "seccomp:unconfined"]) == {"capability:ALL", "seccomp:unconfined"}
