"""What etcd's errors mean: which are worth another try, and what the rest is to a caller of the store.

Some of etcd's meanings are only in the text of an error; those texts are matched here and nowhere else.
"""

import grpc
from grpc.aio import AioRpcError

from manifests.errors import (
    ForbiddenError,
    InvalidError,
    StoreFullError,
    UnauthorizedError,
    UnavailableError,
    WherryError,
)

# The outcome of a write that fails with one of these is unknown: the request may be on its way to the leader yet.
TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)


def is_transient(error: AioRpcError) -> bool:
    """Say whether another try, on another member, may do better."""
    return error.code() in TRANSIENT or "too many requests" in details(error)


def is_stale_token(error: AioRpcError) -> bool:
    """Say whether a new token helps: tokens die when unused, when etcd restarts, and when a user or role changes."""
    return error.code() == grpc.StatusCode.UNAUTHENTICATED or "revision of auth store is old" in details(error)


def is_compacted(error: AioRpcError) -> bool:
    return error.code() == grpc.StatusCode.OUT_OF_RANGE and "compacted" in details(error)


def is_beyond(error: AioRpcError) -> bool:
    return error.code() == grpc.StatusCode.OUT_OF_RANGE and "future" in details(error)


def is_lease_missing(error: AioRpcError) -> bool:
    return error.code() == grpc.StatusCode.NOT_FOUND and "lease" in details(error)


def is_reply_too_large(error: AioRpcError) -> bool:
    """Say whether our own end refused a reply."""
    return error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details(error)


def details(error: AioRpcError) -> str:
    return error.details() or ""


def translated(error: AioRpcError, endpoint: str) -> WherryError:
    """Return what an error that isn't worth another try means to a caller."""
    what, why = f"etcd at {endpoint} refused a request", details(error)
    if error.code() == grpc.StatusCode.PERMISSION_DENIED:
        return ForbiddenError(what, why=why, fix="Grant the user a role for /wherry/ and wherry-commits/.")
    if error.code() == grpc.StatusCode.UNAUTHENTICATED or "authentication failed" in why:
        return UnauthorizedError(what, why=why, fix="Check the user and the password.")
    if "database space exceeded" in why:
        return StoreFullError(
            "nothing can be changed: etcd is full",
            why=f"etcd at {endpoint} has raised its NOSPACE alarm ({why})",
            fix="Run `etcdctl defrag` for each member and then `etcdctl alarm disarm`; if that doesn't last, raise "
            "--quota-backend-bytes. What runs goes on running meanwhile.",
        )
    if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidError(what, why=why)
    return UnavailableError(what, why=why or error.code().name)
