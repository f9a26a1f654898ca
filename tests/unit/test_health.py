"""Probes against a real local server, and the checks that count them."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.driver import Container, ContainerId, ContainerState, Driver, ExecResult
from agent.drivers.docker import DockerDriver
from agent.group import Group, changed_members
from agent.health import Count, HealthChecks, counted
from agent.node import Node
from agent.probes import LOOPBACK, Verdict, probe, target_of
from agent.reconcile import Action
from agent.tracked import Tracked, newly_assigned
from foundation.clock import SystemClock
from foundation.tasks import TaskGroup
from manifests.allocations import Health, Phase
from manifests.containers import CheckSpec, ExecCheck, HttpCheck, Resources, TcpCheck
from manifests.errors import TimedOutError, UnavailableError
from manifests.session import Assignments
from tests.lab.waiting import hold_for, wait_until
from tests.scripted_server import assigned

NO_DRIVER = DockerDriver("/nonexistent/docker.sock")
ANSWERS = {
    "/ok": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/moved": b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "/bad": b"HTTP/1.1 503 Unavailable\r\n\r\n",
    "/noise": b"SSH-2.0-server\r\n",
    "/endless": b"x" * 100_000,
    "/closed": b"",
}


@asynccontextmanager
async def local_server() -> AsyncIterator[int]:
    """Serve the answers above; `/silent` never gets one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readline()).split(b" ")[1].decode()
            if path == "/silent":
                await reader.read()
            writer.write(ANSWERS.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n"))
            await writer.drain()
        except (ConnectionError, IndexError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def tracked(**spec: Any) -> Tracked:
    record = newly_assigned(assigned("web-0-a", **({"network": "host"} | spec)))
    return replace(record, status=record.status.model_copy(update={"container_id": "c1"}))


def http(port: int, path: str, **given: Any) -> CheckSpec:
    return CheckSpec(http=HttpCheck(port=port, path=path), **given)


@pytest.mark.parametrize(
    ("path", "passes", "words"),
    [
        ("/ok", True, "204"),
        ("/moved", True, "302"),
        ("/bad", False, "503"),
        ("/other", False, "404"),
        ("/noise", False, "isn't HTTP"),
        ("/endless", False, "isn't HTTP"),
        ("/closed", False, "isn't HTTP"),
    ],
)
async def test_an_http_probe_judges_by_the_status_alone(path: str, passes: bool, words: str) -> None:
    async with local_server() as port:
        verdict = await probe(http(port, path), tracked(), NO_DRIVER)
    assert verdict.passes is passes
    assert words in verdict.output


async def test_a_probe_ends_at_its_timeout() -> None:
    async with local_server() as port:
        verdict = await probe(http(port, "/silent", timeout_s="50ms"), tracked(), NO_DRIVER)
    assert verdict == Verdict(False, f"no answer from port {port} within 0.05 s")


async def test_a_tcp_probe_asks_for_a_connection_only() -> None:
    async with local_server() as port:
        assert (await probe(CheckSpec(tcp=TcpCheck(port=port)), tracked(), NO_DRIVER)).passes
    refused = await probe(CheckSpec(tcp=TcpCheck(port=port)), tracked(), NO_DRIVER)
    assert not refused.passes
    assert str(port) in refused.output


def test_only_the_allocations_own_address_is_dialled() -> None:
    bridged = tracked(network="bridge")
    bridged = replace(bridged, status=bridged.status.model_copy(update={"address": "172.17.0.9"}))
    assert target_of(bridged).address == "172.17.0.9"
    assert target_of(tracked()).address == LOOPBACK


class Commands(DockerDriver):
    """A driver whose commands end as told."""

    def __init__(self, *ends: ExecResult | Exception) -> None:
        super().__init__("/nonexistent/docker.sock")
        self.ends = list(ends)
        self.asked = 0

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        self.asked += 1
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if isinstance(end, Exception):
            raise end
        return end


async def test_a_command_passes_with_code_0_and_tells_its_output_otherwise() -> None:
    check = CheckSpec(exec_=ExecCheck(command=("test",)))
    good, bad, slow = ExecResult(0, b""), ExecResult(3, b"no luck\n"), TimedOutError("slow")
    assert (await probe(check, tracked(), Commands(good))).passes
    assert await probe(check, tracked(), Commands(bad)) == Verdict(False, "the command exited with 3: no luck")
    assert not (await probe(check, tracked(), Commands(slow))).passes
    with pytest.raises(UnavailableError):
        await probe(check, tracked(), Commands(UnavailableError("docker is away")))


def test_verdicts_change_at_their_thresholds_only() -> None:
    check = CheckSpec(tcp=TcpCheck(port=80), failures=2, successes=2)
    count, seen = Count(), []
    for passes in (True, False, True, True, False, True, False, False, True, True):
        count = counted(count, check, passes=passes)
        seen.append(count.health.value)
    unknown, good, bad = ["unknown"], ["healthy"], ["unhealthy"]
    assert seen == unknown * 3 + good * 4 + bad * 2 + good


@asynccontextmanager
async def checked(driver: Driver, **health: Any) -> AsyncIterator[tuple[Node, list[Action]]]:
    """Run the checks of one allocation whose container is said to run."""
    actions: list[Action] = []
    followers: list[HealthChecks] = []

    def follow(old: Group | None, new: Group | None) -> None:
        for checks in followers:
            for before, after in changed_members(old, new):
                checks.follow(before, after)

    clock = SystemClock()
    room = Resources().model_copy(update={"cpu_m": 1000, "memory_bytes": 2**30, "pids": 1000, "disk_bytes": 2**40})
    node = Node(allocatable=room, clock=clock, perform=actions.append, on_change=follow)
    async with TaskGroup() as tasks:
        followers.append(HealthChecks(node, driver, clock=clock, rng=random.Random(1), tasks=tasks))
        node.see_all((), {})
        node.assign(
            Assignments(revision=1, is_full=True, assigned=(assigned("web-0-a", network="host", health=health),))
        )
        work = node.tracked["web-0-a"].work
        node.finish("web-0-a", work, Container(ContainerId("c1"), "c1", {}, "i", ContainerState.RUNNING))
        assert node.tracked["web-0-a"].status.phase is Phase.RUNNING
        yield node, actions
        node.assign(Assignments(revision=2, is_full=True))
        node.finish("web-0-a", node.tracked["web-0-a"].work, None)


async def until_health(node: Node, health: Health) -> None:
    async def read() -> Health:
        return node.tracked["web-0-a"].status.health

    await wait_until(read, 5, f"it is {health}", lambda found: found is health)


async def test_readiness_follows_the_server_there_and_back() -> None:
    quick = {"interval": "100ms", "failures": 2}
    async with local_server() as port:
        readiness = {"http": {"port": port, "path": "/ok"}, **quick}
        async with checked(NO_DRIVER, readiness=readiness) as (node, _):
            assert node.tracked["web-0-a"].status.health is Health.UNKNOWN
            await until_health(node, Health.HEALTHY)
            ANSWERS["/ok"], good = ANSWERS["/bad"], ANSWERS["/ok"]
            try:
                await until_health(node, Health.UNHEALTHY)
            finally:
                ANSWERS["/ok"] = good
            await until_health(node, Health.HEALTHY)


async def test_a_liveness_check_condemns_but_a_manager_that_is_away_does_not() -> None:
    away, bad = UnavailableError("docker is away"), ExecResult(1, b"no luck")
    driver = Commands(away, away, away, bad, bad)
    liveness = {"exec": {"command": ["test"]}, "interval": "100ms", "failures": 2}
    async with checked(driver, liveness=liveness) as (node, _):
        await until_health(node, Health.UNHEALTHY)
        assert driver.ends == [bad]
        assert node.tracked["web-0-a"].doom == "unhealthy"
        assert "no luck" in node.tracked["web-0-a"].status.message


async def test_nothing_else_is_asked_until_startup_has_passed_and_then_it_is_asked_no_more() -> None:
    good, bad = ExecResult(0, b""), ExecResult(1, b"not yet")
    driver = Commands(bad, bad, bad, good)
    startup = {"exec": {"command": ["begun"]}, "interval": "100ms", "failures": 10}
    async with local_server() as port:
        readiness = {"http": {"port": port, "path": "/ok"}, "interval": "100ms"}
        async with checked(driver, startup=startup, readiness=readiness) as (node, _):
            await until_health(node, Health.HEALTHY)
            assert driver.asked == 4, "startup had passed before readiness was asked"
            await hold_for(lambda: is_ready(node), 0.5, "it stays so")
            assert driver.asked == 4


async def test_what_never_starts_is_condemned_and_without_readiness_it_is_healthy_once_it_has_started() -> None:
    bad = ExecResult(1, b"no luck")
    startup = {"exec": {"command": ["begun"]}, "interval": "100ms", "failures": 2}
    async with checked(Commands(bad, bad), startup=startup) as (node, _):
        await until_health(node, Health.UNHEALTHY)
        assert node.tracked["web-0-a"].status.message == "its startup check failed: the command exited with 1: no luck"
    async with checked(Commands(bad, ExecResult(0, b"")), startup=startup) as (node, _):
        assert node.tracked["web-0-a"].status.health is Health.UNKNOWN
        await until_health(node, Health.HEALTHY)


async def is_ready(node: Node) -> bool:
    return node.tracked["web-0-a"].status.health is Health.HEALTHY


@asynccontextmanager
async def grpc_server(states: dict[bytes, bytes]) -> AsyncIterator[int]:
    """Serve the health protocol: what the status of each request is, by its bytes."""

    async def check(request: bytes, context: Any) -> bytes:
        if request not in states:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return states[request]

    server = grpc.aio.server()
    methods: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("service", "passes", "words"),
    [
        ("", True, "SERVING"),
        ("web", False, "the health of web on port {port} is NOT_SERVING"),
        ("other", False, "NOT_FOUND: unknown service"),
    ],
)
async def test_a_grpc_probe_asks_the_health_protocol(service: str, *, passes: bool, words: str) -> None:
    async with grpc_server({b"": b"\x08\x01", b"\n\x03web": b"\x08\x02"}) as port:
        check = CheckSpec.model_validate({"grpc": {"port": port, "service": service}})
        verdict = await probe(check, tracked(), NO_DRIVER)
    assert verdict.passes is passes
    assert words.format(port=port) in verdict.output


async def test_a_grpc_probe_of_what_doesn_t_speak_it_fails_in_time() -> None:
    async with local_server() as port:
        verdict = await probe(CheckSpec.model_validate({"grpc": {"port": port}}), tracked(), NO_DRIVER)
    assert not verdict.passes
