"""Shows how a long wait goes: one block that is redrawn on a terminal, a line for each change in a pipe."""

import sys
from collections.abc import Mapping, Sequence

from wherry.cli.text import style_of

Shown = Mapping[str, Sequence[str]]  # subject, such as service/web: its lines, the first of which names it


class Progress:
    """Writes to standard error, so that results stay apart."""

    def __init__(self) -> None:
        self._style = style_of(sys.stderr)
        self._is_live = self._style.width > 0
        self._height = 0
        self._said: dict[str, Sequence[str]] = {}

    def show(self, shown: Shown, footer: str = "") -> None:
        """Show the state of every subject; the footer, such as the time waited, only on a terminal."""
        if self._is_live:
            block = [line for lines in shown.values() for line in lines]
            self._redraw(block, footer)
            return
        for subject, lines in shown.items():
            if self._said.get(subject) != lines:
                self._said[subject] = lines
                print("\n".join(lines), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say something once, above the block."""
        if self._is_live:
            self._redraw([], "")
        print(text, file=sys.stderr, flush=True)

    def _redraw(self, lines: Sequence[str], footer: str) -> None:
        # A line longer than the terminal would wrap, and the next redraw would start too low.
        width = self._style.width - 1
        cut = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
        cut += [self._style.paint(footer[:width], "dim")] if footer else []
        up = f"\x1b[{self._height}A" if self._height else ""
        sys.stderr.write(f"{up}\x1b[J" + "".join(f"{line}\n" for line in cut))
        sys.stderr.flush()
        self._height = len(cut)
