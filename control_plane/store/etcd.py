"""The store of a cluster: etcd 3.4 and later, over gRPC with our own messages. The modules etcd_* are its parts.

Nothing else imports grpc, and nothing imports this module but `open_store`, when an etcd is asked for.
Idle, it writes nothing: each watch asks for a sign of life every few seconds, each lease is renewed in etcd's memory.
"""

import random
from collections.abc import AsyncIterator, Sequence

from grpc.aio import AioRpcError

from control_plane.store import etcd_lease
from control_plane.store.access import Credentials, Tls
from control_plane.store.background import Background
from control_plane.store.etcd_channel import TRY_S, Cluster, Member
from control_plane.store.etcd_commit import Committer
from control_plane.store.etcd_errors import details, is_beyond, is_compacted, is_reply_too_large, translated
from control_plane.store.etcd_methods import COMPACT, RANGE, STATUS
from control_plane.store.etcd_stubs import etcd_pb2 as pb
from control_plane.store.etcd_versions import defects_of
from control_plane.store.etcd_watch import Feed, Watch
from control_plane.store.health import MemberHealth
from control_plane.store.protocol import Changes, Entry, Page, Revision, Txn
from control_plane.store.transactions import beyond, check, compacted, prefix_end
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import WherryError

log = Log(__name__)


class EtcdStore:
    """Implements the Store protocol over etcd. Open it with `await EtcdStore.open(endpoints, clock=…, rng=…)`."""

    def __init__(self, cluster: Cluster, background: Background) -> None:
        self._cluster = cluster
        self._background = background
        self._committer = Committer(cluster)
        self._feeds: set[Feed] = set()
        self._leases: set[etcd_lease.EtcdLease] = set()
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        endpoints: Sequence[str],
        *,
        clock: Clock,
        rng: random.Random,
        tls: Tls | None = None,
        credentials: Credentials | None = None,
    ) -> "EtcdStore":
        """Open the store once a member answers; raises UnavailableError if none does in time."""
        cluster = Cluster(endpoints, clock=clock, rng=rng, tls=tls, credentials=credentials)
        try:
            status = await cluster.call(STATUS, pb.StatusRequest())
            for defect in defects_of(status.version):
                log.warning("etcd has a known defect", endpoint=cluster.current.endpoint, defect=defect)
            return cls(cluster, await Background.open("store"))
        except AioRpcError as error:
            await cluster.close()
            raise translated(error, cluster.current.endpoint) from error
        except BaseException:
            await cluster.close()
            raise

    async def get(self, key: str) -> Entry | None:
        response = await self._range(pb.RangeRequest(key=key.encode()))
        return _entry(response.kvs[0]) if response.kvs else None

    async def list_prefix(
        self, prefix: str, *, at: Revision | None = None, start: str | None = None, limit: int = 500
    ) -> Page:
        first = max(prefix.encode(), (start or "").encode()) or b"\0"
        end = prefix_end(prefix.encode()) or b"\0"
        if end != b"\0" and first >= end:
            first, end = b"\0", b"\x01"  # an empty range, which etcd would refuse
        response = await self._range(pb.RangeRequest(key=first, range_end=end, limit=limit, revision=at or 0))
        entries = tuple(map(_entry, response.kvs))
        next_key = entries[-1].key + "\0" if response.more else None
        return Page(entries, at or Revision(response.header.revision), next_key)

    async def commit(self, txn: Txn) -> Revision:
        check(txn)
        return await self._committer.commit(txn)

    async def watch(self, prefix: str, *, after: Revision) -> AsyncIterator[Changes]:
        feed = Feed()
        self._feeds.add(feed)
        reading = self._background.start(Watch(self._cluster, prefix, after, feed).run(), name=f"watch {prefix}")
        try:
            async for item in feed.items():
                yield item
        finally:
            reading.cancel()
            self._feeds.discard(feed)

    async def lease(self, *, ttl_s: float) -> etcd_lease.EtcdLease:
        lease = await etcd_lease.grant(self._cluster, ttl_s)
        self._leases.add(lease)
        self._background.start(self._keep(lease), name=f"renew {lease.id}")
        return lease

    async def compact(self, revision: Revision) -> None:
        try:
            await self._cluster.call(COMPACT, pb.CompactionRequest(revision=revision))
        except AioRpcError as error:
            if is_beyond(error):
                raise beyond(revision) from error
            if not is_compacted(error):  # it is, already
                raise translated(error, self._cluster.current.endpoint) from error
        await self._committer.sweep(revision)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for feed in tuple(self._feeds):
            await feed.end()
        for lease in self._leases:
            lease.let_go()
        await self._committer.close()
        try:
            await self._background.close()
        finally:
            await self._cluster.close()

    async def members(self) -> tuple[MemberHealth, ...]:
        """Return how each endpoint answers now, in the order given to `open`."""
        async with TaskGroup() as asking:
            answers = [asking.create_task(self._health(m), name="ask-etcd") for m in self._cluster.members]
        return tuple(answer.result() for answer in answers)

    async def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        try:
            return await self._cluster.call(RANGE, request)
        except AioRpcError as error:
            if is_reply_too_large(error) and request.limit > 1:
                request.limit //= 2
                return await self._range(request)
            if is_compacted(error):
                raise compacted(Revision(request.revision)) from error
            if is_beyond(error):
                raise beyond(Revision(request.revision)) from error
            raise translated(error, self._cluster.current.endpoint) from error

    async def _keep(self, lease: etcd_lease.EtcdLease) -> None:
        try:
            await lease.renew()
        finally:
            self._leases.discard(lease)

    async def _health(self, member: Member) -> MemberHealth:
        try:
            status = await self._cluster.call_member(member, STATUS, pb.StatusRequest(), timeout_s=TRY_S)
        except AioRpcError as error:
            return MemberHealth(member.endpoint, "", False, 0, details(error) or error.code().name)
        except (WherryError, TimeoutError) as error:
            return MemberHealth(member.endpoint, "", False, 0, str(error))
        is_leader = status.leader == status.header.member_id
        why = "; ".join(status.errors) or ("" if status.leader else "it has no leader")
        defects = defects_of(status.version)
        return MemberHealth(member.endpoint, status.version, is_leader, status.dbSize, why, defects)


def _entry(kv: pb.KeyValue) -> Entry:
    return Entry(kv.key.decode(), kv.value, Revision(kv.create_revision), Revision(kv.mod_revision))
