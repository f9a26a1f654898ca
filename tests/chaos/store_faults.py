"""What befalls etcd. None of it excuses anything: no node may be lost for it, and no container touched."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from control_plane import keys
from tests.chaos.fault import Effect, Kind, Lab, Part
from tests.lab.etcd import EtcdMember
from tests.lab.waiting import wait_until

LEADER_SHARE = 0.6
FSYNC_S = (0.3, 1.5, 9.0)
UP_S = 30.0
CALL_S = 2.0
FULL_DISK = "e3/etcd"


@asynccontextmanager
async def killed(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    member, name = await _some_member(lab)
    await member.kill()
    yield Effect(f"{name}, {hold_s:.1f} s")
    member.start()


@asynccontextmanager
async def frozen(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    member, name = await _some_member(lab)
    await member.pause()
    yield Effect(f"{name}, {hold_s:.1f} s")
    member.resume()


@asynccontextmanager
async def without_quorum(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    down: Sequence[EtcdMember] = lab.rng.sample(lab.cluster.etcd.members, 2)
    for member in down:
        await member.kill()
    yield Effect(f"{' and '.join(sorted(m.host.name for m in down))} killed, {hold_s:.1f} s")
    for member in down:
        member.start()


@asynccontextmanager
async def slow_disk(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    member, name = await _some_member(lab)
    delay_s = lab.rng.choice(FSYNC_S)
    inject = f"inject=fdatasync,fsync:delay_enter={int(delay_s * 1e6)}"
    strace = member.host.run(
        "strace", *("strace", "-f", "-qq", "-o", "/dev/null"), *("-e", inject, "-p", str(member.process.pid))
    )
    yield Effect(f"{name}, each fsync {delay_s:g} s, {hold_s:.1f} s")
    await strace.terminate()


@asynccontextmanager
async def full_disk(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """The member may end for it; whoever clears the disk starts it again."""
    disk, member = lab.cluster.net.disks[FULL_DISK], lab.cluster.etcd["e3"]
    disk.fill()
    yield Effect(f"e3, {hold_s:.1f} s")
    disk.clear()
    if not member.process.is_alive:
        member.start()


@asynccontextmanager
async def out_of_space(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """As when etcd's quota is used up: it refuses all that would take room, and reads go on."""
    alarm = {"alarm": "NOSPACE", "memberID": await _member_id(lab)}
    await _call(lab, "/v3/maintenance/alarm", {**alarm, "action": "ACTIVATE"})
    yield Effect(f"NOSPACE, {hold_s:.1f} s")
    await _call(lab, "/v3/maintenance/alarm", {**alarm, "action": "DEACTIVATE"})


async def _member_id(lab: Lab) -> str:
    return str((await _call(lab, "/v3/maintenance/status", {}))["header"]["member_id"])


@asynccontextmanager
async def lease_revoked(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """The leader's lease is gone, and its record with it, though it lives and renews."""
    key = base64.b64encode(keys.LEADER.encode()).decode()
    found = await _call(lab, "/v3/kv/range", {"key": key})
    for entry in found.get("kvs", []):
        await _call(lab, "/v3/lease/revoke", {"ID": entry["lease"]})
    yield Effect("the leader's")


async def _some_member(lab: Lab) -> tuple[EtcdMember, str]:
    """Return a member, often the leader, and its name for people."""
    leader = await wait_until(lab.cluster.etcd.leader, UP_S, "a member of etcd leads")
    if lab.rng.random() < LEADER_SHARE:
        return leader, f"{leader.host.name} (leader)"
    member = lab.rng.choice([member for member in lab.cluster.etcd.members if member is not leader])
    return member, member.host.name


async def _call(lab: Lab, path: str, body: object) -> Any:
    """Return the answer of the first member that gives one: some may be off or frozen."""

    async def ask() -> Any:
        for member in lab.cluster.etcd.members:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(member.url + path, json=body) as answer:
                    return await answer.json()
        return None

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S)) as session:
        return await wait_until(ask, UP_S, f"a member of etcd answers {path}")


KINDS = (
    Kind("etcd member killed", killed, (1, 10), Part.MEMBER),
    Kind("etcd member frozen", frozen, (3, 14), Part.MEMBER),
    Kind("etcd without quorum", without_quorum, (4, 12), Part.STORE),
    Kind("etcd member's disk slow", slow_disk, (8, 14), Part.MEMBER),
    Kind("etcd member's disk full", full_disk, (6, 12), Part.MEMBER),
    Kind("etcd out of space", out_of_space, (4, 12), Part.STORE),
    Kind("lease revoked", lease_revoked, (1, 2), Part.SERVER),
)
