"""The rules of the models that span several fields, and what makes a new version of a workload."""

from typing import Any

import pytest
from pydantic import ValidationError

from manifests.containers import DEFAULT_MEMORY_BYTES, ContainerSpec, RestartPolicy
from manifests.documents import workload_of
from manifests.errors import InvalidError
from manifests.problems import problems_of
from manifests.workloads import WORKLOAD, Job, Kind, Service, WorkloadSpec, makes_new_version, restart_policy_of


def container(**fields: Any) -> ContainerSpec:
    return ContainerSpec.model_validate({"image": "wherry/busybox:1", **fields})


def service(**fields: Any) -> Service:
    return Service.model_validate(
        {
            "apiVersion": "wherry/v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"image": "wherry/busybox:1", **fields},
        }
    )


def refusal(**fields: Any) -> str:
    """Return the one problem of a container with these fields, as `path: message`."""
    with pytest.raises(ValidationError) as caught:
        container(**fields)
    [problem] = problems_of(caught.value, ContainerSpec)
    return str(problem)


def test_the_reservation_is_the_limit_unless_limits_say_otherwise() -> None:
    assert container().limit().memory_bytes == DEFAULT_MEMORY_BYTES
    limit = container(resources={"cpu": "250m", "memory": "64Mi"}, limits={"memory": "128Mi"}).limit()
    assert (limit.cpu_m, limit.memory_bytes, limit.pids) == (250, 128 * 2**20, 128)


@pytest.mark.parametrize("amount", [{"cpu": "50m"}, {"memory": "32Mi"}, {"pids": 1}])
def test_a_limit_below_the_reservation_is_refused(amount: dict[str, object]) -> None:
    [name] = amount
    assert refusal(limits=amount).startswith(f"limits.{name}: is below the reservation in resources")


def test_less_memory_than_any_container_manager_accepts_is_refused() -> None:
    assert refusal(resources={"memory": "5Mi"}).startswith("resources.memory: is below 6Mi")


@pytest.mark.parametrize(
    ("ports", "problem"),
    [
        ([{"container": 1}, {"container": 2}], "ports[1].name: two ports have the name 'main'"),
        (
            [{"name": "a", "container": 1}, {"name": "b", "container": 1}],
            "ports[1].container: two ports have the container port '1/tcp'",
        ),
        (
            [{"name": "a", "container": 1, "publish": 80}, {"name": "b", "container": 2, "publish": 80}],
            "ports[1].publish: two ports have the published port '80/tcp'",
        ),
    ],
)
def test_ports_are_distinct(ports: list[dict[str, object]], problem: str) -> None:
    assert refusal(ports=ports).startswith(problem)


def test_one_port_number_serves_both_protocols_and_auto_ports_never_clash() -> None:
    spec = container(
        ports=[
            {"name": "dns", "container": 53, "publish": "auto"},
            {"name": "dns-udp", "container": 53, "publish": "auto", "protocol": "udp"},
        ]
    )
    assert (spec.port_number("dns-udp"), spec.port_number(8080)) == (53, 8080)


def test_publishing_has_no_meaning_with_host_networking() -> None:
    assert refusal(network="host", ports=[{"container": 80, "publish": 80}]).startswith("ports[0].publish: has no mean")


@pytest.mark.parametrize("role", ["readiness", "liveness"])
def test_a_check_names_a_port_that_exists(role: str) -> None:
    assert refusal(health={role: {"tcp": {"port": "http"}}}) == (
        f"health.{role}.tcp.port: names the port 'http', but the ports here are: none"
    )


def test_a_check_may_name_a_port_by_number() -> None:
    check = container(health={"liveness": {"tcp": {"port": 9000}}}).health.liveness
    assert check is not None
    assert check.tcp is not None
    assert check.tcp.port == 9000


@pytest.mark.parametrize("kinds", [{}, {"tcp": {"port": 1}, "exec": {"command": ["true"]}}])
def test_a_check_has_exactly_one_kind(kinds: dict[str, object]) -> None:
    assert "exactly one of http, tcp, grpc and exec" in refusal(health={"readiness": kinds})


@pytest.mark.parametrize("path", ["index.html", "/a b", "/\n", ""])
def test_a_check_path_is_one_word_that_begins_with_a_slash(path: str) -> None:
    problem = refusal(health={"readiness": {"http": {"port": 80, "path": path}}})
    assert problem.startswith("health.readiness.http.path: must be a path that begins with /")


@pytest.mark.parametrize("image", ["", "-x", "a b", "a\n", "${X}"])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(ValidationError):
        ContainerSpec.model_validate({"image": image})


@pytest.mark.parametrize("name", ["Web", "a_b", "-a", "a-", "a" * 64, "a\n", "../a", "à", ""])
def test_what_is_no_name_is_refused(name: str) -> None:
    data = service().to_json()
    data["metadata"]["name"] = name
    with pytest.raises(InvalidError) as caught:
        workload_of(data)
    assert [p.path for p in caught.value.problems] == ["metadata.name"]


def test_an_environment_value_holds_no_control_characters() -> None:
    assert refusal(env={"A": "x\0y"}) == "env.A: the character U+0000 is not allowed here"


@pytest.mark.parametrize("value", ["yes", 1, "true"])
def test_a_switch_is_true_or_false_and_nothing_else(value: object) -> None:
    assert refusal(readOnlyRoot=value).startswith("readOnlyRoot: must be true or false; found")


def test_a_json_document_is_judged_like_a_file() -> None:
    with pytest.raises(InvalidError) as caught:
        workload_of({"kind": "Service", "metadata": {"name": "web"}, "spec": {"replica": 3}}, document=4)
    assert [(p.document, p.path, p.message) for p in caught.value.problems] == [
        (4, "apiVersion", "is missing: write apiVersion: wherry/v1"),
        (4, "spec.image", "is missing"),
        (4, "spec.replica", "unknown field; did you mean 'replicas'?"),
    ]


@pytest.mark.parametrize("data", [None, [], "web", 3])
def test_a_json_document_that_is_no_map_is_refused(data: object) -> None:
    with pytest.raises(InvalidError, match="a manifest is a map of fields"):
        workload_of(data)


@pytest.mark.parametrize(
    "change", [{"image": "other:1"}, {"env": {"A": "b"}}, {"limits": {"memory": "1Gi"}}, {"stop": {"grace": "1s"}}]
)
def test_how_a_container_runs_makes_a_new_version(change: dict[str, object]) -> None:
    assert makes_new_version(service(), service(**change))


@pytest.mark.parametrize(
    "change", [{"replicas": 5}, {"update": {"maxSurge": 2}}, {"placement": {"maxPerNode": 1}}, {"reschedule": {}}]
)
def test_how_many_there_are_and_where_makes_no_new_version(change: dict[str, object]) -> None:
    assert not makes_new_version(service(), service(**change))


def test_jobs_restart_on_failure_and_services_always_unless_told_otherwise() -> None:
    job = Job.model_validate({**service().to_json(), "kind": "Job", "spec": {"image": "x"}})
    assert restart_policy_of(Kind.JOB, job.spec) is RestartPolicy.ON_FAILURE
    assert restart_policy_of(Kind.SERVICE, service().spec) is RestartPolicy.ALWAYS
    assert restart_policy_of(Kind.SERVICE, service(restart={"policy": "never"}).spec) is RestartPolicy.NEVER


def test_a_group_reserves_for_all_its_containers() -> None:
    spec = group(containers=[member("web", cpu="200m"), member("proxy", cpu="50m")])
    assert spec.reservation().cpu_m == 250


def test_an_init_container_that_needs_more_than_the_group_sets_the_reservation() -> None:
    spec = group(
        containers=[member("web", cpu="200m"), member("proxy", cpu="50m") | {"sidecar": True}],
        initContainers=[member("prepare", cpu="1")],
    )
    assert spec.reservation().cpu_m == 1050


def test_a_group_survives_the_store() -> None:
    kept = service(image="", containers=[member("web")], initContainers=[member("prepare")])
    assert WORKLOAD.validate_json(kept.to_bytes()) == kept


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"image": "x", "containers": [{"name": "a", "image": "x"}]}, "belongs in the containers of a group"),
        ({"containers": [{"name": "a", "image": "x", "sidecar": True}]}, "are all sidecars"),
        ({"containers": [{"name": "a", "image": "x"}] * 2}, "the name 'a' is there twice"),
        ({"containers": [{"name": "a", "image": "x", "network": "host"}]}, "is shared by all containers of a group"),
        ({"image": "x", "initContainers": [{"name": "main", "image": "x"}]}, "the name 'main' is there twice"),
        ({"image": "x", "initContainers": [{"name": "a", "image": "x", "sidecar": True}]}, "has no meaning in an init"),
        (
            {"containers": [{"name": n, "image": "x", "ports": [{"name": n, "container": 80}]} for n in ("a", "b")]},
            "container 'a' has '80/tcp' already",
        ),
        ({"image": "x", "configs": [{"name": "a"}]}, "exactly one place"),
        ({"image": "x", "startAfter": [{"job": "a", "service": "b"}]}, "names exactly one of job, service and daemon"),
        ({"image": "x", "placement": {"tolerations": ["a b"]}}, "is not a toleration"),
        ({"image": "x", "onDisconnect": {"stopAfter": "soon"}}, "duration"),
    ],
)
def test_what_a_group_or_a_policy_can_t_say_is_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        workload_of({"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})


def member(name: str, cpu: str = "100m") -> dict[str, Any]:
    return {"name": name, "image": "wherry/busybox:1", "resources": {"cpu": cpu}}


def group(**spec: Any) -> WorkloadSpec:
    return service(image="", **spec).spec
