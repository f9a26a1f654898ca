"""Transactions at etcd, each applied once and truly answered, although any try of it may fail with an unknown outcome.

Reading back the written keys can't settle such a doubt: two writers may write the same bytes (a counter, a phase), a
third may have overwritten ours, and a lost request may yet arrive after we looked. So each transaction carries a mark:
it also puts its own number into a key that only this client uses, if that key is still as the client last knew it.

- The compare makes a transaction apply at most once, however often and late its requests arrive.
- The failure branch reads the mark in the same step: our number there means that an earlier try was applied, and the
  mark's mod revision is its revision. The mark unmoved means that one of the caller's own compares failed. The mark
  moved by another number means that an abandoned transaction arrived late, and ours was not applied: once more.

A client has as many marks as it ever had transactions in flight at once, at most MOST_AT_ONCE. They lie outside of
"/", hold a few bytes, go when the client closes, and those of crashed clients go with the history (`sweep`).
What remains: a sweep past a mark within the 15 s that its transaction is in doubt; that ends in UnavailableError.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from grpc.aio import AioRpcError

from control_plane.store.etcd_channel import TOTAL_S, TRY_S, Cluster
from control_plane.store.etcd_errors import is_lease_missing, translated
from control_plane.store.etcd_methods import RANGE, TXN
from control_plane.store.etcd_stubs import etcd_pb2 as pb
from control_plane.store.protocol import (
    ABSENT,
    Compare,
    CreatedAt,
    Delete,
    Exists,
    LeaseId,
    ModifiedAt,
    Put,
    Revision,
    Txn,
)
from control_plane.store.transactions import NOWHERE, conflict, lease_conflict, prefix_end
from foundation.logs import Log
from manifests.errors import UnavailableError, WherryError

MARKS = b"wherry-commits/"
MOST_AT_ONCE = 64  # transactions of one client; more wait their turn
MOST_EXPLAINED = 16  # compared keys that are read to say why a transaction conflicts
MOST_SWEPT = 64  # marks deleted in one transaction

log = Log(__name__)


@dataclass(slots=True)
class Mark:
    key: bytes
    revision: Revision = ABSENT  # when it was last put, as far as we know
    number: int = 0  # of the last transaction that carried it


class Committer:
    """Commits transactions under marks of its own, which nobody else uses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # Not from the injected source of chance: were an id ever to come again, two clients would share their marks.
        self._prefix = MARKS + secrets.token_hex(8).encode() + b"/"
        self._marks = 0
        self._free: list[Mark] = []  # last in, first out: so that few are ever made
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)

    async def commit(self, txn: Txn) -> Revision:
        """Apply a checked transaction and return its revision; raises as Store.commit does."""
        try:
            if not txn.writes:
                response = await self._cluster.call(TXN, _request(txn, None))
                if not response.succeeded:
                    raise conflict(txn, _found(txn, response.responses))
                return Revision(response.header.revision)
            async with self._mark() as mark:
                return await self._commit_under(mark, txn)
        except AioRpcError as error:
            if is_lease_missing(error):
                raise lease_conflict(_any_lease(txn)) from error
            raise translated(error, self._cluster.current.endpoint) from error

    async def sweep(self, before: Revision) -> None:
        """Delete the marks which other clients last used before that revision: they are idle or gone."""
        if before <= 1:
            return  # etcd takes a bound of 0 for none
        try:
            await self._sweep(before)
        except AioRpcError as error:
            raise translated(error, self._cluster.current.endpoint) from error

    async def _sweep(self, before: Revision) -> None:
        request = pb.RangeRequest(
            key=MARKS, range_end=prefix_end(MARKS), limit=1_000, keys_only=True, max_mod_revision=before - 1
        )
        kvs = [kv for kv in (await self._cluster.call(RANGE, request)).kvs if not kv.key.startswith(self._prefix)]
        for first in range(0, len(kvs), MOST_SWEPT):
            batch = kvs[first : first + MOST_SWEPT]
            await self._cluster.call(TXN, _deletion((kv.key, Revision(kv.mod_revision)) for kv in batch))

    async def close(self) -> None:
        """Delete our marks, if etcd is at hand; else the next sweep does."""
        used = [(mark.key, mark.revision) for mark in self._free if mark.revision != ABSENT]
        if not used:
            return
        try:
            await self._cluster.call_member(self._cluster.current, TXN, _deletion(used), timeout_s=TRY_S)
        except (AioRpcError, WherryError):
            log.debug("marks of commits were left behind", marks=len(used))

    @asynccontextmanager
    async def _mark(self) -> AsyncIterator[Mark]:
        try:
            async with asyncio.timeout(TOTAL_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise UnavailableError("the write was not tried", why="too many others wait for etcd already") from error
        if self._free:
            mark = self._free.pop()
        else:
            mark = Mark(self._prefix + str(self._marks).encode())
            self._marks += 1
        try:
            yield mark
        finally:
            self._free.append(mark)  # also in doubt: its next transaction finds out, and shuts out the lost one
            self._turn.release()

    async def _commit_under(self, mark: Mark, txn: Txn) -> Revision:
        mark.number += 1
        number = str(mark.number).encode()
        doubts: list[None] = []
        while True:
            response = await self._cluster.call(TXN, _request(txn, mark), on_doubt=lambda: doubts.append(None))
            if response.succeeded:
                mark.revision = Revision(response.header.revision)
                return mark.revision
            kvs = response.responses[0].response_range.kvs
            found = Revision(kvs[0].mod_revision) if kvs else ABSENT
            expected, mark.revision = mark.revision, found
            if kvs and kvs[0].value == number:
                return found
            if found == expected:
                if doubts and (late := await self._shut_out(mark, number)):
                    return late
                raise conflict(txn, _found(txn, response.responses[1:]))
            if found == ABSENT and doubts:
                raise UnavailableError("it is unknown whether the write was done", why="its mark was swept meanwhile")

    async def _shut_out(self, mark: Mark, number: bytes) -> Revision | None:
        """Move the mark, so that no lost try arrives after its conflict was reported; return its revision if one did.

        Without this, a try that waits for a key to be absent could still find it so, later.
        """
        mark.number += 1
        response = await self._cluster.call(TXN, _request(Txn((), ()), mark))
        kvs = () if response.succeeded else response.responses[0].response_range.kvs
        mark.revision = Revision(kvs[0].mod_revision if kvs else response.header.revision)
        return mark.revision if kvs and kvs[0].value == number else None


def _request(txn: Txn, mark: Mark | None) -> pb.TxnRequest:
    compares = [_compare(compare) for compare in txn.compares]
    success = [_write(write) for write in txn.writes]
    failure = [
        pb.RequestOp(request_range=pb.RangeRequest(key=compare.key.encode(), keys_only=True))
        for compare in txn.compares[:MOST_EXPLAINED]
    ]
    if mark is not None:
        compares.append(_modified_at(mark.key, mark.revision))
        success.append(pb.RequestOp(request_put=pb.PutRequest(key=mark.key, value=str(mark.number).encode())))
        failure.insert(0, pb.RequestOp(request_range=pb.RangeRequest(key=mark.key)))
    return pb.TxnRequest(compare=compares, success=success, failure=failure)


def _deletion(marks: Iterable[tuple[bytes, Revision]]) -> pb.TxnRequest:
    """Return the deletion of keys, if none of them has changed."""
    keys = list(marks)
    return pb.TxnRequest(
        compare=[_modified_at(key, revision) for key, revision in keys],
        success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key)) for key, _ in keys],
    )


def _compare(compare: Compare) -> pb.Compare:
    key = compare.key.encode()
    match compare:
        case CreatedAt(_, revision):
            return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=revision)
        case ModifiedAt(_, revision):
            return _modified_at(key, revision)
        case Exists():
            return pb.Compare(key=key, target=pb.Compare.VERSION, result=pb.Compare.GREATER, version=0)


def _modified_at(key: bytes, revision: Revision) -> pb.Compare:
    return pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=revision)


def _write(write: Put | Delete) -> pb.RequestOp:
    if isinstance(write, Put):
        put = pb.PutRequest(key=write.key.encode(), value=write.value, lease=write.lease or 0)
        return pb.RequestOp(request_put=put)
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=write.key.encode()))


def _found(txn: Txn, responses: Iterable[pb.ResponseOp]) -> dict[str, tuple[Revision, Revision]]:
    """Return the revisions of the compared keys, as they were when the transaction failed."""
    found = {}
    for compare, response in zip(txn.compares, responses, strict=False):
        kvs = response.response_range.kvs
        found[compare.key] = (Revision(kvs[0].create_revision), Revision(kvs[0].mod_revision)) if kvs else NOWHERE
    return found


def _any_lease(txn: Txn) -> LeaseId:
    return next(write.lease for write in txn.writes if isinstance(write, Put) and write.lease is not None)
