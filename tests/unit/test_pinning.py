"""What the leader records of digests, and how long an agent waits for it."""

import asyncio
from dataclasses import replace

import pytest

from agent.group import new_group, with_assigned
from agent.pins import PIN_WAIT_S, Pins
from agent.tracked import Tracked, newly_assigned, with_digest
from control_plane import keys
from control_plane.controllers.pinning import pinned_of
from control_plane.state import ClusterState
from control_plane.store.protocol import Change, Entry, Revision
from foundation.clock import SystemClock
from manifests.allocations import Allocation, Phase
from manifests.base import Model
from manifests.containers import PullPolicy, Resources
from manifests.reasons import Choice
from manifests.session import Assigned
from manifests.status import WorkloadStatus
from manifests.workloads import WorkloadRecord
from tests.builders import record, status, version_record

ONE, OTHER = f"sha256:{64 * '1'}", f"sha256:{64 * '2'}"
WEB = "default/service/web"


def allocation(of: WorkloadRecord, index: int, version: int = 1) -> Allocation:
    amounts = Resources.of(cpu_m=100, memory_bytes=2**20, pids=10)
    return Allocation(
        id=f"web-{index}-{version}", workload=of.ref, version=version, index=index, node=f"n{index}", reserved=amounts,
        why=Choice(score=0.0, parts=()), created_s=float(index),
    )  # fmt: skip


def state_of(**records: Model) -> ClusterState:
    state = ClusterState(None, SystemClock())  # type: ignore[arg-type]  # it is only filled by hand
    entries = {key: Entry(key, value.to_bytes(), Revision(1), Revision(1)) for key, value in records.items()}
    state.take_in([Change(key, entry, Revision(1)) for key, entry in entries.items()], Revision(1))
    return state


def with_found(of: WorkloadRecord, *digests: str | None, version: int = 1) -> dict[str, Model]:
    """Return the records of allocations, by index, which have found these digests."""
    records: dict[str, Model] = {keys.VERSIONS + keys.version_id(WEB, version): version_record(of, version)}
    for index, digest in enumerate(digests):
        a = allocation(of, index, version)
        said = status(a, Phase.PULLING).model_copy(update={"images": {"web:1": digest} if digest else None})
        records |= {keys.ALLOCATIONS + f"{a.node}/{a.id}": a, keys.STATUSES + f"{a.node}/{a.id}": said}
    return records


def said_of(of: WorkloadRecord, pinned: dict[int, dict[str, str]]) -> WorkloadStatus:
    return WorkloadStatus(ref=of.ref, generation=1, pinned=pinned)


async def test_the_first_that_found_a_digest_decides_and_nobody_after_it() -> None:
    web = record(image="web:1")
    state = state_of(**with_found(web, None, OTHER, ONE))
    assert pinned_of(state, WEB, web, None) == {1: {"web:1": OTHER}}
    assert pinned_of(state, WEB, web, said_of(web, {1: {"web:1": ONE}})) == {1: {"web:1": ONE}}


async def test_what_is_no_digest_or_of_no_image_of_the_version_is_not_passed_on() -> None:
    web = record(image="web:1")
    assert pinned_of(state_of(**with_found(web, "sha256:../../etc")), WEB, web, None) == {}
    other = record(image="other:1")
    assert pinned_of(state_of(**with_found(other, ONE)), WEB, other, None) == {}


async def test_versions_that_are_gone_and_other_lives_of_the_workload_are_forgotten() -> None:
    web = record(image="web:1")
    state = state_of(**with_found(web))
    assert pinned_of(state, WEB, web, said_of(web, {1: {"web:1": ONE}, 7: {"web:1": ONE}})) == {1: {"web:1": ONE}}
    former = said_of(web, {1: {"web:1": ONE}})
    former = former.model_copy(update={"ref": former.ref.model_copy(update={"uid": "former"})})
    assert pinned_of(state, WEB, web, former) == {}


async def test_an_undo_takes_the_digests_of_what_it_copies() -> None:
    web = record(image="web:1")
    records = with_found(web)
    copy = version_record(web, 3).model_copy(update={"copies": 1})
    state = state_of(**records, **{keys.VERSIONS + keys.version_id(WEB, 3): copy})
    assert pinned_of(state, WEB, web, said_of(web, {1: {"web:1": ONE}}))[3] == {"web:1": ONE}


def tracked(image: str = "web:1", *, pinned: str = "", pull: PullPolicy = PullPolicy.IF_MISSING) -> Tracked:
    web = record(image=image, pull=pull)
    images = {image: pinned} if pinned else {}
    return newly_assigned(Assigned(allocation=allocation(web, 0), workload=web.workload, images=images))


def test_what_is_pinned_goes_before_what_was_found_here() -> None:
    found = with_digest(tracked(pinned=ONE), OTHER)
    assert found.image == f"web@{ONE}"
    assert with_digest(tracked(), OTHER).image == f"web@{OTHER}"
    assert tracked().image == "web:1"


def test_a_digest_in_the_manifest_and_the_policy_never_are_left_alone() -> None:
    by_digest = f"web@{ONE}"
    assert tracked(by_digest, pinned=OTHER).image == by_digest
    assert tracked(pinned=OTHER, pull=PullPolicy.NEVER).image == "web:1"


def test_a_server_that_has_forgotten_a_digest_changes_nothing() -> None:
    told = tracked(pinned=ONE).assigned
    group = with_assigned(new_group(told), told.model_copy(update={"images": {}}))
    assert group.first.image == f"web@{ONE}"


async def test_an_agent_goes_on_once_it_is_told_or_after_a_while() -> None:
    pins, before = Pins(), tracked()
    after = replace(before, assigned=before.assigned.model_copy(update={"images": {"web:1": ONE}}))
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(pins.wait(before))
        await asyncio.sleep(0)
        pins.follow(before, before)
        assert not waiting.done()
        pins.follow(before, after)
    await pins.wait(after)
    begun_s = loop.time()
    await pins.wait(before)
    assert loop.time() - begun_s == pytest.approx(PIN_WAIT_S, abs=0.5)
