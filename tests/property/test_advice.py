"""What advice may never do, whatever was seen: starve, contradict itself, or lower on too little."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.advice import (
    LEAST_SAMPLES,
    LEAST_SEEN_S,
    Advice,
    Seen,
    Sizes,
    advise,
    merged,
)

MIB = 2**20
SHARES = st.one_of(st.none(), st.floats(0, 1))


@st.composite
def sizes(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """Draw a reservation and a limit that holds it."""
    reserved = Sizes(draw(st.integers(10, 8000)), draw(st.integers(6, 4096)) * MIB, draw(st.integers(1, 5000)))
    more = draw(st.tuples(st.integers(0, 8000), st.integers(0, 4096), st.integers(0, 100)))
    limit = Sizes(reserved.cpu_m + more[0], reserved.memory_bytes + more[1] * MIB, reserved.pids + more[2])
    return reserved, limit


@st.composite
def lives(draw: st.DrawFn, limit: Sizes) -> Seen:
    """Draw what can have been seen under a limit of memory and pids."""
    used = draw(st.integers(0, limit.memory_bytes))
    periods = draw(st.integers(0, 10_000))
    mean = draw(st.one_of(st.none(), st.floats(0, 10_000)))
    return Seen(
        seen_s=draw(st.sampled_from([0.0, 60.0, LEAST_SEEN_S, 86_400.0])),
        samples=draw(st.sampled_from([1, LEAST_SAMPLES, 10_000])),
        cpu_mean_m=mean,
        cpu_peak_m=None if mean is None else mean * draw(st.floats(1, 5)),
        memory_peak_bytes=draw(st.integers(0, used)),
        memory_used_peak_bytes=draw(st.sampled_from([None, used])),
        pids_peak=draw(st.integers(0, limit.pids)),
        periods=periods,
        throttled_periods=draw(st.integers(0, periods)),
        oom_kills=draw(st.integers(0, 3)),
        cpu_pressure=draw(SHARES),
        memory_pressure=draw(SHARES),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Seen, Sizes, Sizes]:
    reserved, limit = draw(sizes())
    return draw(lives(limit)), reserved, limit


def fields(size: Sizes) -> tuple[int, int, int]:
    return size.cpu_m, size.memory_bytes, size.pids


@given(cases())
def test_a_limit_is_never_below_its_reservation(case: tuple[Seen, Sizes, Sizes]) -> None:
    advice = advise(*case)
    assert all(most >= least for most, least in zip(fields(advice.limit), fields(advice.reserved), strict=True))


@given(cases())
def test_memory_stays_above_every_peak(case: tuple[Seen, Sizes, Sizes]) -> None:
    seen, _, limit = case
    advice = advise(*case)
    assert advice.reserved.memory_bytes >= seen.memory_peak_bytes
    if advice.limit.memory_bytes < limit.memory_bytes:
        assert seen.memory_used_peak_bytes is not None
        assert advice.limit.memory_bytes > max(seen.memory_used_peak_bytes, seen.memory_peak_bytes)
        assert not seen.oom_kills


@given(cases())
def test_nothing_is_lowered_before_enough_was_seen(case: tuple[Seen, Sizes, Sizes]) -> None:
    seen, _, _ = case
    advice = advise(*case)
    is_short = seen.seen_s < LEAST_SEEN_S or seen.samples < LEAST_SAMPLES or seen.cpu_mean_m is None
    assert bool(advice.missing) is is_short
    if is_short:
        assert all(finding.is_raise for finding in advice.findings)


@given(cases())
def test_findings_are_just_what_changes(case: tuple[Seen, Sizes, Sizes]) -> None:
    _, reserved, limit = case
    advice = advise(*case)
    changed = sum(a != b for a, b in zip(fields(reserved), fields(advice.reserved), strict=True))
    changed += sum(a != b for a, b in zip(fields(limit), fields(advice.limit), strict=True))
    assert len(advice.findings) == changed
    assert all(finding.before != finding.after and finding.why for finding in advice.findings)


@given(cases())
def test_once_followed_there_is_nothing_more_to_advise(case: tuple[Seen, Sizes, Sizes]) -> None:
    seen, _, _ = case
    first = advise(*case)
    # What hurt has ended with it: that is what the limits were raised for.
    healed = replace(seen, oom_kills=0, throttled_periods=0, memory_pressure=0.0)
    again = advise(healed, first.reserved, first.limit)
    assert [f for f in again.findings if f.of == "reservation"] == []
    assert [f for f in again.findings if f.is_raise] == []


@given(cases(), st.data())
def test_one_more_replica_never_makes_memory_tighter(case: tuple[Seen, Sizes, Sizes], data: st.DataObject) -> None:
    seen, reserved, limit = case
    other = data.draw(lives(limit))
    same = replace(other, seen_s=seen.seen_s, samples=seen.samples, cpu_mean_m=seen.cpu_mean_m)
    alone, both = advise(seen, reserved, limit), advise(merged([seen, same]), reserved, limit)
    assert both.reserved.memory_bytes >= alone.reserved.memory_bytes
    assert merged([seen, same]) == merged([same, seen])


def whole(**changes: object) -> Seen:
    plain = Seen(86_400.0, 8640, 50.0, 120.0, 50 * MIB, 52 * MIB, 5, 1000, 0, 0, 0.0, 0.0)
    return replace(plain, **changes)  # type: ignore[arg-type]  # the names are those of Seen


SMALL, LARGE = Sizes(100, 64 * MIB, 100), Sizes(1000, 512 * MIB, 100)


def said(advice: Advice) -> set[tuple[str, str, bool]]:
    return {(f.resource, f.of, f.is_raise) for f in advice.findings}


def test_what_fits_is_left_as_it_is() -> None:
    assert advise(whole(), replace(SMALL, cpu_m=70), SMALL).findings == ()


def test_what_was_killed_gets_more_memory_at_once() -> None:
    advice = advise(whole(oom_kills=2, seen_s=30.0, samples=3), SMALL, SMALL)
    assert said(advice) == {("memory", "limit", True)}
    assert advice.limit.memory_bytes == 96 * MIB
    assert "killed 2 times" in advice.findings[0].why


def test_what_was_throttled_gets_a_higher_limit() -> None:
    advice = advise(whole(throttled_periods=400), replace(SMALL, cpu_m=70), SMALL)
    assert said(advice) == {("cpu", "limit", True)}
    assert advice.limit.cpu_m == 180


def test_what_lies_idle_is_given_back() -> None:
    advice = advise(whole(), LARGE, LARGE)
    assert said(advice) == {
        ("memory", "reservation", False),
        ("memory", "limit", False),
        ("cpu", "reservation", False),
    }
    assert (advice.reserved.memory_bytes, advice.limit.memory_bytes) == (60 * MIB, 76 * MIB)
    assert (advice.reserved.cpu_m, advice.limit.cpu_m) == (70, 1000)  # a limit of cpu costs nobody anything


def test_what_waits_for_others_on_its_node_does_not_reserve_less() -> None:
    tight = replace(LARGE, memory_bytes=64 * MIB)
    advice = advise(whole(cpu_pressure=0.5), tight, tight)
    assert advice.findings == ()


def test_many_processes_need_a_higher_limit() -> None:
    advice = advise(whole(pids_peak=95), replace(SMALL, cpu_m=70), SMALL)
    assert (said(advice), advice.limit.pids) == ({("pids", "limit", True)}, 150)
