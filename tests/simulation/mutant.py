"""What a planted defect is: something small that is wrong for as long as a block runs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from unittest.mock import patch

Defect: TypeAlias = Callable[[ExitStack], None]


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    what: str
    plant: Defect
    only: tuple[str, ...] = ()  # the kinds of fault that bring it out; none: any

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            self.plant(stack)
            yield


def swap(stack: ExitStack, where: Any, name: str, new: Any) -> Any:
    """Put something else in its place, and return what was there."""
    old = getattr(where, name)
    stack.enter_context(patch.object(where, name, new))
    return old
