"""Two servers' writers of configs on one store: what one can't have seen yet, it waits for, and misses nobody."""

import asyncio
import random
from typing import Any

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


async def test_a_server_that_is_behind_waits_until_it_knows_who_uses_a_config(store: Store) -> None:
    ahead, behind = Server(store), Server(store)
    await ahead.state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(ahead.state.follow(), name="follow-ahead")
        await ahead.workloads.apply([site("one")])
        await behind.state.load()
        await ahead.workloads.apply([workload(**USES)])

        changing = tasks.create_task(behind.workloads.apply([site("two")]), name="change")
        assert not (await asyncio.wait({changing}, timeout=0.3))[0], "it decides on what it can't know"
        catching_up = tasks.create_task(behind.state.follow(), name="follow-behind")
        _, results = await changing

        assert [(r.name, r.version) for r in results] == [("site", 2), ("web", 2)]
        assert (await newest(store)).configs == {"site": 2}
        for task in (following, catching_up):
            task.cancel()


async def test_a_server_that_is_behind_deletes_no_config_that_is_used(store: Store) -> None:
    ahead, behind = Server(store), Server(store)
    await ahead.state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(ahead.state.follow(), name="follow-ahead")
        await ahead.workloads.apply([site("one")])
        await behind.state.load()
        await ahead.workloads.apply([workload(**USES)])

        deleting = tasks.create_task(_refusal(behind, "default/site"), name="delete")
        assert not (await asyncio.wait({deleting}, timeout=0.3))[0], "it decides on what it can't know"
        catching_up = tasks.create_task(behind.state.follow(), name="follow-behind")

        assert (await deleting).why == "it is used by service/web"
        for task in (following, catching_up):
            task.cancel()


async def _refusal(server: Server, config: str) -> ConflictError:
    with pytest.raises(ConflictError) as refused:
        await server.configs.delete(config)
    return refused.value


async def test_an_undo_whose_content_is_gone_is_refused_and_changes_nothing(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(server.state.follow(), name="follow")
        await server.workloads.apply([site("one"), workload(**USES)])
        await server.workloads.apply([site("two")])
        await store.commit(Txn((), (Delete(keys.CONFIG_VERSIONS + "default/site/00000001"),)))
        with pytest.raises(NotFoundError) as refused:
            await server.rollouts.undo(WEB, 1)
        assert refused.value.what == "version 1 of config site isn't kept, which it would use"
        assert (await newest(store)).version == 2
        following.cancel()


async def test_a_job_keeps_the_content_that_it_began_with_and_a_cron_job_gets_the_new(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(server.state.follow(), name="follow")
        nightly = workload("CronJob", "nightly", schedule="@daily", **USES)
        await server.workloads.apply([site("one"), workload("Job", "sum", **USES), nightly])
        _, results = await server.workloads.apply([site("two")])
        assert [(r.name, r.version) for r in results] == [("site", 2), ("nightly", 2)]
        following.cancel()


async def test_a_config_of_another_namespace_is_another_config(store: Store) -> None:
    server = Server(store)
    await server.state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(server.state.follow(), name="follow")
        await server.workloads.apply([site("one")])
        with pytest.raises(InvalidError, match="1 problem"):
            await server.workloads.apply([workload(namespace="shop", **USES)])
        following.cancel()
