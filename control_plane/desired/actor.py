"""Who makes the call that is being handled: set where a call comes in, read where what it desires is written down.

It rides along with the task of the call, so that not every function on the way has to carry it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ACTOR: ContextVar[str] = ContextVar("actor", default="")


def current_actor() -> str:
    """Return who is behind the present call, in words; nothing if it is nobody's."""
    return _ACTOR.get()


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Have all that is written in the block be that actor's."""
    token = _ACTOR.set(actor)
    try:
        yield
    finally:
        _ACTOR.reset(token)
