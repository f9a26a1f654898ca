"""Watches at etcd without gaps: a stream that is begun again, on any member, after the last event that was passed on.

- It resumes at the last *event's* revision + 1: while it catches up, etcd puts the store's newest revision into the
  header of each response, so the header counts only in a response without events, the mark of progress.
- `hasleader` makes a member that lost its cluster end the stream. A paused or half-open one gives no sign at all: after
  PROBE_EVERY_S without an answer of that member the stream is given up unless `Status` answers.
- etcd accepts a start at the compacted revision itself although the deletions there are gone, and one in the future, as
  after a restore. A linearizable read at the last seen revision refuses both, once the stream stands.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from grpc.aio import AioRpcError, StreamStreamCall

from control_plane.store.etcd_channel import TRY_S, Cluster, Member
from control_plane.store.etcd_errors import details, is_beyond, is_compacted, is_stale_token, is_transient, translated
from control_plane.store.etcd_methods import RANGE, STATUS, WATCH
from control_plane.store.etcd_stubs import etcd_pb2 as pb
from control_plane.store.protocol import Change, Changes, Entry, Revision
from control_plane.store.transactions import beyond, compacted, prefix_end
from foundation.backoff import Backoff
from foundation.tasks import TaskGroup
from manifests.errors import ForbiddenError

FIRST_RESPONSE_S = 3.0
PROBE_EVERY_S = 5.0
MOST_BUFFERED = 16  # responses, each of up to 1,000 revisions; then reading stops, and etcd waits
MOST_DENIALS = 2  # in a row: the first may only mean that the token was stale
RECONNECT = Backoff(first_s=0.05, most_s=1.0)

_Call = StreamStreamCall[pb.WatchRequest, pb.WatchResponse]


class _BrokenError(Exception):
    """The stream ended, or its member is silent; begin again."""


class Feed:
    """A bounded buffer between the task that reads a stream and the watch's consumer; it ends with or without error."""

    def __init__(self) -> None:
        self._items: deque[Changes] = deque()
        self._error: Exception | None = None
        self._has_ended = False
        self._moved = asyncio.Condition()

    async def put(self, item: Changes) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: len(self._items) < MOST_BUFFERED or self._has_ended)
            self._items.append(item)
            self._moved.notify_all()

    async def end(self, error: Exception | None = None) -> None:
        async with self._moved:
            if not self._has_ended:
                self._error, self._has_ended = error, True
            self._moved.notify_all()

    async def items(self) -> AsyncIterator[Changes]:
        """Yield what was put until the end; then raise the error, if there is one."""
        while True:
            async with self._moved:
                await self._moved.wait_for(lambda: self._items or self._has_ended)
                item = self._items.popleft() if self._items else None
                self._moved.notify_all()
            if item is None:
                break
            yield item
        if self._error is not None:
            raise self._error


class Watch:
    """Follows a prefix into a feed, over any number of streams."""

    def __init__(self, cluster: Cluster, prefix: str, after: Revision, feed: Feed) -> None:
        self._cluster = cluster
        self._prefix = prefix.encode()
        self._position = after  # everything up to it was passed on
        self._feed = feed
        self._token: str | None = None
        self._denials = 0
        self._failures = 0

    async def run(self) -> None:
        """Read until cancelled, or until history is gone; the feed gets the reason."""
        try:
            while True:
                member = self._cluster.current
                try:
                    await self._follow(member)
                except (_BrokenError, TimeoutError) as error:
                    self._cluster.rotate(member, why=str(error) or "it did not answer")
                except AioRpcError as error:
                    self._judge(member, error)
                self._failures += 1
                await self._cluster.clock.sleep(RECONNECT.delay_s(self._failures, self._cluster.rng))
        except Exception as error:  # also a bug: it belongs to the consumer, who waits for the feed
            await self._feed.end(error)

    async def _follow(self, member: Member) -> None:
        """Pass on one stream's changes until it breaks, which raises."""
        metadata, self._token = await self._cluster.metadata(member)
        call = member.stream(WATCH, (*metadata, ("hasleader", "true")))
        try:
            async with asyncio.timeout(FIRST_RESPONSE_S):
                await call.write(pb.WatchRequest(create_request=self._creation()))
                self._check_alive(await _response(call))
                await self._check_history(member)
            self._denials = self._failures = 0
            self._cluster.note_answer(member)
            await self._read_probed(call, member)
        finally:
            call.cancel()

    async def _read_probed(self, call: _Call, member: Member) -> None:
        try:
            async with TaskGroup() as parts:
                parts.create_task(self._probe(member), name="probe-etcd")
                parts.create_task(self._read(call, member), name="read-watch")
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one part's failure, which ended the other

    async def _read(self, call: _Call, member: Member) -> None:
        fragments: list[Change] = []
        while True:
            response = await _response(call)
            member.heard_s = self._cluster.clock.now_s()
            self._check_alive(response)
            changes = [*fragments, *(_change(event) for event in response.events)]
            fragments = []
            if response.fragment:  # more of it comes, maybe of the same revision: hold that one back
                last = changes[-1].revision
                fragments = [change for change in changes if change.revision == last]
                changes = changes[: len(changes) - len(fragments)]
            if changes:
                await self._pass_on(changes, changes[-1].revision)
            elif not fragments and not response.created:
                await self._pass_on((), Revision(response.header.revision))

    async def _pass_on(self, changes: Sequence[Change], revision: Revision) -> None:
        new = tuple(change for change in changes if change.revision > self._position)
        if revision > self._position:
            await self._feed.put(Changes(new, revision))
            self._position = revision

    async def _probe(self, member: Member) -> None:
        """Raise once the member answers nothing any more, not even this. Watches of one member share the answers."""
        clock = self._cluster.clock
        while True:
            await clock.sleep(max(0.1, member.heard_s + PROBE_EVERY_S - clock.now_s()))
            if clock.now_s() - member.heard_s >= PROBE_EVERY_S:
                await self._cluster.call_member(member, STATUS, pb.StatusRequest(), timeout_s=TRY_S)
                self._cluster.note_answer(member)

    async def _check_history(self, member: Member) -> None:
        position = max(self._position, Revision(1))
        request = pb.RangeRequest(key=self._prefix or b"\0", limit=1, count_only=True, revision=position)
        try:
            await self._cluster.call_member(member, RANGE, request, timeout_s=TRY_S)
        except AioRpcError as error:
            if is_compacted(error):
                raise compacted(self._position) from error
            if is_beyond(error):
                raise beyond(self._position) from error
            raise

    def _check_alive(self, response: pb.WatchResponse) -> None:
        if response.compact_revision:
            raise compacted(self._position, Revision(response.compact_revision))
        if not response.canceled:
            return
        if "permission denied" in response.cancel_reason:  # etcd says so of a dead token, too
            self._cluster.forget_token(self._token)
            self._denials += 1
            if self._denials >= MOST_DENIALS or self._token is None:
                raise ForbiddenError(f"etcd refused to watch {self._prefix.decode()}", why=response.cancel_reason)
        raise _BrokenError(response.cancel_reason or "it ended the watch")

    def _creation(self) -> pb.WatchCreateRequest:
        return pb.WatchCreateRequest(
            key=self._prefix or b"\0",
            range_end=prefix_end(self._prefix) or b"\0",
            start_revision=self._position + 1,
            progress_notify=True,
            fragment=True,  # else one response may pass every limit on its size
        )

    def _judge(self, member: Member, error: AioRpcError) -> None:
        """Let the stream begin again after an error, elsewhere or with a new token; raise if that can't help."""
        if is_transient(error):
            self._cluster.rotate(member, why=details(error))
        elif is_stale_token(error) and self._denials < MOST_DENIALS:
            self._denials += 1
            self._cluster.forget_token(self._token)
        else:
            raise translated(error, member.endpoint) from error


async def _response(call: _Call) -> pb.WatchResponse:
    response = await call.read()
    if isinstance(response, pb.WatchResponse):
        return response
    raise _BrokenError("it closed the stream")


def _change(event: pb.Event) -> Change:
    kv = event.kv
    key, revision = kv.key.decode(), Revision(kv.mod_revision)
    if event.type == pb.Event.DELETE:
        return Change(key, None, revision)
    return Change(key, Entry(key, kv.value, Revision(kv.create_revision), revision), revision)
