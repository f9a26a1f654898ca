"""How a crash loop, and a group of containers, look in the API."""

from dataclasses import dataclass
from pathlib import Path

from manifests.allocations import AllocationStatus, ContainerStatus, Ending, Health, Phase
from manifests.session import Assigned
from tests.scripted import ScriptedAgent, connected, facts, manifest, served


@dataclass
class LoopingAgent(ScriptedAgent):
    """Says of each allocation that one of its containers fails again and again."""

    failures: int = 3

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        said = super()._status(assigned, before)
        ending = Ending(
            attempt=3,
            exit_code=7,
            reason="exited",
            message="exited with code 7",
            container="app",
            log_tail=("out of luck",),
            finished_s=1.0,
        )
        app = ContainerStatus(name="app", phase=Phase.BACKOFF, attempt=4, last_ending=ending)
        return said.model_copy(
            update={
                "phase": Phase.BACKOFF,
                "health": Health.UNKNOWN,
                "attempt": 4,
                "failures": self.failures,
                "last_ending": ending,
                "next_attempt_s": 100.0,
                "containers": (app, ContainerStatus(name="log", phase=Phase.RUNNING, health=Health.HEALTHY)),
            }
        )


async def test_a_crash_loop_is_a_state_with_its_reason_and_its_last_lines(tmp_path: Path) -> None:
    async with served(tmp_path) as server, connected(server, LoopingAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        workload = await server.until_state("/v1/workloads/default/service/web", "crashLoop")
        (allocation,) = await server.allocations()
    assert workload["counts"]["crashLooping"] == 1
    (message,) = workload["messages"]
    assert message.endswith(", container app: exited with code 7 (3 failures in a row)")
    assert (allocation["phase"], allocation["crashLooping"], allocation["failures"]) == ("backoff", True, 3)
    assert allocation["nextAttemptAt"].startswith("1970-01-01T00:01:40")
    ending = allocation["lastEnding"]
    assert (ending["container"], ending["exitCode"], ending["logTail"]) == ("app", 7, ["out of luck"])
    assert [(c["name"], c["phase"], c["attempt"]) for c in allocation["containers"]] == [
        ("app", "backoff", 4),
        ("log", "running", 1),
    ]


async def test_one_failure_that_is_answered_is_no_crash_loop(tmp_path: Path) -> None:
    async with served(tmp_path) as server, connected(server, LoopingAgent(server, facts("n1"), failures=1)):
        await server.apply(manifest(replicas=1))
        workload = await server.until_state("/v1/workloads/default/service/web", "degraded")
    assert workload["counts"]["crashLooping"] == 0
