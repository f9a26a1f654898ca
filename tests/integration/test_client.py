"""The client library with a real server."""

import asyncio
from pathlib import Path

import pytest

from manifests.errors import ConflictError, InvalidError, NotFoundError, UnauthorizedError, UnavailableError, UsageError
from tests.scripted import free_port, served
from wherry.client import Client, error_from

WEB = {
    "apiVersion": "wherry/v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"image": "wherry/busybox:1", "command": ["sleep", "1000"], "replicas": 2},
}


async def test_a_workload_is_applied_read_scaled_and_deleted(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        token = server.admin["Authorization"].removeprefix("Bearer ")
        dead = f"http://127.0.0.1:{free_port()}"
        async with Client([dead, server.url], token) as client:
            assert (await client.apply([WEB]))["results"][0]["action"] == "created"
            assert (await client.apply([WEB]))["results"][0]["action"] == "unchanged"
            assert (await client.workload("default", "Service", "web"))["manifest"]["spec"]["replicas"] == 2
            await client.scale("default", "service", "web", 1)
            found = await client.list("workloads", namespace="default")
            assert [item["name"] for item in found["items"]] == ["web"]
            await client.rollout("default", "service", "web", "restart")
            await client.rollout("default", "service", "web", "undo", version=1)
            kept = (await client.versions("default", "service", "web"))["items"]
            assert [version["cause"] for version in kept] == ["undo to version 1", "restart", "created"]
            told = await client.rehearse([WEB], add=["2cpu/1Gi"])
            assert (told["results"][0]["action"], told["room"]["nodes"]) == ("changed", 1)
            await client.delete("default", "service", "web")
            with pytest.raises(NotFoundError):
                await client.workload("default", "service", "no-such")
            with pytest.raises(InvalidError) as failure:
                await client.apply([{**WEB, "spec": {"imaeg": "x"}}])
            assert "imaeg" in str(failure.value)
        async with Client([server.url], "wrong") as client:
            with pytest.raises(UnauthorizedError):
                await client.cluster()
        async with Client([dead], token) as client:
            with pytest.raises(UnavailableError):
                await client.cluster()


async def test_a_watch_begins_with_all_there_is_and_goes_on(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        token = server.admin["Authorization"].removeprefix("Bearer ")
        async with Client([server.url], token) as client, asyncio.timeout(20):
            seen: list[str] = []
            async for change in client.watch(types=["workload"]):
                seen.append(change["type"])
                if change["type"] == "synced":
                    await client.apply([WEB])
                if change["type"] == "workload":
                    assert change["object"]["name"] == "web"
                    break
    assert seen[0] == "synced"


def test_problem_details_become_the_class_that_was_meant() -> None:
    error = error_from(409, b'{"title": "cannot update", "detail": "it changed", "fix": "read again"}')
    assert isinstance(error, ConflictError)
    assert (error.what, error.why, error.fix) == ("cannot update", "it changed", "read again")
    assert error_from(500, b"<html>").what == "the server answered 500"
    with pytest.raises(UsageError):
        Client([], "token")
