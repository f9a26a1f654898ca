"""The cluster that chaos breaks, and the workloads on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from tests.lab.cluster import MIB, Cluster, Equipment, wherry_cluster

Json: TypeAlias = dict[str, Any]
SERVERS, NODES = 3, 4
EQUIPMENT = Equipment(etcd_apart=True, wall_clocks=True, disks={"n1/agent": MIB, "e3/etcd": 256 * MIB})
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


def watcher(step: int) -> Json:
    return _workload("Daemon", "watcher", step, command=PATIENT, **SOON)


def batch(number: int) -> Json:
    return _workload("Job", f"batch-{number}", 0, command=["sleep", "3"], completions=4, parallelism=2)


SERVICES = {"web": web, "page": page, "stubborn": stubborn}


def _service(name: str, replicas: int, step: int, **spec: object) -> Json:
    return _workload("Service", name, step, replicas=replicas, **SOON, **spec)


def _workload(kind: str, name: str, step: int, **spec: object) -> Json:
    made: Json = {"image": "wherry/busybox:1", "env": {"STEP": str(step)}, **SMALL, **spec}
    return {"apiVersion": "wherry/v1", "kind": kind, "metadata": {"name": name}, "spec": made}
