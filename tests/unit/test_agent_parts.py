"""The agent's smaller parts: outbox, state file, cgroups, facts, and what a container is created from."""

import asyncio
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cgroups import cap_parent, is_v2, remove_parent
from agent.container_spec import Surroundings, container_name, container_spec
from agent.facts import allocatable_of, capacity_of, offered_of
from agent.folder import LocalFolder
from agent.group import Group, new_group, with_members
from agent.machine import own_address
from agent.node import Node
from agent.options import AgentOptions
from agent.outbox import MOST_IN_FRAME, Outbox
from agent.ownership import Ownership
from agent.reconcile import Action, decide
from agent.state_file import SavedState, load_agent_id, load_state, save_state, to_group, to_saved
from agent.summary import Fate
from agent.tracked import Moment, Tracked, newly_assigned, with_sight
from foundation.clock import SystemClock
from manifests.allocations import Ending, HostPort, Phase
from manifests.containers import NodeResources, Resources
from manifests.session import Assignments
from tests.scripted_server import assigned, grouped

ROOM = Resources().model_copy(update={"cpu_m": 1500, "memory_bytes": 2**30, "pids": 500, "disk_bytes": 2**40})


def record(allocation: str = "web-0-a", *, phase: Phase = Phase.RUNNING) -> Tracked:
    tracked = with_sight(newly_assigned(assigned(allocation)), None, attempt=1)
    return replace(tracked, status=tracked.status.model_copy(update={"phase": phase}))


def alone(tracked: Tracked) -> Group:
    return Group(tracked.status, (tracked,))


async def test_the_outbox_keeps_the_newest_until_it_is_acknowledged() -> None:
    outbox = Outbox()
    outbox.put(record(phase=Phase.STARTING).status)
    outbox.put(record(phase=Phase.RUNNING).status)
    frame = await outbox.next_frame()
    assert [status.phase for status in frame.statuses] == [Phase.RUNNING]
    outbox.put(record(phase=Phase.STOPPED).status)
    assert outbox.has_terminal
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.next_frame()
    outbox.acknowledge(frame.sequence)
    assert [status.phase for status in (await outbox.next_frame()).statuses] == [Phase.STOPPED]


async def test_what_a_server_cannot_read_is_left_as_it_is() -> None:
    done: list[Action] = []
    node = Node(
        allocatable=Resources(),
        clock=SystemClock(),
        perform=done.append,
        on_change=lambda old, new: None,
        restored=[alone(record("web-0-a")), alone(record("web-1-a"))],
    )
    node.assign(Assignments(revision=1, is_full=True, untold=("web-0-a",)))
    assert [t.id for t in node.tracked.values() if not t.is_withdrawn] == ["web-0-a"]


async def test_what_was_forgotten_is_told_again_in_the_next_session() -> None:
    outbox = Outbox()
    outbox.put(record().status)
    outbox.forget("web-0-a")
    lost = await outbox.next_frame()
    outbox.put(record("web-1-a").status)  # a Hello will carry this one
    outbox.begin_session()
    frame = await outbox.next_frame()
    assert (lost.forgotten, frame.forgotten, frame.statuses) == (("web-0-a",), ("web-0-a",), ())


async def test_a_frame_holds_a_bounded_number_of_statuses() -> None:
    outbox = Outbox()
    for number in range(MOST_IN_FRAME + 1):
        outbox.put(record(f"web-{number}-a").status)
    first = await outbox.next_frame()
    outbox.acknowledge(first.sequence)
    assert (len(first.statuses), len((await outbox.next_frame()).statuses)) == (MOST_IN_FRAME, 1)


def test_the_state_survives_a_restart_and_its_times_only_within_one_boot(tmp_path: Path) -> None:
    tracked = replace(record(), failures=(1.0, 2.0), due_s=3.0, is_admitted=True)
    saved = (to_saved(alone(tracked)),)
    folder = LocalFolder(tmp_path)
    save_state(folder, SavedState(boot_id="b1", cluster="c", applied_revision=7, allocations=saved))
    same, other = load_state(folder, "b1"), load_state(folder, "b2")
    assert (same.cluster, same.applied_revision) == ("c", 7)
    again = to_group(same.allocations[0]).first
    assert (again.assigned, again.status, again.failures) == (tracked.assigned, tracked.status, tracked.failures)
    assert not again.is_seen
    assert to_group(other.allocations[0]).first.failures == ()
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("boot", "stop_after", "waits"), [("b2", None, True), ("b1", None, False), ("b2", "8s", False)]
)
def test_in_another_boot_nothing_starts_before_a_server_had_its_say(
    tmp_path: Path, boot: str, stop_after: str | None, waits: bool
) -> None:
    """What is under stopAfter waits as well, by its leash, which says more about it."""
    spec: dict[str, Any] = {"onDisconnect": {"stopAfter": stop_after}} if stop_after else {}
    app = {"name": "app", "image": "i"}
    groups = [alone(newly_assigned(assigned("web-0-a", **spec))), new_group(grouped(app, **spec))]
    save_state(LocalFolder(tmp_path), SavedState(boot_id="b1", allocations=tuple(map(to_saved, groups))))
    again = [to_group(saved) for saved in load_state(LocalFolder(tmp_path), boot).allocations]
    assert {member.awaits_word for group in again for member in group.members} == {waits}


OLD_STATE = """{"format":1,"bootId":"b1","cluster":"c","appliedRevision":7,"allocations":[{"assigned":{"allocation":
{"id":"web-0-a","workload":{"namespace":"default","kind":"Service","name":"web","uid":"u1"},"version":1,"index":0,
"node":"n1","desired":"run","reserved":{"cpu":"200m","memory":"16Mi","pids":128},"ports":[],"why":{"score":0.0,
"parts":[],"runnersUp":[],"rejections":[],"more":0},"stopReason":"","createdAt":"1970-01-01T00:00:00.000Z",
"reschedules":0},"workload":{"apiVersion":"wherry/v1","kind":"Service","metadata":{"name":"web","namespace":"default",
"labels":{}},"spec":{"image":"i","command":["sleep","1000"],"replicas":1}}},"status":{"id":"web-0-a","node":"n1",
"workload":{"namespace":"default","kind":"Service","name":"web","uid":"u1"},"version":1,"index":0,"phase":"running",
"health":"unknown","attempt":3,"containerId":"","address":"","message":""},"isWithdrawn":false,"isAdmitted":true,
"failures":[1.0,2.0],"dueS":3.0,"firstStartS":0.5,"doom":"","doomMessage":""}]}"""


def test_a_state_file_of_the_version_before_groups_is_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(OLD_STATE)
    state = load_state(LocalFolder(tmp_path), "b1")
    group = to_group(state.allocations[0])
    assert (state.cluster, group.is_alone, group.status.attempt, group.first.id) == ("c", True, 3, "web-0-a")
    assert (group.first.failures, group.first.first_start_s, group.first.is_admitted) == ((1.0, 2.0), 0.5, True)


def test_a_group_survives_a_restart_of_the_agent(tmp_path: Path) -> None:
    app = {"name": "app", "image": "i"}
    group = new_group(grouped(app, {**app, "name": "log", "sidecar": True}, kind="Job"))
    members = tuple(replace(m, has_begun=True, round=2, starts=(1.0,), strikes=2) for m in group.members)
    fate = Fate(Phase.FAILED, "no luck", "app", Ending(attempt=1, reason="exited", finished_s=0.0))
    known = with_members(group, members, fate)
    folder = LocalFolder(tmp_path)
    save_state(folder, SavedState(boot_id="b1", allocations=(to_saved(known),)))
    again = to_group(load_state(folder, "b1").allocations[0])
    assert (again.fate, again.status) == (known.fate, known.status)
    assert [(m.name, m.has_begun, m.round, m.starts, m.strikes) for m in again.members] == [
        (name, True, 2, (1.0,), 2) for name in ("_sandbox", "log", "app")
    ]


@pytest.mark.parametrize("content", ["", "{half", "[]", '{"bootId": 3}', "\x00\xff"])
def test_a_damaged_state_file_is_moved_aside(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert load_state(LocalFolder(tmp_path), "b1") == SavedState(boot_id="b1")
    assert [path.read_text() for path in tmp_path.glob("state.json.damaged-*")] == [content]


def test_what_the_server_knows_to_have_ended_here_is_not_run_again_whatever_was_forgotten() -> None:
    ended = record("sum-0-a").status.model_copy(update={"phase": Phase.SUCCEEDED})
    told = assigned("sum-0-a").model_copy(update={"ended": ended})
    tracked, actions = decide(with_sight(newly_assigned(told), None, attempt=1), Moment(0.0, 0.0))
    assert (tracked.status.phase, actions) == (Phase.SUCCEEDED, ())


def test_the_agents_id_stays(tmp_path: Path) -> None:
    assert load_agent_id(LocalFolder(tmp_path)) == load_agent_id(LocalFolder(tmp_path)) != ""


def test_a_container_is_told_who_it_is_and_is_never_given_more_cpu_than_the_node_has() -> None:
    around = Surroundings("c1c1c1c1c1", "n1", "10.0.0.1", "/wherry", ROOM)
    ports = (HostPort(name="http-in", container=80, host=8080),)
    wanted = assigned("web-0-a", ports=ports, limits={"cpu": "4"}, env={"MODE": "x", "WHERRY_NODE": "forged"})
    spec = container_spec(newly_assigned(wanted), around, Ownership(b"k" * 32))
    assert spec.name == "wherry-c1c1c1c1-n1-web-0-a-1" == container_name("c1c1c1c1c1", "n1", "web-0-a", 1)
    assert (spec.hostname, spec.cgroup_parent, spec.limits.cpu_m) == ("web-0-a", "/wherry", 1500)
    assert (spec.env["MODE"], spec.env["WHERRY_NODE"], spec.env["WHERRY_PORT_HTTP_IN"]) == ("x", "n1", "8080")
    assert [(p.host_address, p.host_port, p.container_port) for p in spec.ports] == [("10.0.0.1", 8080, 80)]


def test_flags_say_exactly_what_is_allocatable_and_else_the_system_keeps_some(tmp_path: Path) -> None:
    machine = NodeResources.of(cpu_m=2000, memory_bytes=2**30, pids=1000, disk_bytes=2**40)
    plain = AgentOptions(("http://127.0.0.1:1",), "n1", tmp_path)
    left = allocatable_of(plain, machine)
    assert (left.cpu_m, left.memory_bytes, left.pids) == (1900, 2**30 - 256 * 2**20, 900)
    given = replace(plain, cpu_m=250, memory_bytes=64 * 2**20, pids=50, disk_bytes=2**30)
    assert allocatable_of(given, machine) == capacity_of(given, machine)
    assert allocatable_of(given, machine).cpu_m == 250
    twice = replace(plain, cpu_overcommit=2.0, devices={"gpu": ("/dev/a", "/dev/b")})
    assert offered_of(twice, machine).cpu_m == 2 * allocatable_of(twice, machine).cpu_m == 3800
    assert offered_of(twice, machine).devices == capacity_of(twice, machine).devices == {"gpu": 2}
    assert own_address(plain) == "127.0.0.1"
    assert own_address(replace(plain, publish_address="10.1.1.1")) == "10.1.1.1"


def test_the_parent_cgroup_is_capped_in_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    assert cap_parent("/wherry/n1", ROOM, root=tmp_path)
    parent = tmp_path / "wherry" / "n1"
    caps = {name: (parent / name).read_text() for name in ("cpu.max", "memory.max", "pids.max")}
    assert caps == {"cpu.max": "150000 100000", "memory.max": "1073741824", "pids.max": "500"}
    assert (tmp_path / "wherry" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


def test_a_parent_that_is_no_path_or_cannot_be_made_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file")
    assert not cap_parent("/wherry", ROOM, root=tmp_path)
    assert not cap_parent("/../etc", ROOM, root=tmp_path)
    remove_parent("/wherry", root=tmp_path)


@pytest.mark.skipif(is_v2() or os.geteuid() != 0, reason="needs root and cgroup version 1")
def test_the_parent_cgroup_is_capped_and_removed_in_version_1() -> None:
    parent = f"/wherry-test-{secrets.token_hex(4)}"
    try:
        assert cap_parent(parent, ROOM)
        memory, freezer = (Path(f"/sys/fs/cgroup/{controller}{parent}") for controller in ("memory", "freezer"))
        assert int((memory / "memory.limit_in_bytes").read_text()) == 2**30
        assert Path(f"/sys/fs/cgroup/cpu{parent}/cpu.cfs_quota_us").read_text().strip() == "150000"
        (memory / "container").mkdir()
        remove_parent(parent)
        assert memory.exists()  # something lives in it
        (memory / "container").rmdir()
        freezer.mkdir()  # as a container manager does
    finally:
        remove_parent(parent)
    assert not memory.exists()
    assert not freezer.exists()


def test_each_container_of_a_group_gets_devices_of_its_own() -> None:
    members = [{"name": n, "image": "x", "resources": {"devices": {"gpu": c}}} for n, c in (("a", 1), ("b", 2))]
    group = grouped(*members)
    held = group.allocation.model_copy(update={"devices": {"gpu": ("/dev/g0", "/dev/g1", "/dev/g2")}})
    around = Surroundings("c1c1c1c1c1", "n1", "", "/wherry", ROOM)
    given = new_group(group.model_copy(update={"allocation": held})).members
    specs = {t.name: container_spec(t, around, Ownership(b"k" * 32)) for t in given}
    assert [specs[name].devices for name in ("a", "b")] == [("/dev/g0",), ("/dev/g1", "/dev/g2")]
