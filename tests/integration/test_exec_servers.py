"""`wherry exec` with several servers, with nodes that are away, and with agents that are too old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from manifests.session import Offer
from tests.lab.waiting import wait_until
from tests.scripted import scripted_agent, served
from tests.streams_world import World, oci_streams_world, service

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with oci_streams_world(tmp_path_factory.mktemp("servers"), servers=2) as world:
        yield world


async def test_any_server_leads_into_any_container(world: World) -> None:
    (allocation,) = await world.run(service("box"))
    other = world.through(1)
    ended = await other.wherry(
        "exec", "-i", allocation, "--", "sh", "-c", "cat; echo err >&2; exit 3", given=b"x" * 99_999
    )
    assert (ended.code, ended.out, ended.err) == (3, b"x" * 99_999, "err\n")
    unknown = await other.wherry("exec", allocation, "-c", "none", "--", "true")
    assert unknown.code == 3
    assert "no container none" in unknown.err
