"""Taints keep allocations off a node; tolerations let them on. Pure, and without pydantic.

A taint is written `key=value:effect` or `key:effect`, a toleration `key` (whatever the value) or `key=value`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,126}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.:]{0,126}[A-Za-z0-9])?)?"
_TAINT = re.compile(rf"({_KEY})(?:=({_VALUE}))?:([A-Za-z]+)")
_TOLERATION = re.compile(rf"({_KEY})(?:=({_VALUE}))?")


class Effect(StrEnum):
    NO_SCHEDULE = "noSchedule"  # nothing new comes; what runs there stays
    NO_EXECUTE = "noExecute"  # and what runs there is moved away


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str
    value: str | None  # None: whatever the value

    def tolerates(self, taint: Taint) -> bool:
        return self.key == taint.key and self.value in (None, taint.value)

    def __str__(self) -> str:
        return self.key if self.value is None else f"{self.key}={self.value}"


def untolerated(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> Iterator[Taint]:
    """Yield the taints that none of the tolerations tolerates."""
    return (t for t in taints if not any(toleration.tolerates(t) for toleration in tolerations))


def parse_taint(text: str) -> Taint:
    """Return the taint.

    >>> parse_taint("gpu=a100:noSchedule")
    Taint(key='gpu', value='a100', effect=<Effect.NO_SCHEDULE: 'noSchedule'>)
    """
    match = _TAINT.fullmatch(text)
    effect = next((e for e in Effect if match and e.lower() == match[3].lower()), None)
    if match is None or effect is None:
        raise ValueError(f"'{text[:80]}' is not a taint: write KEY=VALUE:noSchedule or KEY:noExecute")
    return Taint(match[1], match[2] or "", effect)


def parse_taint_name(text: str) -> tuple[str, Effect | None]:
    """Return the key, and the effect if one is named, of taints to be removed.

    >>> parse_taint_name("gpu"), parse_taint_name("gpu:noExecute")
    (('gpu', None), ('gpu', <Effect.NO_EXECUTE: 'noExecute'>))
    """
    key, _, effect = text.partition(":")
    known = next((e for e in Effect if e.lower() == effect.lower()), None)
    if not re.fullmatch(_KEY, key) or (effect and known is None):
        raise ValueError(f"'{text[:80]}' names no taint: write KEY, or KEY:noSchedule or KEY:noExecute for one effect")
    return key, known


def parse_toleration(text: str) -> Toleration:
    """Return the toleration.

    >>> parse_toleration("gpu").tolerates(parse_taint("gpu=a100:noSchedule"))
    True
    """
    match = _TOLERATION.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:80]}' is not a toleration: write KEY or KEY=VALUE, as the taint has them")
    return Toleration(match[1], match[2])
