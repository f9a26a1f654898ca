"""Between specs and the CRI's messages: pods of both kinds, limits, users, ports, and what a runtime's answers mean."""

import json
from dataclasses import replace

import pytest

from agent.driver import SANDBOX_IMAGE, ContainerId, ContainerSpec, ContainerState, Limits, Mount, PublishedPort
from agent.drivers import cri_codec as codec
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.docker_words import start_failure
from manifests.errors import UnavailableError

WEB = PublishedPort(container_port=80, host_port=8080, host_address="127.0.0.1")
SPEC = ContainerSpec(
    name="web-1",
    image="nginx:1",
    command=("serve",),
    args=("-v",),
    env={"MODE": "a b"},
    labels={"wherry.seal": "s"},
    limits=Limits(cpu_m=250, memory_bytes=1 << 26, pids=17),
    ports=(WEB,),
    hostname="web-0",
    mounts=(Mount("/srv/site", "/etc/site"),),
)


def pod_of(spec: ContainerSpec, *, refused: str = "") -> pb.PodSandboxConfig:
    return codec.to_pod(spec, attempt=0, log_root="/logs", cgroup_parent="/wherry", refused=refused)


def status(**fields: object) -> pb.ContainerStatusResponse:
    known = {"id": "c1", "state": pb.CONTAINER_RUNNING, "started_at": 2_000_000_000, **fields}
    info = {"info": json.dumps({"pid": 42, "sandboxID": "p1"})}
    return pb.ContainerStatusResponse(status=pb.ContainerStatus(**known), info=info)  # type: ignore[arg-type]


def test_a_pod_of_one_container_has_its_ports_and_not_its_labels() -> None:
    pod = pod_of(SPEC)
    assert pod.labels == {codec.POD_NAME: "web-1", codec.POD_KIND: codec.SINGLE}
    assert [(p.protocol, p.container_port, p.host_port, p.host_ip) for p in pod.port_mappings] == [
        (pb.TCP, 80, 8080, "127.0.0.1")
    ]
    assert (pod.hostname, pod.log_directory, pod.linux.cgroup_parent) == ("web-0", "/logs/web-1", "/wherry")
    namespaces = pod.linux.security_context.namespace_options
    assert (namespaces.network, namespaces.pid) == (pb.POD, pb.CONTAINER)


def test_a_holder_is_found_by_the_labels_of_its_group() -> None:
    pod = pod_of(replace(SPEC, image=SANDBOX_IMAGE))
    assert pod.labels == {"wherry.seal": "s", codec.POD_NAME: "web-1", codec.POD_KIND: codec.HOLDER}


def test_on_the_hosts_network_there_are_no_ports_and_no_name() -> None:
    pod = pod_of(replace(SPEC, host_network=True))
    assert (list(pod.port_mappings), pod.hostname) == ([], "")
    assert pod.linux.security_context.namespace_options.network == pb.NODE
    container = codec.to_container_config(replace(SPEC, host_network=True), pod, is_v2=False)
    assert container.linux.security_context.namespace_options.network == pb.NODE


def test_limits_are_in_the_resources_and_pids_only_where_the_kernel_counts_them_so() -> None:
    for is_v2, unified in ((False, {}), (True, {"pids.max": "17"})):
        resources = codec.to_container_config(SPEC, pod_of(SPEC), is_v2=is_v2).linux.resources
        assert (resources.cpu_period, resources.cpu_quota) == (100_000, 25_000)
        assert resources.memory_limit_in_bytes == resources.memory_swap_limit_in_bytes == 1 << 26
        assert resources.unified == unified


@pytest.mark.parametrize(
    ("user", "uid", "gid", "name"),
    [
        ("", None, None, ""),
        ("7", 7, None, ""),
        ("7:8", 7, 8, ""),
        ("web", None, None, "web"),
        ("a:8", None, None, "a:8"),
    ],
)
def test_a_user_is_numbers_or_a_name_of_the_image(user: str, uid: int | None, gid: int | None, name: str) -> None:
    context = codec.to_container_config(replace(SPEC, user=user), pod_of(SPEC), is_v2=True).linux.security_context
    assert (context.run_as_user.value if context.HasField("run_as_user") else None) == uid
    assert (context.run_as_group.value if context.HasField("run_as_group") else None) == gid
    assert context.run_as_username == name
    assert context.no_new_privs
    assert "/proc/kcore" in context.masked_paths


@pytest.mark.parametrize(
    ("address", "port", "is_taken"),
    [("127.0.0.1", 8080, True), ("", 8080, True), ("10.0.0.1", 8080, False), ("127.0.0.1", 8081, False)],
)
def test_a_port_is_taken_by_a_pod_that_publishes_it_on_that_address(address: str, port: int, is_taken: bool) -> None:
    held = [pod_of(SPEC).annotations, {}]
    wanted = PublishedPort(container_port=1, host_port=port, host_address=address)
    assert codec.taken_port([wanted], held) == (wanted if is_taken else None)


def test_what_was_refused_is_told_by_the_created_container() -> None:
    pod = pod_of(SPEC, refused="port 8080 is taken")
    assert list(pod.port_mappings) == []
    annotations = codec.to_container_config(SPEC, pod, is_v2=True).annotations
    found = codec.to_container(status(state=pb.CONTAINER_CREATED, started_at=0, annotations=annotations))
    assert (found.state, found.error, found.image) == (ContainerState.CREATED, "port 8080 is taken", "nginx:1")


def test_a_running_container_has_its_process_and_times_and_an_ended_one_its_code() -> None:
    running = codec.to_container(status(), address="10.0.0.2")
    assert (running.pid, running.started_s, running.finished_s, running.exit_code) == (42, 2.0, 0.0, None)
    assert running.address == "10.0.0.2"
    over = {"state": pb.CONTAINER_EXITED, "finished_at": 3_000_000_000, "exit_code": 137, "reason": "OOMKilled"}
    ended = codec.to_container(status(**over))
    assert (ended.pid, ended.finished_s, ended.exit_code, ended.oom_killed) == (0, 3.0, 137, True)


def test_one_that_could_not_start_counts_as_created_with_the_reason() -> None:
    failed = {"state": pb.CONTAINER_EXITED, "started_at": 0, "exit_code": 128, "message": "no such program"}
    found = codec.to_container(status(**failed))
    assert (found.state, found.exit_code, found.error) == (ContainerState.CREATED, None, "no such program")


def test_a_container_in_a_holders_network_names_the_holder() -> None:
    spec = replace(SPEC, network_of=ContainerId("p1"))
    of = pb.PodSandboxStatus(id="p1", metadata=pb.Metadata(name="group"), annotations={codec.NETWORK: codec.HOST})
    pod = codec.to_joined_pod(of, log_root="/logs", cgroup_parent="/wherry")
    container = codec.to_container_config(spec, pod, is_v2=True)
    assert container.linux.security_context.namespace_options.network == pb.NODE
    assert (pod.log_directory, container.log_path) == ("/logs/group", "web-1.log")
    assert codec.to_container(status(annotations=container.annotations)).network_of == "p1"


def test_a_holder_that_ended_was_killed_when_that_was_seen() -> None:
    answer = pb.PodSandboxStatusResponse(
        status=pb.PodSandboxStatus(
            id="p1",
            state=pb.SANDBOX_NOTREADY,
            created_at=1_000_000_000,
            labels={"a": "b", codec.POD_KIND: codec.HOLDER},
        )
    )
    found = codec.holder_to_container(answer, ended_s=5.0)
    assert (found.state, found.exit_code, found.finished_s) == (ContainerState.EXITED, 137, 5.0)
    assert found.labels == {"a": "b"}
    assert found.image == SANDBOX_IMAGE


def test_runtimes_and_who_keeps_the_cgroups_are_read_from_the_settings_and_may_be_missing() -> None:
    runtimes = {"runc": {"options": {"SystemdCgroup": True}}, "crun": {}}
    config = json.dumps({"containerd": {"defaultRuntimeName": "runc", "runtimes": runtimes}})
    assert codec.runtimes_of({"config": config}) == (["crun", "runc"], True)
    assert codec.runtimes_of({}) == ([], False)
    assert codec.runtimes_of({"config": "x"}) == ([], False)


@pytest.mark.parametrize(
    "text",
    ['sandbox container "5d" is not running', 'failed to find sandbox id "5d": not found'],
)
def test_a_pod_that_went_away_is_not_the_containers_fault(text: str) -> None:
    assert isinstance(start_failure("web", text), UnavailableError)
