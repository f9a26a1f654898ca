"""A real server on the embedded store, and CronJobs: its clock of the day is set by the tests, timers are real."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from manifests.allocations import Phase
from tests.clocks import SetClock
from tests.lab.waiting import hold_for, wait_still, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

BACKUP = "/v1/workloads/default/cronjob/backup"
AT_2215 = "/v1/workloads/default/job/backup-20261124-2215"


@pytest.fixture
async def clock() -> SetClock:
    return SetClock("2026-11-24 22:14:58.5")


@pytest.fixture
async def server(tmp_path: Path, clock: SetClock) -> AsyncIterator[Served]:
    async with served(tmp_path / "server", clock=clock) as running:
        yield running


def backup(**spec: Any) -> dict[str, Any]:
    return manifest("CronJob", "backup", schedule="15 * * * *", **spec)


async def jobs(server: Served) -> list[str]:
    return [item["name"] for item in (await server.get("/v1/workloads?kind=job"))["items"]]


async def look_again(server: Served) -> None:
    """Have the leader look at everything at once, instead of within half a minute."""
    for action in ("cordon", "uncordon"):
        assert (await server.call("POST", f"/v1/nodes/n1/{action}"))[0] == 200


async def test_a_slot_s_job_runs_at_its_time_and_is_an_ordinary_job_with_an_owner(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
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
        await server.apply(backup())
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


async def test_a_server_that_takes_over_starts_only_the_newest_missed_slot(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    async with served(folder, clock=SetClock("2026-11-24 12:14:58")) as first:
        await first.apply(backup(startWindow="1h"))
        await wait_until(lambda: jobs(first), 10, "the first slot", lambda names: names == ["backup-20261124-1215"])
        await first.call("DELETE", "/v1/workloads/default/job/backup-20261124-1215")
    async with served(folder, clock=SetClock("2026-11-24 22:40:00")) as second:
        await wait_until(lambda: jobs(second), 10, "one slot", lambda names: names == ["backup-20261124-2215"])
    async with served(folder, clock=SetClock("2026-11-24 22:41:00")) as third:

        async def as_it_was() -> bool:
            return await jobs(third) == ["backup-20261124-2215"]

        await hold_for(as_it_was, 1, "no more")


async def test_a_cron_job_takes_its_jobs_along_when_it_is_deleted(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(backup())
        await server.until_state(BACKUP, "running")
        assert (await server.call("DELETE", BACKUP))[0] == 202

        async def left() -> list[str]:
            page = await server.store.list_prefix(keys.ROOT)
            return [e.key for e in page.entries if "backup" in e.key and not e.key.startswith(keys.EVENTS)]

        await wait_until(left, 10, "nothing of it is left", lambda found: not found)


async def test_a_change_is_of_later_jobs_only(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.apply(backup())
        await server.until_state(AT_2215, "complete")
        await server.apply(backup(env={"A": "1"}))
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        later = await server.until_state("/v1/workloads/default/job/backup-20261124-2315", "complete")
        assert later["manifest"]["spec"]["env"] == {"A": "1"}
        assert (await server.get(AT_2215))["manifest"]["spec"]["env"] == {}


async def test_history_is_kept_by_count(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.apply(backup(keepSucceeded=1))
        await server.until_state(AT_2215, "complete")
        clock.set("2026-11-24 23:15:01")
        await look_again(server)
        await wait_until(lambda: jobs(server), 10, "the newest", lambda names: names == ["backup-20261124-2315"])


async def test_replace_ends_what_still_runs(server: Served, clock: SetClock) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(backup(overlap="replace"))
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

        async def revision() -> int:
            return (await server.store.list_prefix(keys.CRON_STATES)).revision

        before = await wait_still(revision, 2.5, 15, "the last events are stored")

        async def unchanged() -> bool:
            return await revision() == before

        await hold_for(unchanged, 2, "nothing is written")


async def test_a_wrong_schedule_is_refused_with_what_is_wrong(server: Served) -> None:
    document = manifest("CronJob", "backup", schedule="99 * * * *", timeZone="Europe/Berlyn")
    status, body = await server.call("POST", "/v1/apply", {"documents": [document]})
    assert status == 422
    assert {p["path"] for p in body["problems"]} == {"spec.schedule", "spec.timeZone"}
