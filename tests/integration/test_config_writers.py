"""Two servers' writers of configs on one store: what one can't have seen yet, it waits for, and misses nobody."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from control_plane import keys
from control_plane.desired.committer import Committer
from control_plane.desired.configs import ConfigWriter
from control_plane.desired.rollouts import RolloutWriter
from control_plane.desired.workloads import WorkloadWriter
from control_plane.state import ClusterState
from control_plane.store.protocol import Delete, Store, Txn
from foundation.clock import SystemClock
from manifests.configs import Config
from manifests.errors import ConflictError, InvalidError, NotFoundError
from manifests.workloads import VersionRecord
from tests.builders import workload
from tests.cache import following

T = TypeVar("T")
USES: dict[str, Any] = {"configs": [{"name": "site", "env": "SITE"}]}
WEB = "default/service/web"


class Server:
    """The writers of one server, and its cache, which keeps up with the store from when it is told to."""

    def __init__(self, store: Store) -> None:
        clock, rng = SystemClock(), random.Random(1)
        self.state = ClusterState(store, clock)
        committer = Committer(store, self.state, clock)
        self.configs = ConfigWriter(committer, clock, rng)
        self.workloads = WorkloadWriter(committer, self.configs, clock, rng)
        self.rollouts = RolloutWriter(committer, clock)


def site(data: str) -> Config:
    head = {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": "site"}}
    return Config.model_validate({**head, "spec": {"data": data}})


async def newest(store: Store) -> VersionRecord:
    page = await store.list_prefix(keys.VERSIONS + WEB)
    return VersionRecord.read(page.entries[-1].value)


async def asked_while_behind(store: Store, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
    """Return what a server answers that has missed who uses the config: nothing before it has caught up."""
    ahead, behind = Server(store), Server(store)
    await ahead.state.load()
    async with following(ahead.state), asyncio.TaskGroup() as tasks:
        await ahead.workloads.apply([site("one")])
        await behind.state.load()
        await ahead.workloads.apply([workload(**USES)])
        asking = tasks.create_task(ask(behind), name="ask")
        assert not (await asyncio.wait({asking}, timeout=0.3))[0], "it decides on what it can't know"
        async with following(behind.state):
            return await asking


async def test_a_server_that_is_behind_waits_until_it_knows_who_uses_a_config(store: Store) -> None:
    _, results = await asked_while_behind(store, lambda server: server.workloads.apply([site("two")]))
    assert [(r.name, r.version) for r in results] == [("site", 2), ("web", 2)]
    assert (await newest(store)).configs == {"site": 2}


async def test_a_server_that_is_behind_deletes_no_config_that_is_used(store: Store) -> None:
    refusal = await asked_while_behind(store, lambda server: _refusal(server, "default/site"))
    assert refusal.why == "it is used by service/web"


async def _refusal(server: Server, config: str) -> ConflictError:
    with pytest.raises(ConflictError) as refused:
        await server.configs.delete(config)
    return refused.value


async def test_an_undo_whose_content_is_gone_is_refused_and_changes_nothing(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with following(server.state):
        await server.workloads.apply([site("one"), workload(**USES)])
        await server.workloads.apply([site("two")])
        await store.commit(Txn((), (Delete(keys.CONFIG_VERSIONS + "default/site/00000001"),)))
        with pytest.raises(NotFoundError) as refused:
            await server.rollouts.undo(WEB, 1)
        assert refused.value.what == "version 1 of config site isn't kept, which it would use"
        assert (await newest(store)).version == 2


async def test_a_job_keeps_the_content_that_it_began_with_and_a_cron_job_gets_the_new(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with following(server.state):
        nightly = workload("CronJob", "nightly", schedule="@daily", **USES)
        await server.workloads.apply([site("one"), workload("Job", "sum", **USES), nightly])
        _, results = await server.workloads.apply([site("two")])
        assert [(r.name, r.version) for r in results] == [("site", 2), ("nightly", 2)]


async def test_a_config_of_another_namespace_is_another_config(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with following(server.state):
        await server.workloads.apply([site("one")])
        with pytest.raises(InvalidError, match="1 problem"):
            await server.workloads.apply([workload(namespace="shop", **USES)])
