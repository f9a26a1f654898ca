"""One probe of one container: http, tcp, grpc or exec. Dials only the address that it is given, follows no redirect."""

import asyncio
import contextlib
import re
from dataclasses import dataclass

from agent.driver import ContainerId, Driver
from agent.grpc_probe import SERVING, grpc_health
from agent.tracked import Tracked
from manifests.containers import CheckSpec, GrpcCheck, HttpCheck, TcpCheck
from manifests.errors import DriverError, TimedOutError

LOOPBACK = "127.0.0.1"  # where an allocation with host networking answers
_MOST_STATUS_LINE = 512
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")


@dataclass(frozen=True, slots=True)
class Verdict:
    passes: bool
    output: str = ""  # why not, for people


@dataclass(frozen=True, slots=True)
class Target:
    """What is probed: the allocation's own address, which a group shares, and the container for commands."""

    address: str
    container: ContainerId


def target_of(tracked: Tracked) -> Target:
    """Return where the allocation answers: its bridge address, or the node's loopback with host networking."""
    return Target(LOOPBACK if tracked.has_host_network else tracked.address, ContainerId(tracked.status.container_id))


async def probe(check: CheckSpec, tracked: Tracked, driver: Driver) -> Verdict:
    """Return the verdict of one probe, within the check's timeout. A manager that is away raises WherryError."""
    target = target_of(tracked)
    if check.exec_ is not None:
        return await _probe_exec(check.exec_.command, target, driver, check.timeout_s)
    assert check.dialled is not None  # a check has exactly one kind
    _, dialled = check.dialled
    port = tracked.spec.port_number(dialled.port)
    try:
        async with asyncio.timeout(check.timeout_s):
            match dialled:
                case HttpCheck(path=path):
                    return await _probe_http(target.address, port, path)
                case GrpcCheck(service=service):
                    return await _probe_grpc(target, port, service, check.timeout_s)
                case TcpCheck():
                    return await _probe_tcp(target.address, port)
    except TimeoutError:
        return Verdict(False, f"no answer from port {port} within {check.timeout_s:g} s")
    except OSError as error:
        return Verdict(False, f"port {port}: {error.strerror or error}")


async def _probe_tcp(address: str, port: int) -> Verdict:
    _, writer = await asyncio.open_connection(address, port)
    writer.transport.abort()
    return Verdict(True)


async def _probe_http(address: str, port: int, path: str) -> Verdict:
    reader, writer = await asyncio.open_connection(address, port, limit=_MOST_STATUS_LINE)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: wherry\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        with contextlib.suppress(ValueError):  # a line beyond the limit is no status line
            line = await reader.readline()
            if match := _STATUS_LINE.match(line):
                status = int(match[1])
                return Verdict(200 <= status < 400, f"GET {path} on port {port} answered {status}")
        return Verdict(False, f"what answers on port {port} isn't HTTP")
    finally:
        writer.transport.abort()


async def _probe_grpc(target: Target, port: int, service: str, timeout_s: float) -> Verdict:
    found = await grpc_health(target.address, port, service, timeout_s=timeout_s)
    of = f" of {service}" if service else ""
    return Verdict(found == SERVING, f"the health{of} on port {port} is {found}")


async def _probe_exec(command: tuple[str, ...], target: Target, driver: Driver, timeout_s: float) -> Verdict:
    try:
        result = await driver.execute(target.container, command, timeout_s=timeout_s)
    except TimedOutError:
        return Verdict(False, f"the command took longer than {timeout_s:g} s")
    except DriverError as error:
        return Verdict(False, error.what)
    output = result.output.decode(errors="replace").strip()[-200:]
    return Verdict(result.exit_code == 0, f"the command exited with {result.exit_code}: {output}".rstrip(": "))
