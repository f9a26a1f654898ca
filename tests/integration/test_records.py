"""What the cluster remembers: events over restarts and changes of the leader, ended allocations, and nothing more."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from control_plane.controllers.event_writer import BURST
from control_plane.controllers.garbage import KEPT_EVENTS_OF_GONE
from control_plane.controllers.history import KEPT_FAILURES, KEPT_OTHERS
from control_plane.records import EventRecord
from control_plane.store.protocol import Delete, Put, Revision, Store, Txn
from manifests.allocations import AllocationStatus, Ending, Health, Phase
from manifests.errors import StoreFullError
from manifests.session import Assigned
from tests.etcd import etcd_cluster
from tests.lab.waiting import hold_for, wait_still, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

pytestmark = pytest.mark.each_store
WEB = "/v1/workloads/default/service/web"
SOON_S = 15


class CrashingAgent(ScriptedAgent):
    """An agent whose containers end, attempt after attempt."""

    attempt: int = 0

    async def crash(self) -> None:
        self.attempt += 1
        await self.say()

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        status = super()._status(assigned, before)
        if not self.attempt or status.is_terminal:
            return status
        ending = Ending(
            attempt=self.attempt, exit_code=3, reason="exited", message="exit code 3", finished_s=float(self.attempt)
        )
        update = {"phase": Phase.BACKOFF, "health": Health.UNKNOWN, "attempt": self.attempt, "last_ending": ending}
        return status.model_copy(update=update)


async def events(server: Served, query: str = "") -> list[dict[str, Any]]:
    return list((await server.get(f"/v1/events{query}"))["items"])


async def event_of(server: Served, subject: str, reason: str) -> dict[str, Any]:
    """Return the event once it is there."""

    async def find() -> dict[str, Any] | None:
        return next((e for e in await events(server) if (e["subject"], e["reason"]) == (subject, reason)), None)

    found = await wait_until(find, SOON_S, f"{subject} has the event {reason}")
    assert found is not None
    return found


async def revision(server: Served) -> int:
    return int((await server.get("/v1/cluster"))["revision"])


async def settled(server: Served) -> int:
    return await wait_still(lambda: revision(server), 2.5, 40, "all is stored")


async def test_a_users_changes_are_told_with_who_made_them(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        created = await event_of(server, "service/web", "created")
        assert created["by"] == "admin token of s1, from 127.0.0.1"
        await server.call("POST", WEB + "/scale", {"replicas": 2})
        changed = await event_of(server, "service/web", "changed")
        assert (changed["message"], changed["by"]) == ("scaled from 1 to 2", created["by"])
        await server.call("POST", "/v1/nodes/n1/cordon")
        assert (await event_of(server, "node/n1", "cordoned"))["by"] == created["by"]
        await server.call("DELETE", WEB)
        assert (await event_of(server, "service/web", "deleted"))["by"] == created["by"]
        assert (await store.list_prefix(keys.DELETIONS)).entries == ()


async def test_events_outlive_a_restart_and_are_not_told_again(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=3))
        await server.until_state(WEB, "healthy")
        await settled(server)
        before = {e["id"]: e for e in await events(server, "?for=service/web")}
    assert {e["reason"] for e in before.values()} >= {"created", "placed"}
    async with served(tmp_path / "s1", on=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        await settled(server)
        after = {e["id"]: e for e in await events(server, "?for=service/web")}
    assert after == before


async def test_a_new_leader_repeats_no_event_and_goes_on_counting(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store), served(tmp_path / "s2", on=store, name="s2") as s2:
        assert (await s2.get("/v1/cluster"))["leader"] == "s1"
        agent = CrashingAgent(s2, facts("n1"))
        async with connected(s2, agent):
            await s2.apply(manifest(replicas=3))
            await s2.until_state(WEB, "healthy")
            await agent.crash()
            await settled(s2)
            before = {e["id"]: (e["count"], e["revision"]) for e in await events(s2, "?for=service/web")}
            await store.commit(
                Txn((), (Delete(keys.LEADER),))
            )  # the first goes on believing that it leads, for a while

            async def leader() -> str:
                return str((await s2.get("/v1/cluster"))["leader"])

            await wait_until(leader, SOON_S, "s2 leads", lambda name: name == "s2")
            await settled(s2)
            assert {e["id"]: (e["count"], e["revision"]) for e in await events(s2, "?for=service/web")} == before
            await agent.crash()

            async def exited() -> int:
                return int((await event_of(s2, "service/web", "exited"))["count"])

            await wait_until(exited, SOON_S, "the three ends more are counted", lambda count: count == 6)


async def test_both_servers_tell_the_same(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as s1, served(tmp_path / "s2", on=store, name="s2") as s2:
        await s1.apply(manifest(replicas=0))
        await event_of(s2, "service/web", "created")
        await settled(s1)
        assert await events(s1) == await events(s2)


async def test_a_crash_loop_is_one_event_that_is_seldom_stored(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        agent = CrashingAgent(server, facts("n1"))
        async with connected(server, agent):
            await server.apply(manifest(replicas=2))
            await server.until_state(WEB, "healthy")
            begin = Revision(await settled(server))
            for _ in range(40):
                await agent.crash()
                await asyncio.sleep(0.15)
            event = await event_of(server, "service/web", "exited")
            assert event["allocation"].startswith("web-")
            stored = await writes_of(store, begin, keys.EVENTS + event["id"])
            assert 1 <= stored <= BURST + 2
            assert event["count"] >= 10


async def writes_of(store: Store, after: Revision, key: str) -> int:
    """Return how often the key was written since."""
    last, count = (await store.list_prefix(key)).revision, 0
    async for changes in store.watch(key, after=after):
        count += len(changes.changes)
        if changes.revision >= last or not changes.changes or changes.changes[-1].revision >= last:
            break
        if all(e.mod_revision <= changes.revision for e in (await store.list_prefix(key)).entries):
            break
    return count


async def test_many_replicas_make_few_events(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        agents = [ScriptedAgent(server, facts(f"n{n}", memory="16Gi")) for n in range(3)]
        async with connected(server, *agents):
            begin = Revision(await settled(server))
            await server.apply(manifest(replicas=1500, resources={"cpu": "1m", "memory": "6Mi", "pids": 1}))
            await server.until_state(WEB, "healthy", deadline_s=60)
            end = await settled(server)
            placed = await event_of(server, "service/web", "placed")
            assert placed["count"] == 1500, placed
            assert await writes_of(store, begin, keys.EVENTS + placed["id"]) <= BURST + 2
            assert end - begin < 1500


async def test_how_an_allocation_ended_is_remembered_when_it_is_gone(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        agent = CrashingAgent(server, facts("n1"))
        async with connected(server, agent):
            await server.apply(manifest(replicas=1))
            await server.until_state(WEB, "healthy")
            [gone] = await server.allocations()
            await agent.crash()
            agent.attempt = 0
            await server.call("POST", WEB + "/scale", {"replicas": 0})

            async def ended() -> list[dict[str, Any]]:
                return list((await server.get("/v1/allocations?ended=only&name=web"))["items"])

            [kept] = await wait_until(ended, SOON_S, "its end is remembered")
            assert (kept["id"], kept["node"], kept["phase"], kept["isGone"]) == (gone["id"], "n1", "stopped", True)
            assert kept["stopReason"] == "the service needs only 0"
            assert await server.get(f"/v1/allocations/{gone['id']}") == kept
            assert await server.allocations() == []
            life = await events(server, f"?for=allocation/{gone['id']}")
            assert {"placed", "stopped"} <= {e["reason"] for e in life}
            status, body = await server.call("GET", "/v1/allocations?ended=maybe")
            assert (status, "maybe" in body["title"]) == (400, True)


async def test_the_ends_of_a_workload_are_bounded_and_go_with_it(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        for number in range(4):
            await server.apply(manifest(replicas=4, env={"N": str(number)}, update={"maxSurge": 4}))
            await server.until_state(WEB, "healthy")

        async def left() -> int:
            return len((await store.list_prefix(keys.ENDED)).entries)

        await wait_until(left, SOON_S, "only the newest are left", lambda count: count == KEPT_OTHERS)
        assert KEPT_FAILURES > 0
        await server.call("DELETE", WEB)
        await wait_until(left, SOON_S, "none is left", lambda count: count == 0)


async def test_left_overs_of_allocations_that_are_gone_are_removed(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        agent = ScriptedAgent(server, facts("n1"))
        async with connected(server, agent):
            await server.apply(manifest(replicas=1))
            await server.until_state(WEB, "healthy")
            [status] = agent.statuses.values()
            leftover = status.model_copy(update={"id": "web-9-00000000"})
            key = keys.STATUSES + keys.placed_id("n1", leftover.id)
            await store.commit(Txn((), (Put(key, leftover.to_bytes()),)))

            async def statuses() -> list[str]:
                return [e.key for e in (await store.list_prefix(keys.STATUSES)).entries]

            await wait_until(statuses, SOON_S, "only what is desired is left", lambda found: key not in found)
            assert len(await statuses()) == 1


async def test_an_event_that_cannot_be_read_stops_no_others(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        await server.apply(manifest(replicas=0))
        created = await event_of(server, "service/web", "created")
        await store.commit(Txn((), (Put(keys.EVENTS + created["id"], b"{garbage"),)))
        await store.commit(Txn((), (Put(keys.EVENTS + "default/service/api/deleted-1271cf25", b"{garbage"),)))
        await server.apply(manifest(name="api", replicas=0))
        await event_of(server, "service/api", "created")
        await server.call("DELETE", "/v1/workloads/default/service/api")
        await server.call("DELETE", WEB)
        await event_of(server, "service/web", "deleted")
        assert (await store.list_prefix(keys.DELETIONS)).entries == ()


async def test_events_are_filtered_by_subject_namespace_time_and_number(store: Store, tmp_path: Path) -> None:
    other = manifest(name="api", replicas=0)
    other["metadata"]["namespace"] = "prod"
    async with served(tmp_path / "s1", on=store) as server:
        await server.apply(manifest(replicas=0), other)
        await event_of(server, "service/prod/api", "created")
        await event_of(server, "server/s1", "leads")
        assert {e["subject"] for e in await events(server, "?for=service/prod/api")} == {"service/prod/api"}
        assert {e["subject"] for e in await events(server, "?namespace=default")} == {"service/web"}
        assert len(await events(server, "?limit=1")) == 1
        assert await events(server, "?limit=0") == []
        assert len(await events(server, "?since=600")) == len(await events(server))
        await asyncio.sleep(1.1)
        assert await events(server, "?since=0") == []
        assert (await server.call("GET", "/v1/events?since=x"))[0] == 400


async def test_a_watch_tells_events_and_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        begin = await settled(server)
        await server.apply(manifest(replicas=0))
        created = await event_of(server, "service/web", "created")
        url = f"{server.url}/v1/watch?after={begin}&types=event"
        async with server.http.get(url, headers=server.admin) as answer, asyncio.timeout(SOON_S):
            change = json.loads(await answer.content.readline())
        assert (change["type"], change["action"], change["object"]) == ("event", "put", created)


@pytest.mark.etcd
async def test_a_full_etcd_refuses_changes_with_the_way_out_and_answers_reads(tmp_path: Path) -> None:
    async with etcd_cluster(options=("--quota-backend-bytes", "6000000")) as cluster:
        url = f"etcd:{','.join(cluster.endpoints)}"
        async with (
            served(tmp_path / "s1", store=url) as server,
            connected(server, ScriptedAgent(server, facts("n1"))),
        ):
            await server.apply(manifest(replicas=1))
            await server.until_state(WEB, "healthy")
            with pytest.raises(StoreFullError):
                await fill(server.store)
            status, body = await server.call("POST", WEB + "/scale", {"replicas": 2})
            assert status == 507
            assert "NOSPACE" in body["detail"]
            assert "etcdctl alarm disarm" in body["fix"]
            assert (await server.get(WEB))["counts"]["ready"] == 1


async def fill(store: Store) -> None:
    """Write until the store refuses: etcd looks at its size only now and then."""
    async with asyncio.timeout(SOON_S):
        while True:
            await store.commit(Txn((), (Put("/other/large", bytes(200_000)),)))


async def test_many_idle_agents_make_no_revision(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server:
        count = 90  # their HTTP client has 100 connections
        agents = [ScriptedAgent(server, facts(f"n{number:02}")) for number in range(count)]
        async with connected(server, *agents):
            await server.apply(manifest(replicas=count))
            await server.until_state(WEB, "healthy", deadline_s=60)
            before = await settled(server)
            await hold_for(lambda: revision(server), 12.0, "the revision stands still", lambda now: now == before)


async def test_while_the_cluster_is_frozen_nothing_is_removed(store: Store, tmp_path: Path) -> None:
    async with served(tmp_path / "s1", on=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
        assert (await server.call("POST", "/v1/freeze", {"reason": "new switches"}))[0] == 200
        await event_of(server, "cluster/freeze", "frozen")
        event = EventRecord(subject="service/old", reason="r", message="", revision=1, first_s=0.0, last_s=0.0)
        names = [f"{keys.EVENTS}default/service/old/e-{number}" for number in range(KEPT_EVENTS_OF_GONE + 3)]
        await store.commit(Txn((), tuple(Put(name, event.to_bytes()) for name in names)))

        async def left() -> int:
            return len((await store.list_prefix(keys.EVENTS + "default/service/old/")).entries)

        await hold_for(left, 3.0, "all are there", lambda count: count == len(names))
        await server.call("POST", "/v1/unfreeze")
        await wait_until(left, SOON_S, "the oldest are gone", lambda count: count == KEPT_EVENTS_OF_GONE)


async def test_a_config_tells_who_changed_and_who_deleted_it(store: Store, tmp_path: Path) -> None:
    config: dict[str, Any] = {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": "site"}}
    async with served(tmp_path / "s1", on=store) as server:
        for data in ("a", "b"):
            await server.apply({**config, "spec": {"data": data}})
        changed = await event_of(server, "config/site", "changed")
        assert (changed["message"], changed["by"]) == ("changed to version 2", "admin token of s1, from 127.0.0.1")
        assert (await server.call("DELETE", "/v1/configs/default/site"))[0] in (200, 202, 204)
        assert (await event_of(server, "config/site", "deleted"))["by"] == changed["by"]
