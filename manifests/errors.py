"""What can go wrong, one class for each thing that a caller does differently.

    WherryError            exit  HTTP   the caller should
    ├─ InvalidError          1    422   mend the manifest or the request
    ├─ UsageError            2    400   mend the command
    ├─ NotFoundError         3    404   check the name
    ├─ ConflictError         4    409   read again and redo the edit
    ├─ TimedOutError         5    504   wait longer, or look at what it hangs on
    ├─ UnauthorizedError     1    401   present a token
    ├─ ForbiddenError        1    403   use an identity with the right
    ├─ UnavailableError      1    503   try again: the store, the leader or a daemon is away
    │  └─ StoreFullError     1    507   make room for the store first
    ├─ DriverError           1    502   look at the node's container manager
    └─ CompactedError        1    410   list again, then watch from the list's revision

Code matches on classes, never on messages. `why` and `fix` are for people.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # problems load pydantic, which the command line does without where it can
    from manifests.problems import Problem


class WherryError(Exception):
    """A failure that was foreseen: what failed, why (with numbers), and how to fix it."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def sentence(self) -> str:
        """Return all of it on one line, for a status or a log.

        >>> WherryError("cannot pull image web:1", why="no such host", fix="Check the node's DNS.").sentence()
        "cannot pull image web:1: no such host. Check the node's DNS."
        """
        said = f"{self.what}: {self.why}" if self.why else self.what
        end = "" if not self.fix or said.endswith((".", "!", "?")) else "."
        return " ".join(f"{said}{end} {self.fix}".split())

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}\n{self.fix}" if self.fix else text


class InvalidError(WherryError):
    """What is asked for breaks a rule. `problems` has each fault of a manifest with its place."""

    http_status = 422

    def __init__(self, what: str, *, why: str = "", fix: str = "", problems: "Sequence[Problem]" = ()) -> None:
        super().__init__(what, why=why, fix=fix)
        self.problems = tuple(problems)


class UsageError(WherryError):
    exit_code = 2
    http_status = 400


class NotFoundError(WherryError):
    exit_code = 3
    http_status = 404


class ConflictError(WherryError):
    exit_code = 4
    http_status = 409


class TimedOutError(WherryError):
    exit_code = 5
    http_status = 504


class UnauthorizedError(WherryError):
    http_status = 401


class ForbiddenError(WherryError):
    http_status = 403


class UnavailableError(WherryError):
    http_status = 503


class StoreFullError(UnavailableError):
    """The store has no room for a write, and takes none until somebody makes some."""

    http_status = 507


class DriverError(WherryError):
    http_status = 502


class CompactedError(WherryError):
    http_status = 410


BY_HTTP_STATUS = MappingProxyType(
    {
        kind.http_status: kind
        for kind in (
            *(InvalidError, UsageError, NotFoundError, ConflictError, TimedOutError, UnauthorizedError),
            *(ForbiddenError, UnavailableError, StoreFullError, DriverError, CompactedError),
        )
    }
)  # for clients, which raise again what a server answered with
