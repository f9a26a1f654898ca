"""What simulated users run: workloads of every kind, with every trait that matters, and a config."""

from typing import Any

from manifests.configs import Config
from manifests.workloads import WORKLOAD, Service, Workload
from tests.builders import workload
from tests.simulation.cluster import IMAGE

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
DEAF = ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
CHECK = {"exec": {"command": ["check"]}, "interval": "2s", "timeout": "1s", "failures": 2}
QUICK: dict[str, Any] = {
    "restart": {"backoff": "500ms", "maxBackoff": "4s", "attempts": 4, "window": "1m"},
    "reschedule": {"backoff": "1s", "maxBackoff": "5s"},
}
SHORT_STOP = {"grace": "3s"}
BROKEN = ("sh", "-c", "sleep 0.2; exit 1")
SITE = "site"  # the config that some of them name
SHORT_DEADLINE = {"progressDeadline": "15s"}


def site(content: str) -> Config:
    metadata = {"name": SITE}
    document = {"apiVersion": "wherry/v1", "kind": "Config", "metadata": metadata, "spec": {"data": content}}
    return Config.model_validate(document)


def first_workloads() -> list[Workload]:
    """Return what the cluster runs from the beginning: every kind, and every trait that matters to the agent."""

    def small(cpu: str = "200m") -> dict[str, str]:
        return {"cpu": cpu, "memory": "64Mi"}

    return [
        workload(
            name="web",
            replicas=4,
            resources=small(),
            command=FOREVER,
            ports=[_port("auto")],
            update=SHORT_DEADLINE,
            **QUICK,
        ),
        workload(
            name="api",
            replicas=3,
            resources=small("500m"),
            command=FOREVER,
            ports=[_port(8080)],
            configs=_named(),
            update=SHORT_DEADLINE,
            **QUICK,
        ),
        workload(
            name="deaf", replicas=2, resources=small(), command=DEAF, stop=SHORT_STOP, update=_stop_first(), **QUICK
        ),
        workload(
            name="checked",
            replicas=2,
            resources=small("2200m"),  # a node has room for one
            update={**SHORT_DEADLINE, "minHealthyTime": "3s"},
            command=FOREVER,
            health={"readiness": CHECK, "liveness": CHECK},
            **QUICK,
        ),
        workload(
            "Daemon",
            name="monitor",
            resources=small("100m"),
            command=FOREVER,
            configs=_named(),
            update={"progressDeadline": "20s"},
            **QUICK,
        ),
        workload("Job", name="batch", completions=5, parallelism=2, resources=small(), command=job_command(3), **QUICK),
        workload("Job", name="timed", timeout="40s", resources=small(), command=job_command(6), **QUICK),
        _group(),
        workload(
            "CronJob", name="ticker", schedule="* * * * *", command=job_command(4), resources=small("50m"), **QUICK
        ),
        workload(name="looper", resources=small("100m"), command=BROKEN, **_patient()),
        workload(name="quitter", resources=small("100m"), command=BROKEN, restart={"policy": "never"}),
    ]


def filler(*, seconds: int) -> Workload:
    """Return a job that takes the better part of every node for so long."""
    size = {"cpu": "1700m", "memory": "64Mi"}
    places = {"maxPerNode": 1}
    command = job_command(seconds)
    return workload(
        "Job", name="filler", completions=5, parallelism=5, resources=size, command=command, placement=places
    )


def _port(publish: int | str) -> dict[str, object]:
    return {"container": 80, "publish": publish}


def _named() -> list[dict[str, str]]:
    return [{"name": SITE, "env": "SITE"}]


def _stop_first() -> dict[str, Any]:
    return {**SHORT_DEADLINE, "maxSurge": 0, "maxUnavailable": 1}


def job_command(seconds: int) -> tuple[str, ...]:
    return ("sh", "-c", f"sleep {seconds}; exit 0")


def _group() -> Workload:
    """Return a service of two containers beside a sandbox, one of which must be there first."""
    size = {"cpu": "50m", "memory": "32Mi", "pids": 20}
    proxy = {"name": "proxy", "sidecar": True, "image": IMAGE, "command": FOREVER, "resources": size}
    app = {"name": "app", "image": IMAGE, "command": FOREVER, "resources": size}
    spec = {"replicas": 2, "containers": [proxy, app], "reschedule": QUICK["reschedule"]}
    document = {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "pair"}, "spec": spec}
    return WORKLOAD.validate_python(document)


def _patient() -> dict[str, Any]:
    """It may fail as often as it likes, so that nothing but its backoff holds it."""
    return {"restart": {"backoff": "1s", "maxBackoff": "1m", "attempts": 1000}, "reschedule": {"backoff": "1s"}}


def first(name: str) -> Workload:
    return next(one for one in first_workloads() if one.metadata.name == name)


def as_at_first(one: Workload) -> Workload:
    """Return it so that it works."""
    spec = first(one.metadata.name).spec
    works = {"command": spec.command, "restart": spec.restart}
    return one.model_copy(update={"spec": one.spec.model_copy(update=works)})


def renewed(one: Workload, number: int, at_s: float) -> Workload:
    """Return it with something new of how its containers run."""
    env = {"VERSION": str(number), "AT": str(at_s)}
    return one.model_copy(update={"spec": one.spec.model_copy(update={"env": env})})


def has_canaries(one: Workload) -> bool:
    return isinstance(one, Service) and one.spec.update.canary > 0
