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
