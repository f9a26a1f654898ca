"""The lab's observer of what really runs sees starts and ends, also while the engine hangs or its host has no power."""

import os
import signal

import pytest

from tests.images import load_busybox
from tests.lab.dockerd import run_container
from tests.lab.marks import ON_HOSTS
from tests.lab.network import lab_network
from tests.lab.truth import Truth

pytestmark = [*ON_HOSTS, pytest.mark.docker]

LABELS = {"wherry.allocation": "web-0-1", "wherry.attempt": "1"}


async def test_the_life_of_each_container_is_seen() -> None:
    async with lab_network(["a"]) as net:
        host = net["a"]
        await host.start_dockerd()
        await load_busybox(host.dockerd.socket)
        truth = Truth([host])
        first = await run_container(host, "first", "sleep", "1000", labels=LABELS)
        second = await run_container(host, "second", "sleep", "1000", labels=LABELS | {"wherry.attempt": "2"})
        await run_container(host, "other", "sleep", "1000")
        await truth.look()
        await truth.look()
        assert [(life.container, life.attempt, life.is_over) for life in truth.lives] == [
            (second, 2, False),
            (first, 1, False),
        ]
        await host.pause("dockerd")
        os.kill(truth.lives[0].pid, signal.SIGKILL)
        await truth.look()
        assert [life.is_over for life in truth.lives] == [True, False]
        await host.resume("dockerd")
        await host.kill()
        await truth.look()
        assert [life.is_over for life in truth.lives] == [True, True]


async def test_a_restart_of_the_same_container_is_another_life() -> None:
    async with lab_network(["a"]) as net:
        host = net["a"]
        await host.start_dockerd()
        await load_busybox(host.dockerd.socket)
        truth = Truth([host])
        container = await run_container(host, "web", "sleep", "1000", labels=LABELS)
        await truth.look()
        await host.dockerd.call("POST", f"/containers/{container}/restart?t=0")
        await truth.look()
        await truth.look()
        assert [(life.container, life.is_over) for life in truth.lives] == [(container, True), (container, False)]
