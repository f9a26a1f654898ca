"""What a benchmark says: figures, each with its target and whether it was met, as a table and as JSON.

Every module of bench/ that measures returns these; bench.__main__ shows them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = dict[str, dict[str, dict[str, str | float | bool]]]
COLUMNS = ("figure", "value", "unit", "target", "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `target` is a number, words, or "-" for a figure that is only reported."""

    name: str
    value: float
    unit: str
    target: float | str = "-"
    is_met: bool = True


def at_most(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, value, unit, target, value <= target)


def below(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, value, unit, target, value < target)


def at_least(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, value, unit, target, value >= target)


def reported(name: str, value: float, unit: str) -> Figure:
    """Return a figure without a target of its own, which explains another or is good to know."""
    return Figure(name, value, unit)


def load_average() -> Figure:
    """Return how busy the machine is right now, by whomever: the other figures can't be read without it."""
    return reported("load average", os.getloadavg()[0], "")


def table(figures: Iterable[Figure]) -> str:
    """Return the figures in columns, one a line."""
    rows = [COLUMNS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join(_line(row, widths) for row in rows)


def to_json(figures: Mapping[str, Sequence[Figure]]) -> Json:
    """Return what --json writes: figures by `benchmark: name`."""
    return {
        "figures": {
            f"{benchmark}: {figure.name}": {
                "value": round(figure.value, 4),
                "unit": figure.unit,
                "target": figure.target,
                "met": figure.is_met,
            }
            for benchmark, found in figures.items()
            for figure in found
        }
    }


def _cells(figure: Figure) -> tuple[str, ...]:
    has_target = figure.target != "-"
    target = figure.target if isinstance(figure.target, str) else _number(figure.target)
    verdict = ("met" if figure.is_met else "missed") if has_target else ""
    return (figure.name, _number(figure.value), figure.unit, target, verdict)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, value, unit, target, verdict = row
    cells = (
        name.ljust(widths[0]),
        value.rjust(widths[1]),
        unit.ljust(widths[2]),
        target.rjust(widths[3]),
        verdict,
    )
    return "  ".join(cells).rstrip()


def _number(value: float) -> str:
    """Return the number as people read it: three digits after the point, or none where they mean nothing.

    >>> _number(1234.56), _number(0.98765), _number(3.0), _number(45.678)
    ('1,235', '0.988', '3', '45.7')
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
