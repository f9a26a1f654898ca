"""Text for terminals: cleaned of escapes, coloured when somebody looks, aligned in tables, ages in short.

Pure but for asking whether a stream is a terminal. What comes from the cluster may hold anything: clean it first.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple, TextIO

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]", re.S
)
_COLOURS = {
    "green": "32",
    "yellow": "33",
    "red": "31",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}
_GAP = "  "
_COLOUR_OF_WORD = (
    dict.fromkeys(("ready", "healthy", "running", "scheduled", "complete", "succeeded"), "green")
    | dict.fromkeys(("progressing", "pending", "pulling", "starting", "stopping", "cordoned", "draining"), "yellow")
    | dict.fromkeys(("paused", "reverted", "troubled"), "yellow")
    | dict.fromkeys(("blocked", "degraded", "backoff", "waiting", "suspended", "crashLoop", "suspect"), "yellow")
    | dict.fromkeys(("lost", "failed", "unhealthy", "unknown"), "red")
    | dict.fromkeys(("drained", "stopped", "deleted"), "dim")
)


class Style(NamedTuple):
    """How a stream is written to: with colours or not, and how wide it is (0: no end)."""

    has_colour: bool = False
    width: int = 0

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.has_colour and text.strip() else text

    def word(self, text: str) -> str:
        """Return a state, a phase or a health in its colour; `text` may be padded."""
        colour = _COLOUR_OF_WORD.get(text.strip())
        return self.paint(text, colour) if colour else text


_PLAIN = Style()


def style_of(stream: TextIO) -> Style:
    """Return the style for a stream: plain and endless unless it is a terminal. NO_COLOR is honoured."""
    if not stream.isatty():
        return Style()
    try:
        width = os.get_terminal_size(stream.fileno()).columns or 80  # 0: a terminal that doesn't know
    except (OSError, ValueError):
        width = 80
    has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(has_colour, width)


def clean(value: object) -> str:
    """Return the value as one line without escapes, control characters and such as reorder text.

    >>> clean("a\\x1b[31mred\\x1b[0m\\nb")
    'ared b'
    """
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    text = " ".join(_ESCAPE.sub("", text).split())
    return "".join(c for c in text if c.isprintable())


def clean_deep(value: object) -> object:
    """Return JSON values with every text in them cleaned, line breaks kept."""
    if isinstance(value, str):
        return "\n".join(clean(line) for line in value.split("\n"))
    if isinstance(value, dict):
        return {clean(key): clean_deep(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_deep(item) for item in value]
    return value


class Table:
    """Rows under headings, each column as wide as its widest cell. Later rows keep to the widths of the first.

    `least` are widths of columns by heading, for rows that are yet to come.
    """

    def __init__(
        self, headings: Sequence[str], style: Style, *, is_cut: bool = True, least: Mapping[str, int] | None = None
    ) -> None:
        self._headings = list(headings)
        self._style = style
        self._is_cut = is_cut and style.width > 0
        self._widths = [max(len(heading), (least or {}).get(heading, 0)) for heading in headings]

    def render(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the heading line and a line for each row."""
        if rows and not any(row[-1] for row in rows):
            self._headings[-1] = ""  # e.g. no item has a message
        self._fit(rows)
        return [self._line(self._headings, is_heading=True), *self.render_rows(rows)]

    def render_rows(self, rows: Sequence[Sequence[str]]) -> list[str]:
        self._fit(rows)
        return [self._line(row) for row in rows]

    def _fit(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row, strict=True)]

    def _line(self, cells: Sequence[str], *, is_heading: bool = False) -> str:
        last = max((i for i, cell in enumerate(cells) if cell), default=0)
        padded = [c.ljust(w) if i < last else c for i, (c, w) in enumerate(zip(cells, self._widths, strict=True))]
        padded = padded[: last + 1]
        if self._is_cut:
            padded = _cut(padded, self._style.width)
        painted = [self._style.paint(c, "bold") if is_heading else self._style.word(c) for c in padded]
        return _GAP.join(painted).rstrip()


def _cut(cells: list[str], width: int) -> list[str]:
    """Shorten the last cell, so that the line fits; the others are names and numbers, which must stay whole."""
    room = width - sum(len(cell) + len(_GAP) for cell in cells[:-1])
    if len(cells[-1]) <= room or room < 8:
        return cells
    return [*cells[:-1], cells[-1][: room - 1] + "…"]


def age(timestamp: object, now_s: float) -> str:
    """Return how long ago an RFC 3339 time was, in its two largest units; "-" if there is none.

    >>> age("1970-01-01T00:00:00.000Z", 90), age("1970-01-01T00:00:00Z", 90000), age(None, 0)
    ('1m30s', '1d1h', '-')
    """
    if not timestamp:
        return "-"
    try:
        then_s = datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        return "?"
    return span(now_s - then_s)


def until(timestamp: object, now_s: float) -> str:
    """Return how far away an RFC 3339 time is, `in 8s`; "" if there is none."""
    try:
        return f"in {span(datetime.fromisoformat(str(timestamp)).timestamp() - now_s)}" if timestamp else ""
    except ValueError:
        return "?"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units; one from ten minutes, hours or days on.

    >>> span(5), span(65), span(3600), span(3 * 86400 + 3600), span(40 * 86400), span(-3)
    ('5s', '1m5s', '1h', '3d1h', '40d', '0s')
    """
    rest = max(int(seconds), 0)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if rest >= size:
            whole, part = rest // size, rest % size // smaller
            return f"{whole}{unit}" if whole >= 10 or not part else f"{whole}{unit}{part}{small_unit}"
    return f"{rest}s"


_LABEL_WIDTH = 14


def fields(style: Style = _PLAIN, **values: object) -> list[str]:
    """Return a line for each field that has a value, names aligned, and a state in its colour."""
    shown = [(name.replace("_", " "), str(value)) for name, value in values.items() if value not in (None, "")]
    width = max([_LABEL_WIDTH, *(len(name) for name, _ in shown)])
    return [f"  {name.ljust(width)} {style.word(clean(value))}" for name, value in shown]


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 node", "2 nodes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def say(text: str) -> None:
    """Print a line for people, which is no result, on standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def if_stopped(sentence: str) -> Iterator[None]:
    """Say, should the user stop waiting meanwhile, what becomes of it without them."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Stopped waiting. {sentence}")
        raise
