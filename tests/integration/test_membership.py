"""Servers that share one store: one leads at a time, and one that no longer leads can't write."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from control_plane import keys
from control_plane.membership import Membership
from control_plane.records import ServerRecord
from control_plane.state import ClusterState
from control_plane.store.protocol import CreatedAt, Delete, Exists, Put, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import ConflictError
from tests.lab.waiting import wait_until


class Candidate:
    """A server that campaigns, and remembers under which fences it led."""

    def __init__(self, store: Store, name: str) -> None:
        clock = SystemClock()
        self.state = ClusterState(store, clock)
        record = ServerRecord(id=name, name=name, url="http://127.0.0.1:1", version="0", started_s=0.0)
        self.membership = Membership(store, self.state, record, clock, random.Random(name))
        self.fences: list[CreatedAt] = []

    async def run(self) -> None:
        await self.state.load()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.state.follow(), name="follow")
            tasks.create_task(self.membership.run(self.lead), name="membership")

    async def lead(self, fence: CreatedAt) -> None:
        self.fences.append(fence)
        await asyncio.Event().wait()

    async def leads(self) -> bool:
        return self.membership.is_leading


async def appears(store: Store, name: str) -> bool:
    return await store.get(keys.SERVERS + name) is not None


@asynccontextmanager
async def running(*candidates: Candidate) -> AsyncIterator[list["asyncio.Task[None]"]]:
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(c.run(), name=c.membership._server.name) for c in candidates]
        yield started
        for task in started:
            task.cancel()


async def test_one_leads_and_another_takes_over_when_it_ends(store: Store) -> None:
    first, second = Candidate(store, "a"), Candidate(store, "b")
    async with running(first) as tasks:
        await wait_until(first.leads, 5, "a leads")
        async with running(second):
            assert not second.membership.is_leading
            tasks[0].cancel()
            await wait_until(second.leads, 5, "b leads")
            assert not first.membership.is_leading
            assert second.fences[0].revision > first.fences[0].revision


async def test_a_deposed_leader_cannot_write_whatever_it_believes(store: Store) -> None:
    first, second = Candidate(store, "a"), Candidate(store, "b")
    async with running(first, second):

        async def leader() -> Candidate | None:
            return next((c for c in (first, second) if c.membership.is_leading), None)

        deposed = await wait_until(leader, 5, "one leads")
        assert deposed is not None
        fence = deposed.fences[-1]
        write = Put(keys.ALLOCATIONS + "n1/x", b"{}")
        await store.commit(Txn((fence,), (write,)))
        await store.commit(Txn((Exists(keys.LEADER),), (Delete(keys.LEADER),)))

        async def led_again() -> bool:
            return any(c.fences and c.fences[-1].revision > fence.revision for c in (first, second))

        await wait_until(led_again, 5, "one leads under a new fence")
        with pytest.raises(ConflictError):
            await store.commit(Txn((fence,), (write,)))


async def test_a_server_whose_record_is_gone_appears_again(store: Store) -> None:
    """A missing lease is a hint, no verdict: the server takes a new one. Here its lease is revoked under its feet."""
    candidate = Candidate(store, "a")
    granted = []
    grant = store.lease

    async def remember(*, ttl_s: float):  # type: ignore[no-untyped-def]
        granted.append(await grant(ttl_s=ttl_s))
        return granted[-1]

    store.lease = remember  # type: ignore[method-assign]
    async with running(candidate):
        await wait_until(candidate.leads, 5, "a leads")
        await granted[0].revoke()

        async def is_back() -> bool:
            return (
                len(granted) > 1 and await store.get(keys.SERVERS + "a") is not None and candidate.membership.is_leading
            )

        await wait_until(is_back, 10, "a has a new lease, its record, and the lead")
        assert len(candidate.fences) == 2


async def test_a_record_that_goes_although_the_lease_is_held_is_put_back(store: Store) -> None:
    """A put of an earlier lease may come late, and take the record along when that lease ends."""
    candidate = Candidate(store, "a")
    async with running(candidate):
        await wait_until(candidate.leads, 5, "a leads")
        await store.commit(Txn((), (Delete(keys.SERVERS + "a"),)))
        await wait_until(lambda: appears(store, "a"), 5, "its record is back")
        assert candidate.membership.is_leading
        assert len(candidate.fences) == 1, "it never gave the lead up"
