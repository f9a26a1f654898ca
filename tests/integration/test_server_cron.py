"""A real server on each kind of store, and CronJobs: its clock of the day is set by the tests, timers are real."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from control_plane.store.protocol import Put, Store, Txn
from manifests.allocations import Phase
from tests.clocks import SetClock
from tests.lab.waiting import hold_for, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

pytestmark = pytest.mark.each_store
BACKUP = "/v1/workloads/default/cronjob/backup"
AT_2215 = "/v1/workloads/default/job/backup-20261124-2215"


@pytest.fixture
async def clock() -> SetClock:
    return SetClock("2026-11-24 22:14:30")


@pytest.fixture
async def server(tmp_path: Path, store: Store, clock: SetClock) -> AsyncIterator[Served]:
    async with served(tmp_path / "server", on=store, clock=clock) as running:
        yield running


def backup(**spec: Any) -> dict[str, Any]:
    return manifest("CronJob", "backup", schedule="15 * * * *", **spec)


async def start_at_2215(server: Served, clock: SetClock, **spec: Any) -> None:
    """Apply `backup` and let its first slot come. A node must be there."""
    await server.apply(backup(**spec))
    clock.set("2026-11-24 22:15:00.1")
    await look_again(server)


async def jobs(server: Served) -> list[str]:
    return [item["name"] for item in (await server.get("/v1/workloads?kind=job"))["items"]]


async def look_again(server: Served) -> None:
    """Have the leader look at everything at once, instead of within half a minute."""
    for action in ("cordon", "uncordon"):
        assert (await server.call("POST", f"/v1/nodes/n1/{action}"))[0] == 200


async def test_a_slot_s_job_runs_at_its_time_and_is_an_ordinary_job_with_an_owner(
    server: Served, clock: SetClock
) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        clock.set("2026-11-24 22:14:58.5")
        await server.apply(backup())
        shown = await server.get(BACKUP)
        assert shown["cron"]["next"] == [f"2026-11-24T{hour}:15:00.000Z" for hour in (22, 23)] + [
            "2026-11-25T00:15:00.000Z"
        ]
        job = await server.until_state(AT_2215, "complete")
        assert job["owner"] == "cronjob/backup"
        assert (job["version"], job["counts"]["succeeded"]) == (1, 1)
        shown = await server.until_state(BACKUP, "scheduled")
        assert (shown["cron"]["lastSlot"], shown["cron"]["lastJob"]) == (
            "2026-11-24T22:15:00.000Z",
            "backup-20261124-2215",
        )
        assert [(j["name"], j["state"]) for j in shown["cron"]["jobs"]] == [("backup-20261124-2215", "complete")]


async def test_no_slot_comes_twice_whatever_becomes_of_the_clock_and_of_its_job(
    server: Served, clock: SetClock
) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await start_at_2215(server, clock)
        await server.until_state(AT_2215, "complete")
        assert (await server.call("DELETE", AT_2215))[0] == 202
        for time in ("2026-11-24 21:15:01", "2026-11-24 22:15:01", "2026-11-24 22:40:00"):
            clock.set(time)
            await look_again(server)

            async def none() -> bool:
                return not await jobs(server)

            await hold_for(none, 0.5, f"no job at {time}")
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        await wait_until(lambda: jobs(server), 5, "the next slot", lambda names: names == ["backup-20261124-2315"])


async def test_a_server_that_takes_over_starts_only_the_newest_missed_slot(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "server"
    async with served(folder, on=store, clock=SetClock("2026-11-24 12:14:58")) as first:
        await first.apply(backup(startWindow="1h"))
        await wait_until(lambda: jobs(first), 10, "the first slot", lambda names: names == ["backup-20261124-1215"])
        await first.call("DELETE", "/v1/workloads/default/job/backup-20261124-1215")
    async with served(folder, on=store, clock=SetClock("2026-11-24 22:40:00")) as second:
        await wait_until(lambda: jobs(second), 10, "one slot", lambda names: names == ["backup-20261124-2215"])
    async with served(folder, on=store, clock=SetClock("2026-11-24 22:41:00")) as third:

        async def as_it_was() -> bool:
            return await jobs(third) == ["backup-20261124-2215"]

        await hold_for(as_it_was, 1, "no more")


async def test_a_cron_job_takes_its_jobs_along_when_it_is_deleted(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await start_at_2215(server, clock)
        await server.until_state(BACKUP, "running")
        assert (await server.call("DELETE", BACKUP))[0] == 202

        async def left() -> list[str]:
            page = await server.store.list_prefix(keys.ROOT)
            told = (keys.EVENTS, keys.DELETIONS)
            return [e.key for e in page.entries if "backup" in e.key and not e.key.startswith(told)]

        await wait_until(left, 10, "nothing of it is left", lambda found: not found)


async def test_a_change_is_of_later_jobs_only(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await start_at_2215(server, clock)
        await server.until_state(AT_2215, "complete")
        await server.apply(backup(env={"A": "1"}))
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        later = await server.until_state("/v1/workloads/default/job/backup-20261124-2315", "complete")
        assert later["manifest"]["spec"]["env"] == {"A": "1"}
        assert (await server.get(AT_2215))["manifest"]["spec"]["env"] == {}


async def test_history_is_kept_by_count(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await start_at_2215(server, clock, keepSucceeded=1)
        await server.until_state(AT_2215, "complete")
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        await wait_until(lambda: jobs(server), 10, "the newest", lambda names: names == ["backup-20261124-2315"])


async def test_replace_ends_what_still_runs(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await start_at_2215(server, clock, overlap="replace")
        await server.until_state(BACKUP, "running")
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        old = await server.until_state(AT_2215, "failed")
        assert old["messages"] == ["replaced by backup-20261124-2315"]
        await server.until_state("/v1/workloads/default/job/backup-20261124-2315", "progressing")


async def test_one_that_is_asked_for_by_hand_is_no_slot_and_is_not_started_beside_another(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(backup(suspend=True))
        status, made = await server.call("POST", BACKUP + "/run")
        assert status == 201
        assert made["name"].startswith("backup-run-")
        shown = await server.until_state(BACKUP, "suspended")
        assert (shown["cron"]["active"], shown["cron"]["lastSlot"]) == ([made["name"]], None)
        status, refused = await server.call("POST", BACKUP + "/run")
        assert status == 409
        assert made["name"] in refused["detail"]
        await server.apply(backup(suspend=True, overlap="allow"))
        assert (await server.call("POST", BACKUP + "/run"))[0] == 201


async def test_only_a_cron_job_can_be_run(server: Served) -> None:
    await server.apply(manifest("Job", "sum"))
    status, body = await server.call("POST", "/v1/workloads/default/job/sum/run")
    assert (status, "only a CronJob" in body["detail"]) == (422, True)
    assert (await server.call("POST", BACKUP + "/run"))[0] == 404


async def test_a_cron_job_at_rest_writes_nothing(server: Served, clock: SetClock) -> None:
    clock.set("2026-11-24 22:30:00")
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(backup())
        await server.until_state(BACKUP, "scheduled")
        await look_again(server)
        prefixes = (keys.CRON_STATES, keys.WORKLOADS, keys.WORKLOAD_STATUSES)

        async def revisions() -> list[int]:
            pages = [await server.store.list_prefix(prefix) for prefix in prefixes]
            return [entry.mod_revision for page in pages for entry in page.entries]

        before = await revisions()

        async def unchanged() -> bool:
            return await revisions() == before

        await hold_for(unchanged, 2, "nothing is written")


async def test_a_wrong_schedule_is_refused_with_what_is_wrong(server: Served) -> None:
    document = manifest("CronJob", "backup", schedule="99 * * * *", timeZone="Europe/Berlyn")
    status, body = await server.call("POST", "/v1/apply", {"documents": [document]})
    assert status == 422
    assert {p["path"] for p in body["problems"]} == {"spec.schedule", "spec.timeZone"}


async def test_leaders_that_go_just_when_a_slot_is_due_leave_one_job_a_slot(
    tmp_path: Path, store: Store, clock: SetClock
) -> None:
    leading = AsyncExitStack()
    server = await leading.enter_async_context(served(tmp_path / "s0", on=store, name="s0", clock=clock))
    try:
        await server.apply(manifest("CronJob", "often", schedule="* * * * *", overlap="allow", keepSucceeded=100))
        for number in range(1, 5):
            following = AsyncExitStack()
            server = await following.enter_async_context(
                served(tmp_path / f"s{number}", on=store, name=f"s{number}", clock=clock)
            )
            clock.set(f"2026-11-24 22:{20 + number}:59.95")
            await leading.aclose()  # the slot is due about now: this one makes its job, or the next one does
            leading = following

        async def slots() -> list[str]:
            return [name.rpartition("-")[2] for name in await jobs(server)]

        found = await wait_until(slots, 20, "the last slot", lambda names: "2225" in names)
        assert found == sorted(set(found))
        page = await store.list_prefix(keys.VERSIONS + "default/job/often-")
        assert all(entry.key.endswith("/00000001") for entry in page.entries), "a slot's job was made twice"
    finally:
        await leading.aclose()


async def test_a_job_of_a_cron_job_waits_for_what_it_is_to_start_after(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await start_at_2215(server, clock, startAfter=[{"job": "migrate"}])
        waiting = await server.until_state(AT_2215, "waiting")
        assert waiting["messages"] == ["waits for job migrate, which doesn't exist"]
        assert (await server.get(BACKUP))["state"] == "running"


async def test_records_that_cannot_be_read_start_no_slot_twice_and_hinder_nobody(
    server: Served, clock: SetClock
) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await start_at_2215(server, clock)
        await server.until_state(AT_2215, "complete")
        garbage = Put(keys.CRON_STATES + "default/cronjob/backup", b"{garbage")
        taken = Put(keys.WORKLOADS + "default/job/backup-20261124-2315", b"{garbage")
        await server.call("DELETE", AT_2215)
        await server.store.commit(Txn((), (garbage, taken)))
        await look_again(server)
        await server.apply(manifest("Job", "other"))
        await server.until_state("/v1/workloads/default/job/other", "complete")
        clock.set("2026-11-24 23:15:01")
        await look_again(server)

        async def handled() -> str | None:
            return str((await server.get(BACKUP))["cron"]["lastSlot"])

        await wait_until(handled, 5, "the taken slot has passed", lambda slot: slot == "2026-11-24T23:15:00.000Z")
        assert await jobs(server) == ["other"]


async def test_while_the_cluster_is_frozen_no_slot_is_started_and_then_the_newest(
    server: Served, clock: SetClock
) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.call("POST", "/v1/freeze", {})
        await server.apply(backup(startWindow="2h"))
        clock.set("2026-11-24 23:15:01")
        await look_again(server)

        async def said() -> str:
            return " ".join((await server.get(BACKUP))["messages"])

        await wait_until(said, 5, "it says so", lambda text: "its next job is due once it is unfrozen" in text)
        assert await jobs(server) == []
        await server.call("POST", "/v1/unfreeze")
        await wait_until(lambda: jobs(server), 5, "the newest", lambda names: names == ["backup-20261124-2315"])
