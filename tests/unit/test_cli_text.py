"""Text for terminals: nothing from the cluster can drive the reader's terminal, and columns line up."""

from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.tables import View, memory
from wherry.cli.text import Style, Table, age, clean, clean_deep, span

from .api_stub import allocation, workload


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)


def test_escapes_are_taken_out_whole() -> None:
    assert clean("a\x1b[31mred\x1b[0m") == "ared"
    assert clean("x\x1b]52;c;ZXZpbA==\x07y") == "xy"
    assert clean("pay \u202eload") == "pay load"
    assert clean_deep({"a": ["b\x1b[2J\nc"]}) == {"a": ["b\nc"]}


def test_columns_line_up_and_the_last_one_is_not_padded() -> None:
    lines = Table(["NAME", "STATE", "MESSAGE"], Style()).render([["web", "healthy", ""], ["longer", "lost", "gone"]])
    assert lines == ["NAME    STATE    MESSAGE", "web     healthy", "longer  lost     gone"]


def test_a_message_column_without_messages_has_no_heading() -> None:
    assert Table(["NAME", "MESSAGE"], Style()).render([["web", ""]]) == ["NAME", "web"]


def test_only_the_last_column_is_cut_to_the_terminal() -> None:
    lines = Table(["NAME", "MESSAGE"], Style(width=20)).render([["web", "a very long message indeed"]])
    assert lines[1] == "web   a very long m…"
    assert all(len(line) <= 20 for line in lines)


def test_colours_only_where_wanted() -> None:
    assert "\x1b" not in Table(["S"], Style()).render([["lost"]])[1]
    assert Table(["S"], Style(has_colour=True)).render([["lost"]])[1] == "\x1b[31mlost\x1b[0m"


def test_ages_are_short() -> None:
    assert age("2026-01-01T00:00:00.000Z", 1767225600 + 3700) == "1h1m"
    assert age("nonsense", 0) == "?"
    assert [span(s) for s in (0, 59, 60, 3599, 864000)] == ["0s", "59s", "1m", "59m", "10d"]


def test_memory_is_readable_and_zero_stays_zero() -> None:
    assert [memory(a) for a in ("0", "64Mi", "8218304Ki", "1500M", "?")] == ["0", "64Mi", "7.84Gi", "1.4Gi", "?"]


def test_a_blocked_service_says_why_in_its_row() -> None:
    blocked = workload("web", state="blocked", blocked=[{"sentence": "2 can't be placed: there are no nodes"}])
    view = View("services", is_wide=False, has_namespace=True, now_s=0)
    row = dict(zip(view.headings(), view.row(blocked), strict=True))
    assert row["NAMESPACE"] == "default"
    assert (row["READY"], row["STATE"], row["MESSAGE"]) == ("2/2", "blocked", "2 can't be placed: there are no nodes")


def test_an_allocation_in_trouble_says_how_it_ended() -> None:
    ending = {"attempt": 2, "exitCode": 137, "reason": "oomKilled", "message": "raise resources.memory"}
    view = View("allocations", is_wide=False, has_namespace=False, now_s=0)
    assert view.row(allocation("web-0-1", phase="backoff", lastEnding=ending))[-1] == (
        "attempt 2 ended: oomKilled (137): raise resources.memory"
    )
    assert view.row(allocation("web-0-1", lastEnding=ending))[-1] == ""
