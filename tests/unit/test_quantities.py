"""Quantities: what they mean, and what is said of those that mean nothing."""

import doctest

import pytest

from manifests import constraints, problems, quantities
from manifests.quantities import parse_bytes, parse_cpu, parse_duration, render_bytes, render_cpu, render_duration


@pytest.mark.parametrize("module", [quantities, constraints, problems])
def test_the_examples_in_the_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]  # modules have no narrower common type here


@pytest.mark.parametrize(
    ("text", "millicores"), [("1m", 1), ("250m", 250), ("0.25", 250), (2, 2000), (1.5, 1500), ("1.5", 1500)]
)
def test_cpu_is_counted_in_millicores(text: object, millicores: int) -> None:
    assert parse_cpu(text) == millicores


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1), (4096, 4096), ("64Mi", 64 * 2**20), ("1G", 10**9), ("1.5Gi", 3 * 2**29), ("1k", 1000), ("2Ti", 2**41)],
)
def test_memory_is_counted_in_bytes(text: object, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (0, 0), ("2d", 172_800), ("0s", 0)],
)
def test_durations_are_counted_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "'fast' is not a cpu amount: write for example 250m or 1.5"),
        ("1Mi", "'Mi' is no unit of cpu"),
        (0, "too small: the least is 1m"),
        ("0.0015", "finer than 1m"),
        ("-1", "is not a cpu amount"),
        (True, "is not a cpu amount"),
        (None, "is not a cpu amount"),
        ("1" * 5000, "…' is not a cpu amount"),
        ("٣", "is not a cpu amount"),
        ("1e3", "no exponent"),
    ],
)
def test_what_is_no_cpu_amount_is_refused(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("64MB", "did you mean 64M?"),
        ("64mib", "did you mean 64Mi?"),
        ("1.5", "it isn't a whole number of bytes"),
        ("999999999999999999P", "too large"),
        ("64 Mi", "is not an amount of memory"),
    ],
)
def test_what_is_no_amount_of_memory_is_refused(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")) as caught:
        parse_bytes(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", "did you mean 10s?"),
        (10, "did you mean 10s?"),
        ("10 s", "is not a duration"),
        ("", "is not a duration"),
        ("1h1", "is not a duration"),
        ("0.1ms", "the finest is 1ms"),
        ("36501d", "the most is 36500d"),
        (False, "is not a duration"),
    ],
)
def test_what_is_no_duration_is_refused(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        parse_duration(text)


def test_rendering_gives_the_shortest_text() -> None:
    assert (render_cpu(1000), render_cpu(1001)) == ("1", "1001m")
    assert (render_bytes(2**20), render_bytes(2**20 + 1), render_bytes(2000)) == ("1Mi", "1048577", "2k")
    assert (render_duration(86_400), render_duration(3661.001)) == ("1d", "1h1m1s1ms")
