"""The cluster that chaos breaks, and the workloads on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from tests.chaos.explain import INIT
from tests.lab.cluster import MIB, Cluster, Equipment, wherry_cluster

Json: TypeAlias = dict[str, Any]
SERVERS, NODES = 3, 4
IMAGE = "wherry/busybox:1"
EQUIPMENT = Equipment(
    etcd_apart=True, wall_clocks=True, disks={"n1/agent": MIB, "s1/server": MIB, "e3/etcd": 256 * MIB}
)
SMALL: Json = {"resources": {"cpu": "100m", "memory": "16Mi", "pids": 20}, "stop": {"grace": "2s"}}
SOON: Json = {"update": {"minHealthyTime": "1s"}}
PATIENT = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait $!"]
PAGE = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec busybox httpd -f -p 8080 -h /tmp/www"


@asynccontextmanager
async def world() -> AsyncIterator[Cluster]:
    """Run the whole cluster, its nodes ready and nothing on it yet."""
    async with wherry_cluster(SERVERS, NODES, equipment=EQUIPMENT) as cluster:
        yield cluster


def web(replicas: int, step: int) -> Json:
    return _service("web", replicas, step, command=PATIENT, placement={"spread": ["node.name"]})


def page(replicas: int, step: int) -> Json:
    """Return a service which takes traffic only once its check passes."""
    return _service(
        "page",
        replicas,
        step,
        command=["sh", "-c", PAGE],
        ports=[{"name": "http", "container": 8080, "publish": "auto"}],
        health={"readiness": {"http": {"port": "http", "path": "/"}, "interval": "2s"}},
    )


def stubborn(replicas: int, step: int) -> Json:
    """Return a service that heeds no SIGTERM, on its host's network."""
    return _service("stubborn", replicas, step, command=["sleep", "100000"], network="host")


def pair(replicas: int, step: int) -> Json:
    """Return a group: an init container, then a program with its helper beside it."""
    one: Json = {"image": IMAGE, "command": PATIENT, **SMALL}
    helper: Json = {**one, "name": "helper", "sidecar": True}
    init: Json = {"image": IMAGE, "name": INIT, "command": ["true"], **SMALL}
    init.pop("stop")
    spec: Json = {"replicas": replicas, "containers": [{**one, "name": "app", "env": _env(step)}, helper]}
    return _manifest("Service", "pair", {**spec, "initContainers": [init], **SOON})


def single(replicas: int, step: int) -> Json:
    """Return a service of which no slot may ever run twice, whatever is cut off."""
    update: Json = {"update": {"maxSurge": 0, "maxUnavailable": 1, "minHealthyTime": "1s"}}
    never_twice: Json = {"onDisconnect": {"stopAfter": "8s"}, "stop": {"grace": "1s"}}
    return _service("single", replicas, step, command=PATIENT, **never_twice, **update)


def watcher(step: int) -> Json:
    return _workload("Daemon", "watcher", step, command=PATIENT, **SOON)


def batch(number: int) -> Json:
    return _workload("Job", f"batch-{number}", 0, command=["sleep", "3"], completions=4, parallelism=2)


SERVICES = {"web": web, "page": page, "stubborn": stubborn, "pair": pair, "single": single}


def _service(name: str, replicas: int, step: int, **spec: object) -> Json:
    return _workload("Service", name, step, replicas=replicas, **{**SOON, **spec})


def _workload(kind: str, name: str, step: int, **spec: object) -> Json:
    return _manifest(kind, name, {"image": IMAGE, "env": _env(step), **SMALL, **spec})


def _env(step: int) -> Json:
    return {"STEP": str(step)}


def _manifest(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": "wherry/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def wish_of(spec: Json) -> tuple[int, int]:
    """Return the replicas and the step that a service's stored spec holds."""
    first = (spec.get("containers") or [spec])[0]
    return spec["replicas"], int(first["env"]["STEP"])
