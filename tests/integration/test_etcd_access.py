"""The etcd store with users and passwords, and with certificates."""

import asyncio
import base64
import random
from pathlib import Path

import aiohttp
import pytest

from control_plane.store.access import Credentials, Tls
from control_plane.store.etcd import EtcdStore
from control_plane.store.protocol import Change, Put, Revision, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import ForbiddenError, UnauthorizedError
from tests.etcd import EtcdCluster, etcd_cluster
from tests.etcd_process import EtcdProcess, free_port

pytestmark = pytest.mark.etcd

SOON_S = 30.0
SECRET = Credentials("wherry", "right")


async def require_passwords(endpoint: str) -> None:
    """Make a root, and a user who may only use /wherry/ and the marks of commits; then switch authentication on."""
    async with aiohttp.ClientSession() as session:

        async def post(path: str, **body: object) -> None:
            async with session.post(f"{endpoint}/v3/auth/{path}", json=body) as response:
                assert response.status == 200, await response.text()

        await post("user/add", name="root", password="root")
        await post("role/add", name="root")
        await post("user/grant", user="root", role="root")
        await post("user/add", name="wherry", password="right")
        await post("role/add", name="store")
        for first, end in ((b"/wherry/", b"/wherry0"), (b"wherry-commits/", b"wherry-commits0")):
            permission = {"permType": "READWRITE", "key": _base64(first), "range_end": _base64(end)}
            await post("role/grant", name="store", perm=permission)
        await post("user/grant", user="wherry", role="store")
        await post("enable")


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


async def open_as(cluster: EtcdCluster, credentials: Credentials | None) -> EtcdStore:
    return await EtcdStore.open(cluster.endpoints, clock=SystemClock(), rng=random.Random(0), credentials=credentials)


async def test_tokens_are_renewed_after_etcd_forgot_them_also_for_watches() -> None:
    async with etcd_cluster() as cluster:
        await require_passwords(cluster.endpoints[0])
        store = await open_as(cluster, SECRET)
        begin = await store.commit(Txn((), (Put("/wherry/a", b"1"),)))
        seen: list[Change] = []

        async def follow() -> None:
            async for item in store.watch("/wherry/", after=begin):
                seen.extend(item.changes)
                if len(seen) == 2:
                    return

        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(), name="follow")
            await store.commit(Txn((), (Put("/wherry/b", b"1"),)))
            await cluster.kill(0)
            await cluster.restart(0)
            await store.commit(Txn((), (Put("/wherry/c", b"1"),)))
        assert [change.key for change in seen] == ["/wherry/b", "/wherry/c"]
        lease = await store.lease(ttl_s=2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await lease.wait_lost()
        await store.close()


async def test_a_wrong_password_is_unauthorized() -> None:
    async with etcd_cluster() as cluster:
        await require_passwords(cluster.endpoints[0])
        with pytest.raises(UnauthorizedError):
            await open_as(cluster, Credentials("wherry", "wrong"))


async def test_what_the_role_does_not_allow_is_forbidden() -> None:
    async with etcd_cluster() as cluster:
        await require_passwords(cluster.endpoints[0])
        store = await open_as(cluster, SECRET)
        with pytest.raises(ForbiddenError):
            await store.get("/elsewhere")
        with pytest.raises(ForbiddenError):
            await store.commit(Txn((), (Put("/elsewhere", b""),)))
        with pytest.raises(ForbiddenError):
            async with asyncio.timeout(SOON_S):
                await anext(store.watch("/elsewhere", after=Revision(1)))
        await store.close()


async def _openssl(folder: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments, cwd=folder, stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def make_certificates(folder: Path) -> None:
    """Make a CA, and one certificate from it for both sides (etcd's own gateway uses the server's as a client, too)."""
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    await _openssl(folder, *new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    await _openssl(folder, *new, "-subj", "/CN=wherry", "-keyout", "one.key", "-out", "one.csr")
    sign = ("x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    await _openssl(folder, *sign, "-in", "one.csr", "-extfile", "extensions", "-out", "one.pem")


async def test_both_sides_prove_themselves_by_certificates(tmp_path: Path) -> None:
    await make_certificates(tmp_path)
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    options = (
        *("--listen-client-urls", url, "--advertise-client-urls", url, "--client-cert-auth"),
        *("--cert-file", f"{tmp_path}/one.pem", "--key-file", f"{tmp_path}/one.key"),
        *("--trusted-ca-file", f"{tmp_path}/ca.pem"),
    )
    process = EtcdProcess(tmp_path / "etcd", client_port=port, options=options)
    try:
        await process.launch()
        tls = Tls(tmp_path / "ca.pem", tmp_path / "one.pem", tmp_path / "one.key")
        store: Store = await EtcdStore.open((url,), clock=SystemClock(), rng=random.Random(0), tls=tls)
        revision = await store.commit(Txn((), (Put("/a", b"1"),)))
        async with asyncio.timeout(SOON_S):
            assert (await anext(store.watch("/a", after=Revision(1)))).revision == revision
        await store.close()
    finally:
        await process.kill()
