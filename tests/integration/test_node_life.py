"""How nodes fall silent, come back or are lost, on servers that share one store. The agents here have no containers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from manifests.nodes import NodeStatus
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"
LOST_AFTER_S = 3.0


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Served, Served]]:
    async with (
        served(tmp_path / "s1", lost_after_s=LOST_AFTER_S) as first,
        served(tmp_path / "s2", on=first.store, name="s2", lost_after_s=LOST_AFTER_S) as second,
    ):
        yield first, second


async def until_told(server: Served, subject: str, *reasons: str) -> None:
    """Wait until all of that was told of it, one word each."""

    async def told() -> set[str]:
        return {e["reason"] for e in (await server.get(f"/v1/events?for={subject}"))["items"]}

    await wait_until(told, 10, f"{reasons} to be told of {subject}", done=lambda words: words >= set(reasons))


async def states(server: Served) -> dict[str, str]:
    return {n["name"]: n["state"] for n in (await server.get("/v1/nodes"))["items"]}


async def wanted_on(server: Served) -> set[str]:
    return {a["node"] for a in await server.allocations() if a["desired"] == "run"}


async def record_of(server: Served, node: str) -> NodeStatus:
    entry = await server.store.get(keys.NODES + node)
    assert entry is not None
    return NodeStatus.read(entry.value)


async def test_a_silent_node_is_suspect_gets_nothing_new_and_keeps_what_it_has(servers: tuple[Served, Served]) -> None:
    here, other = servers
    agent = ScriptedAgent(here, facts("n1"))
    async with connected(here, agent):
        await here.apply(manifest(replicas=1))
        await here.until_state(WEB, "healthy")
        agent.is_silent = True
        node = await other.until_state("/v1/nodes/n1", "suspect")
        assert "silent for" in node["message"]
        await here.apply(manifest(name="late", replicas=1))
        late = await here.until_state("/v1/workloads/default/service/late", "blocked")
        assert "n1 has been silent for a while" in late["blocked"][0]["sentence"]
        assert (await here.get(WEB))["counts"]["ready"] == 1
        agent.is_silent = False
        await other.until_state("/v1/nodes/n1", "ready")
        await here.until_state("/v1/workloads/default/service/late", "healthy")
    await until_told(here, "node/n1", "registered", "suspect", "back")


async def test_a_broken_connection_is_suspected_sooner_and_lost_no_sooner(servers: tuple[Served, Served]) -> None:
    here, other = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        pass
    node = await other.until_state("/v1/nodes/n1", "suspect")
    assert "its connection broke" in node["message"]
    await other.until_state("/v1/nodes/n1", "lost")
    assert (await record_of(here, "n1")).silent_s >= LOST_AFTER_S


async def test_a_node_that_moves_to_another_server_is_written_once(servers: tuple[Served, Served]) -> None:
    here, other = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        before = (await record_of(here, "n1")).session
    async with connected(other, ScriptedAgent(other, facts("n1"))):
        registered = await here.store.get(keys.NODES + "n1")
        await asyncio.sleep(LOST_AFTER_S + 1)  # for as long as the first server could still judge it
        assert await here.store.get(keys.NODES + "n1") == registered
        assert (await record_of(here, "n1")).session == before + 1


async def test_a_node_whose_server_is_gone_is_suspect_and_then_lost(tmp_path: Path) -> None:
    async with served(tmp_path / "s1", lost_after_s=LOST_AFTER_S) as stays, asyncio.TaskGroup() as tasks:
        async with served(tmp_path / "s2", on=stays.store, name="s2", lost_after_s=LOST_AFTER_S) as goes:
            agent = ScriptedAgent(goes, facts("n1"))
            tasks.create_task(agent.run(), name="agent")
            await wait_until(agent.answered, 5, "n1 is welcome")
        node = await stays.until_state("/v1/nodes/n1", "suspect")
        assert "its server is gone" in node["message"]
        await stays.until_state("/v1/nodes/n1", "lost")


async def test_when_most_nodes_fall_silent_at_once_none_is_lost_until_somebody_confirms(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    silent = [ScriptedAgent(here, facts(f"n{i}")) for i in range(3)]
    async with connected(here, *silent), connected(other, ScriptedAgent(other, facts("n9"))):
        await here.apply(manifest(replicas=4, placement={"maxPerNode": 2}))
        await here.until_state(WEB, "healthy")
        before = await wanted_on(here)
        for agent in silent:
            agent.is_silent = True

        async def brake() -> dict[str, Any] | None:
            return (await other.get("/v1/cluster"))["brake"]  # type: ignore[no-any-return]

        on = await wait_until(brake, 15, "the brake is on")
        assert on is not None
        assert (on["nodes"], on["there"]) == (["n0", "n1", "n2"], 4)
        assert "wherry node confirm-lost" in on["sentence"]
        await asyncio.sleep(LOST_AFTER_S)
        assert await states(other) == {"n0": "suspect", "n1": "suspect", "n2": "suspect", "n9": "ready"}
        assert await wanted_on(here) == before
        assert "until" in (await other.get("/v1/nodes/n1"))["message"]

        status, _ = await other.call("POST", "/v1/nodes/n0/confirm-lost")
        assert status == 200
        await here.until_state("/v1/nodes/n0", "lost")
        assert (await states(here))["n1"] == "suspect"

        for agent in silent[1:]:
            agent.is_silent = False
        await here.until_state("/v1/nodes/n1", "ready")
        await wait_until(brake, 15, "the brake is off", done=lambda v: v is None)
        assert (await states(here))["n2"] == "ready"
    await until_told(here, "cluster/brake", "braked", "released")


async def test_only_a_silent_node_can_be_confirmed_as_lost(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        status, body = await here.call("POST", "/v1/nodes/n1/confirm-lost")
        assert status == 409
        assert "its agent is connected" in body["detail"]
    assert (await here.call("POST", "/v1/nodes/n7/confirm-lost"))[0] == 404


async def test_a_second_agent_of_one_name_is_refused_by_every_server_until_the_first_is_lost(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    first = ScriptedAgent(here, facts("n1", agent_id="first"))
    async with connected(here, first):
        twin = ScriptedAgent(other, facts("n1", agent_id="second"))
        async with connected(other, twin):
            assert twin.refused is not None
            assert "first" in twin.refused.why
            assert "second" in twin.refused.why
    twin = ScriptedAgent(other, facts("n1", agent_id="second"))
    async with connected(other, twin):
        assert twin.refused is not None, "the first may be on its way to another server"
    await other.until_state("/v1/nodes/n1", "lost")
    twin = ScriptedAgent(other, facts("n1", agent_id="second"))
    async with connected(other, twin):
        assert twin.refused is None


async def test_a_clone_is_refused_while_the_first_lives_and_a_rebooted_machine_is_not(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    first = ScriptedAgent(here, facts("n1", boot="one"))
    async with connected(here, first):
        await here.apply(manifest(replicas=1))
        await here.until_state(WEB, "healthy")
        clone = ScriptedAgent(other, facts("n1", boot="two"))
        async with connected(other, clone):
            assert clone.refused is not None
            assert "one" in clone.refused.why
            assert "two" in clone.refused.why
    await other.until_state("/v1/nodes/n1", "suspect")
    rebooted = ScriptedAgent(other, facts("n1", boot="two"), is_mute=True)
    async with connected(other, rebooted):
        assert rebooted.refused is None

        async def ready() -> int:
            return int((await here.get(WEB))["counts"]["ready"])

        await wait_until(ready, 5, "nothing counts as ready that ran before the reboot", done=lambda count: count == 0)
        told = (await here.get("/v1/allocations"))["items"][0]["message"]
        assert "rebooted" in told
        rebooted.is_mute = False
        await rebooted.say()
        await here.until_state(WEB, "healthy")
    await until_told(here, "node/n1", "rebooted")


# --- what operators want of nodes ---


async def test_labels_taints_and_metadata_change_while_the_node_runs(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1", zone="a"))):
        patch = {
            "labels": {"disk": "ssd", "zone": "b"},
            "metadata": {"owner": "Ann"},
            "addTaints": ["gpu=a:noSchedule"],
        }
        status, node = await here.call("PATCH", "/v1/nodes/n1", patch)
        assert status == 200
        assert node["labels"] == {"disk": "ssd", "zone": "b"}
        assert (node["ownLabels"], node["metadata"]) == ({"zone": "a"}, {"owner": "Ann"})
        assert node["taints"] == ["gpu=a:noSchedule"]
        again = {"labels": {"zone": None}, "metadata": {"owner": None}, "removeTaints": ["gpu"]}
        _, node = await here.call("PATCH", "/v1/nodes/n1", again)
        assert (node["labels"], node["metadata"], node["taints"]) == ({"disk": "ssd", "zone": "a"}, {}, [])


async def test_a_wrong_change_of_a_node_changes_nothing_and_names_every_field(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1", zone="a"))):
        wrong = {"labels": {"ok": "1", "bad key": "1", "disk": ["x"]}, "addTaints": ["gpu"], "label": {}}
        status, body = await here.call("PATCH", "/v1/nodes/n1", wrong)
        assert status == 422
        paths = {p["path"] for p in body["problems"]}
        assert {"labels.disk", "addTaints[0]", "label"} <= paths
        assert any("bad key" in p["message"] for p in body["problems"])
        status, body = await here.call(
            "PATCH", "/v1/nodes/n1", {"labels": {"new": "1", "zone": None, "nix": None}, "removeTaints": ["gpu"]}
        )
        assert status == 422
        assert {p["path"] for p in body["problems"]} == {"labels.zone", "labels.nix", "removeTaints[0]"}
        assert "its agent was started with it" in body["problems"][0]["message"]
        assert (await here.get("/v1/nodes/n1"))["labels"] == {"zone": "a"}
    assert (await here.call("PATCH", "/v1/nodes/n7", {"labels": {"a": "1"}}))[0] == 404


async def test_taints_keep_off_and_move_away_what_does_not_tolerate_them(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1")), ScriptedAgent(here, facts("n2"))):
        await here.call("PATCH", "/v1/nodes/n1", {"addTaints": ["gpu=a100:noSchedule"]})
        await here.apply(manifest(replicas=2), manifest("Daemon", "logs"))
        await here.until_state(WEB, "healthy")
        await here.until_state("/v1/workloads/default/daemon/logs", "healthy")
        assert await wanted_on(here) == {"n2"}
        tolerant = manifest(name="train", replicas=1, placement={"tolerations": ["gpu"], "maxPerNode": 1})
        tolerant["spec"]["placement"]["constraints"] = ["node.name == n1"]
        await here.apply(tolerant)
        await here.until_state("/v1/workloads/default/service/train", "healthy")
        await here.call("PATCH", "/v1/nodes/n2", {"addTaints": ["broken:noExecute"]})
        web = await here.until_state(WEB, "blocked")
        assert "n1 has the taint gpu=a100:noSchedule, which isn't tolerated" in web["blocked"][0]["sentence"]
        await here.call("PATCH", "/v1/nodes/n1", {"removeTaints": ["gpu"]})
        await here.until_state(WEB, "healthy")

        async def on_n2() -> int:
            return int((await here.get("/v1/nodes/n2"))["allocations"])

        await wait_until(on_n2, 15, "all have left n2", done=lambda count: count == 0)
        assert (await here.get("/v1/nodes/n2"))["state"] == "ready"


async def test_a_label_that_changes_moves_daemons_and_is_heeded_by_what_comes(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    only_ssd = {"constraints": ["node.labels.disk == ssd"]}
    async with connected(here, ScriptedAgent(here, facts("n1")), ScriptedAgent(here, facts("n2"))):
        await here.call("PATCH", "/v1/nodes/n1", {"labels": {"disk": "ssd"}})
        await here.apply(manifest("Daemon", "logs", placement=only_ssd), manifest(replicas=1, placement=only_ssd))
        await here.until_state(WEB, "healthy")
        await here.until_state("/v1/workloads/default/daemon/logs", "healthy")
        assert await wanted_on(here) == {"n1"}
        await here.call("PATCH", "/v1/nodes/n2", {"labels": {"disk": "ssd"}})
        await here.call("PATCH", "/v1/nodes/n1", {"labels": {"disk": None}})

        async def daemons() -> set[str]:
            items = (await here.get("/v1/allocations?kind=daemon"))["items"]
            return {a["node"] for a in items if a["desired"] == "run"}

        await wait_until(daemons, 10, "the daemon has moved", done=lambda nodes: nodes == {"n2"})
        assert (await here.get("/v1/allocations?kind=service"))["items"][0]["node"] == "n1", "what runs stays"


async def test_a_dry_run_of_a_drain_says_what_would_move_and_what_would_stay(servers: tuple[Served, Served]) -> None:
    here, other = servers
    async with connected(here, ScriptedAgent(here, facts("n1")), ScriptedAgent(here, facts("n2", memory="300Mi"))):
        await here.apply(
            manifest(name="big", replicas=1, resources={"memory": "600Mi"}),
            manifest(name="small", replicas=1, resources={"memory": "32Mi"}, placement={"constraints": []}),
            manifest("Daemon", "logs", resources={"memory": "32Mi"}),
        )
        for path in ("service/big", "service/small", "daemon/logs"):
            await here.until_state(f"/v1/workloads/default/{path}", "healthy")
        small = (await here.get("/v1/allocations?name=small"))["items"][0]["node"]
        status, plan = await other.call("POST", "/v1/nodes/n1/drain?dryRun=true")
        assert status == 200
        assert [s["name"] for s in plan["stays"]] == ["big", "logs"]
        assert plan["stays"][1]["why"] == "a daemon's: it stops last"
        reasons = {r["node"]: r["code"] for r in plan["stays"][0]["blocked"]["rejections"]}
        assert reasons == {"n1": "draining", "n2": "memory"}
        assert [(m["name"], m["to"]) for m in plan["moves"]] == ([("small", "n2")] if small == "n1" else [])
        assert plan["stops"] == []
        assert (await here.get("/v1/nodes/n1"))["state"] == "ready"


async def test_a_drain_whose_deadline_has_passed_stops_the_rest_and_says_why(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        await here.apply(manifest(replicas=2), manifest("Daemon", "logs"))
        await here.until_state(WEB, "healthy")
        await here.until_state("/v1/workloads/default/daemon/logs", "healthy")
        status, node = await here.call("POST", "/v1/nodes/n1/drain", {"deadline": "2s"})
        assert (status, node["drainDeadline"]) == (200, "2s")
        assert node["state"] == "draining"
        await here.until_state("/v1/nodes/n1", "drained", deadline_s=20)
        await until_told(here, "service/web", "stop")
        told = (await here.get("/v1/events?for=service/web"))["items"]
        assert any("its deadline of 2s has passed" in e["message"] for e in told if e["reason"] == "stop")
        status, body = await here.call("POST", "/v1/nodes/n1/drain", {"deadline": "soon"})
        assert (status, body["problems"][0]["path"]) == (422, "deadline")


async def test_on_a_drained_node_daemons_stop_after_all_others(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        await here.apply(manifest(replicas=1), manifest("Daemon", "logs"))
        await here.until_state(WEB, "healthy")
        await here.until_state("/v1/workloads/default/daemon/logs", "healthy")
        await here.call("POST", "/v1/nodes/n1/drain")
        await here.until_state(WEB, "blocked")
        assert (await here.get("/v1/allocations?kind=daemon"))["items"][0]["desired"] == "run"
        await here.call("POST", WEB + "/scale", {"replicas": 0})
        await here.until_state("/v1/nodes/n1", "drained")
