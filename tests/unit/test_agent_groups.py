"""What an agent decides for a group of containers: the order of starts and ends, restarts, and a lost sandbox."""

from typing import Any

from agent.container_spec import Surroundings, container_spec
from agent.driver import SANDBOX_IMAGE
from agent.ownership import Ownership
from agent.reconcile import Discard, Remove, Start, Stop
from agent.tracked import SANDBOX
from manifests.allocations import Health, HostPort, Phase
from manifests.containers import Resources
from tests.agent_world import World
from tests.scripted_server import assigned, grouped

APP = {"name": "app", "image": "i"}
LOG = {"name": "log", "image": "i", "sidecar": True}
CHECKED = {"health": {"readiness": {"tcp": {"port": 80}}}}


def group(*containers: dict[str, Any], inits: tuple[str, ...] = (), **given: Any) -> World:
    return World.of(grouped(*containers, inits=inits, **given))


def started(world: World) -> list[str]:
    """Return the containers that were started, in order."""
    return [container.partition("/")[2] for _, container in world.starts]


def test_a_container_without_companions_gets_no_sandbox() -> None:
    world = World.of(assigned("web-0-a"))
    assert [action for action in world.actions if isinstance(action, Start)] == [Start("web-0-a", is_restart=False)]


def test_the_sandbox_starts_first_then_all_at_once() -> None:
    world = group(APP, {**APP, "name": "api"})
    assert started(world) == [SANDBOX]
    assert world.phase() is Phase.PENDING
    world.start_works(SANDBOX)
    assert started(world) == [SANDBOX, "app", "api"]
    assert world.phase() is Phase.STARTING
    world.works()
    assert (world.phase(), world.health()) == (Phase.RUNNING, Health.HEALTHY)
    assert world.member("app").network_of == "_sandbox-1"


def test_sidecars_come_before_init_containers_and_these_before_the_rest() -> None:
    world = group(APP, LOG, {**LOG, "name": "proxy", **CHECKED}, inits=("copy", "migrate"))
    world.works()
    assert started(world) == [SANDBOX, "log", "proxy"]
    assert world.group.status.message == "waits for sidecar proxy, which is running"
    world.is_healthy("proxy")
    world.works()
    assert started(world)[3:] == ["copy"]
    world.exits("copy", 0)
    world.works()
    assert started(world)[4:] == ["migrate"]
    assert world.group.status.message == "waits for init container migrate, which is running"
    world.exits("migrate", 0)
    world.works()
    assert started(world)[5:] == ["app"]
    assert world.phase() is Phase.RUNNING
    assert [c.name for c in world.group.status.containers] == ["copy", "migrate", "log", "proxy", "app"]


def test_an_init_container_that_fails_is_tried_again_and_holds_up_the_rest() -> None:
    world = group(APP, inits=("copy",))
    world.works()
    world.exits("copy", 3)
    assert world.member("copy").status.attempt == 2  # the first failure is answered at once
    world.works()
    world.exits("copy", 3)
    assert (world.phase(), world.member("copy").due_s) == (Phase.BACKOFF, 1.0)
    assert world.group.status.last_ending is not None
    assert (world.group.status.last_ending.container, world.group.status.last_ending.exit_code) == ("copy", 3)
    assert "app" not in started(world)
    world.wait(1.0)
    world.works()
    world.exits("copy", 0)
    world.works()
    assert world.phase() is Phase.RUNNING


def test_one_container_alone_with_init_containers_is_a_group_too() -> None:
    world = World.of(assigned("web-0-a", initContainers=[{"name": "copy", "image": "i"}]))
    world.works()
    world.exits("copy", 0)
    world.works()
    assert started(world) == [SANDBOX, "copy", "main"]
    assert world.phase() is Phase.RUNNING


def test_a_restart_of_one_leaves_the_others_and_does_not_run_init_containers_again() -> None:
    world = group(APP, LOG, inits=("copy",))
    world.works()
    world.exits("copy", 0)
    world.works()
    before = len(started(world))
    world.exits("app", 1)
    world.works()
    assert started(world)[before:] == ["app"]
    world.exits("log", 0)
    world.works()
    assert started(world)[before:] == ["app", "log"]
    assert (world.phase(), world.group.status.attempt) == (Phase.RUNNING, 3)
    assert world.running() == [SANDBOX, "app", "log"]


def test_health_is_that_of_all_which_are_checked() -> None:
    world = group({**APP, **CHECKED}, {**APP, "name": "api"})
    world.works()
    assert (world.phase(), world.health()) == (Phase.RUNNING, Health.UNKNOWN)
    world.is_healthy("app")
    assert world.health() is Health.HEALTHY
    world.is_healthy("app", Health.UNHEALTHY)
    assert world.health() is Health.UNHEALTHY


def test_a_job_has_succeeded_when_all_but_the_sidecars_have_and_these_are_stopped_then() -> None:
    world = group(APP, {**APP, "name": "other"}, LOG, kind="Job")
    world.works()
    world.exits("app", 0)
    assert world.phase() is Phase.RUNNING
    world.exits("other", 0)
    assert (world.phase(), world.stopping()) == (Phase.STOPPING, ["log"])
    world.stop_works("log")
    assert world.stopping() == [SANDBOX]
    world.works()
    assert world.phase() is Phase.SUCCEEDED
    assert world.running() == []


def test_the_ending_of_a_job_is_that_of_its_work_and_not_of_what_was_stopped_after_it() -> None:
    world = group(APP, LOG, kind="Job", inits=("copy",))
    world.works()
    world.exits("copy", 0)
    assert world.group.status.last_ending is None  # an init container that has succeeded is no trouble
    world.works()
    world.exits("app", 0)
    world.works()
    ending = world.group.status.last_ending
    assert ending is not None
    assert (ending.container, ending.reason, ending.exit_code) == ("app", "exited", 0)
    stopped = world.member(SANDBOX).status.last_ending
    assert stopped is not None
    assert stopped.reason == "exited"


def test_sidecars_stop_after_the_others_and_the_sandbox_last() -> None:
    world = group(APP, LOG, {**APP, "name": "api"})
    world.works()
    world.stop()
    assert (world.phase(), world.stopping()) == (Phase.STOPPING, ["api", "app"])
    world.stop_works("app")
    assert world.stopping() == ["api"]
    world.stop_works("api")
    assert world.stopping() == ["log"]
    world.stop_works("log")
    assert [a for a in world.actions if isinstance(a, Stop)][-1] == Stop(f"web-0-a/{SANDBOX}", "SIGTERM", 0.0)
    world.works()
    assert world.phase() is Phase.STOPPED
    world.withdraw()
    world.works()
    assert world.is_forgotten
    assert world.containers == {}
    assert len([a for a in world.actions if isinstance(a, Remove)]) == 4


def test_a_sidecar_that_ends_while_the_others_are_being_stopped_is_not_started_again() -> None:
    world = group(APP, LOG)
    world.works()
    world.stop()
    before = len(world.starts)
    world.exits("log", 1)
    world.wait(100.0)
    world.works()
    assert (len(world.starts), world.phase()) == (before, Phase.STOPPED)


def test_an_allocation_fails_when_one_container_has_used_up_its_restarts() -> None:
    world = group({**APP, "restart": {"attempts": 1}}, {**APP, "name": "api"}, LOG)
    world.works()
    world.exits("app", 7)
    world.works()
    world.exits("app", 8)
    assert (world.phase(), world.stopping()) == (Phase.STOPPING, ["api"])
    world.works()
    status = world.group.status
    assert status.phase is Phase.FAILED
    assert status.last_ending is not None
    assert (status.last_ending.container, status.last_ending.exit_code) == ("app", 8)
    assert "container app: exited with code 8" in status.message
    assert world.running() == []


def test_a_policy_counts_for_its_container_alone() -> None:
    world = group({**APP, "restart": {"policy": "onFailure"}}, {**APP, "name": "api"})
    world.works()
    world.exits("app", 0)
    assert world.phases()["app"] == "succeeded"
    assert world.phase() is Phase.RUNNING
    world.exits("api", 0)
    world.works()
    assert world.phase() is Phase.RUNNING  # always: it was started again
    never = group({**APP, "restart": {"policy": "never"}}, {**APP, "name": "api"})
    never.works()
    never.exits("app", 1)
    never.works()
    assert never.phase() is Phase.FAILED


def test_a_lost_sandbox_starts_everything_anew_init_containers_included() -> None:
    world = group(APP, LOG, inits=("copy",))
    world.works()
    world.exits("copy", 0)
    world.works()
    before = len(world.starts)
    world.exits(SANDBOX, 137)
    assert started(world)[before:] == [SANDBOX]
    assert world.stopping() == ["app", "log"]  # they live in a network that is gone
    ending = world.group.status.last_ending
    assert ending is not None
    assert (ending.reason, ending.container) == ("sandboxLost", "")
    world.works()
    assert started(world)[before:] == [SANDBOX, "log", "copy"]
    world.exits("copy", 0)
    world.works()
    assert started(world)[before:] == [SANDBOX, "log", "copy", "app"]
    assert world.phase() is Phase.RUNNING
    assert {c.name: c.attempt for c in world.group.status.containers} == {"copy": 2, "log": 2, "app": 2}


def test_after_a_reboot_everything_starts_anew() -> None:
    world = group(APP, inits=("copy",))
    world.works()
    world.exits("copy", 0)
    world.works()
    before = len(world.starts)
    world.exits("app", 255)
    world.exits(SANDBOX, 255)
    world.agent_restarts()
    world.works()
    world.exits("copy", 0)
    world.works()
    assert started(world)[before:][-3:] == [SANDBOX, "copy", "app"]
    assert world.phase() is Phase.RUNNING


def test_an_agents_restart_changes_nothing_with_or_without_its_state() -> None:
    world = group(APP, LOG, inits=("copy",))
    world.works()
    world.exits("copy", 0)
    world.works()
    world.exits(SANDBOX, 137)
    world.works()
    world.exits("copy", 0)
    world.works()
    status, actions = world.group.status, len(world.actions)
    world.agent_restarts()
    assert (world.group.status, len(world.actions)) == (status, actions)
    world.state_is_lost()
    assert (world.phase(), world.group.status.attempt) == (Phase.RUNNING, status.attempt)
    assert len(world.actions) == actions


def test_a_group_that_is_cut_off_for_too_long_ends_but_for_its_network_until_a_server_says_so() -> None:
    world = group(APP, LOG, inits=("copy",), onDisconnect={"stopAfter": "10s"})
    world.works()
    world.exits("copy", 0)
    world.works()
    world.is_cut_off(9.0)
    assert world.stopping() == []
    world.is_cut_off(10.0)
    assert world.stopping() == ["app", "log"]
    world.works()
    before = len(world.starts)
    world.wait(100.0)
    world.works()
    assert (world.running(), len(world.starts)) == ([SANDBOX], before)
    world.is_heard_again()
    world.works()
    assert (world.phase(), world.running()) == (Phase.RUNNING, [SANDBOX, "app", "log"])
    assert started(world)[before:] == ["log", "app"]


def test_a_jobs_time_counts_for_the_whole_group() -> None:
    world = group(APP, LOG, kind="Job", timeout="10s")
    world.works()
    assert world.next_look_s() == 10.0
    world.wait(10.0)
    assert world.stopping() == ["app"]
    world.works()
    ending = world.group.status.last_ending
    assert (world.phase(), ending and ending.reason) == (Phase.FAILED, "timeout")
    assert world.running() == []


def test_a_port_that_is_taken_fails_the_group_by_its_sandbox() -> None:
    world = group(APP)
    for _ in range(6):
        world.start_fails(SANDBOX)
        world.wait(60.0)
    status = world.group.status
    assert (status.phase, status.last_ending and status.last_ending.reason) == (Phase.FAILED, "startFailed")
    assert world.phases() == {SANDBOX: "failed", "app": "stopped"}


def test_of_the_attempts_of_a_lost_network_only_the_last_is_kept() -> None:
    world = group(APP)
    world.works()
    world.exits(SANDBOX, 137)
    world.works()
    assert world.running() == [SANDBOX, "app"]
    world.exits(SANDBOX, 137)
    world.works()
    assert len(world.containers) <= 6
    assert any(isinstance(action, Discard) for action in world.actions)


AROUND = Surroundings("c1c1c1c1c1", "n1", "10.0.0.1", "/wherry", Resources.of(cpu_m=4000, memory_bytes=2**30, pids=500))


def test_the_sandbox_has_the_ports_and_the_name_and_the_others_its_network() -> None:
    ports = (HostPort(name="http", container=80, host=8080),)
    world = group({**APP, "env": {"A": "b"}, "limits": {"memory": "70Mi"}}, ports=ports)
    world.works()
    of, app = (container_spec(member, AROUND, Ownership(b"k" * 32)) for member in world.group.members)
    assert (of.image, of.hostname, [p.host_port for p in of.ports]) == (SANDBOX_IMAGE, "web-0-a", [8080])
    assert (of.name, app.name) == ("wherry-c1c1c1c1-n1-web-0-a._sandbox-1", "wherry-c1c1c1c1-n1-web-0-a.app-1")
    assert (of.labels["wherry.container"], app.labels["wherry.container"]) == ("_sandbox", "app")
    assert (app.network_of, app.ports, app.limits.memory_bytes) == ("_sandbox-1", (), 70 * 2**20)
    assert (app.env["A"], app.env["WHERRY_CONTAINER"], app.env["WHERRY_PORT_HTTP"]) == ("b", "app", "8080")
    assert (app.cgroup_parent, of.cgroup_parent) == ("/wherry", "/wherry")
