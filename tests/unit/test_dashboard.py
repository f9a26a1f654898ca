"""The live page keeps to the policy that it is served with: its own three files, and data never as markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import control_plane

FOLDER = Path(control_plane.__file__).parent / "dashboard"
HTML, SCRIPT, STYLE = ((FOLDER / name).read_text() for name in ("index.html", "app.js", "style.css"))


class Attributes(HTMLParser):
    """Collects the attributes of a page's elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs]


def attributes() -> list[tuple[str, str, str]]:
    parser = Attributes()
    parser.feed(HTML)
    return parser.found


def test_the_page_asks_for_nothing_but_its_own_files() -> None:
    asked = {value for _, name, value in attributes() if name in ("src", "href", "action", "data")}
    assert asked == {"style.css", "app.js"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", STYLE)
    assert not re.search(r"https?:|import\(|WebSocket|EventSource", SCRIPT)


def test_the_page_has_no_inline_scripts_or_styles() -> None:
    assert not [a for a in attributes() if a[1] == "style" or a[1].startswith("on")]
    assert "<style" not in HTML
    assert re.findall(r"<script[^>]*>([^<]*)</script>", HTML) == [""]


WAYS = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "new Function",
    "cssText",
    "DOMParser",
)


@pytest.mark.parametrize("way", WAYS)
def test_data_never_become_markup_or_code(way: str) -> None:
    assert way not in SCRIPT


def test_every_element_that_the_script_looks_for_is_in_the_page() -> None:
    there = {value for _, name, value in attributes() if name == "id"}
    assert set(re.findall(r"\$\('([^']+)'\)", SCRIPT)) <= there


def test_the_token_stays_out_of_what_outlives_the_tab() -> None:
    assert "localStorage" not in SCRIPT
    assert "cookie" not in SCRIPT


def luminance(color: str) -> float:
    """Return the relative luminance of #rrggbb, as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("tone", ["good", "busy", "warn", "bad", "quiet"])
def test_words_in_each_tone_can_be_read_on_their_tint_and_so_can_plain_ones(theme: int, tone: str) -> None:
    ink, color, tint = (re.findall(rf"--{name}: (#\w{{6}});", STYLE)[theme] for name in ("ink", tone, f"{tone}-tint"))
    assert contrast(color, tint) >= 4.5
    assert contrast(ink, tint) >= 4.5
