"""Leases at etcd, renewed at a third of their time to live. A renewal writes nothing to etcd's disk."""

import asyncio
import math

from grpc.aio import AioRpcError

from control_plane.store.etcd_channel import TRY_S, Cluster, Member
from control_plane.store.etcd_errors import is_lease_missing, translated
from control_plane.store.etcd_methods import LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE
from control_plane.store.etcd_stubs import etcd_pb2 as pb
from control_plane.store.protocol import LeaseId
from foundation.logs import Log
from manifests.errors import WherryError

log = Log(__name__)


class EtcdLease:
    """A lease, lost when etcd says so or when no renewal got through for its time to live.

    Time counts from when a request was sent, so that we never hold it for longer than etcd does.
    """

    def __init__(self, cluster: Cluster, id_: LeaseId, ttl_s: float, sent_s: float) -> None:
        self._cluster = cluster
        self._id = id_
        self._ttl_s = ttl_s
        self._expires_s = sent_s + ttl_s
        self._lost = asyncio.Event()
        self._revoking = asyncio.Event()

    @property
    def id(self) -> LeaseId:
        return self._id

    async def wait_lost(self) -> None:
        await self._lost.wait()

    async def revoke(self) -> None:
        self._revoking.set()
        if self._lost.is_set():
            return
        try:
            await self._cluster.call(LEASE_REVOKE, pb.LeaseRevokeRequest(ID=self._id))
        except AioRpcError as error:
            if not is_lease_missing(error):
                raise translated(error, self._cluster.current.endpoint) from error
        self._lost.set()

    def let_go(self) -> None:
        """Stop counting on it: nobody renews it any more."""
        self._lost.set()

    async def renew(self) -> None:
        """Renew until it is lost or revoked."""
        while await self._is_wanted_after(self._ttl_s / 3):
            try:
                left_s = await self._cluster.retry(
                    self._renew_once,
                    within_s=self._expires_s - self._cluster.clock.now_s(),
                    try_s=min(TRY_S, self._ttl_s / 3),
                )
            except (WherryError, AioRpcError) as error:
                log.warning("lease could not be renewed", lease=self._id, why=error)
                break
            if left_s <= 0:
                log.warning("lease expired", lease=self._id)
                break
        if not self._revoking.is_set():
            self._lost.set()

    async def _is_wanted_after(self, seconds: float) -> bool:
        await self._cluster.clock.sleep(seconds)
        return not self._revoking.is_set() and not self._lost.is_set()

    async def _renew_once(self, member: Member, timeout_s: float) -> int:
        """Return the seconds that the lease has now, 0 if it is gone. The stream is used for this one request."""
        sent_s = self._cluster.clock.now_s()
        metadata, _ = await self._cluster.metadata(member)
        call = member.stream(LEASE_KEEP_ALIVE, metadata, timeout_s=timeout_s)
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=self._id))
            response = await call.read()
        finally:
            call.cancel()
        if not isinstance(response, pb.LeaseKeepAliveResponse):
            return 0
        if response.TTL > 0:
            self._expires_s = sent_s + response.TTL
        return response.TTL


async def grant(cluster: Cluster, ttl_s: float) -> EtcdLease:
    """Return a new lease of at least that time; etcd has a least of its own, about 2 s."""
    sent_s = cluster.clock.now_s()

    async def attempt(member: Member, timeout_s: float) -> pb.LeaseGrantResponse:
        nonlocal sent_s
        sent_s = cluster.clock.now_s()
        request = pb.LeaseGrantRequest(TTL=math.ceil(ttl_s))
        return await cluster.call_member(member, LEASE_GRANT, request, timeout_s=timeout_s)

    try:
        response = await cluster.retry(attempt)  # one that was granted unknown to us expires unused
    except AioRpcError as error:
        raise translated(error, cluster.current.endpoint) from error
    return EtcdLease(cluster, LeaseId(response.ID), float(response.TTL), sent_s)
