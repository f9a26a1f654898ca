"""When schedules are due: fields, short forms, time zones, and the days on which clocks change."""

import re
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.documents import read_document
from manifests.schedules import schedule_of, zone_of


def at(text: str) -> float:
    """Return the instant of a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def slots(schedule: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next slots as local times with their offsets."""
    known = schedule_of(schedule, zone)
    found = islice(known.slots_after(at(after)), count)
    return [datetime.fromtimestamp(s, known.zone).strftime("%m-%d %H:%M %z") for s in found]


@pytest.mark.parametrize(
    ("schedule", "first"),
    [
        ("15 2 * * *", "11-25 02:15 +0000"),
        ("*/20 * * * *", "11-24 22:20 +0000"),
        ("0 8-18/2 * * mon-fri", "11-25 08:00 +0000"),
        ("30 4 1,15 * *", "12-01 04:30 +0000"),
        ("0 0 * jan sun", "01-03 00:00 +0000"),
        ("@hourly", "11-24 23:00 +0000"),
        ("@Daily", "11-25 00:00 +0000"),
        ("@weekly", "11-29 00:00 +0000"),
        ("@monthly", "12-01 00:00 +0000"),
        ("@yearly", "01-01 00:00 +0000"),
        ("0 12 L * *", "11-30 12:00 +0000"),
    ],
)
def test_a_schedule_is_due_when_it_says(schedule: str, first: str) -> None:
    assert slots(schedule, "UTC", "2026-11-24 22:15", 1) == [first]


def test_a_slot_itself_is_not_after_itself() -> None:
    assert slots("15 22 * * *", "UTC", "2026-11-24 22:15", 1) == ["11-25 22:15 +0000"]
    assert slots("15 22 * * *", "UTC", "2026-11-24 22:14:59.5", 1) == ["11-24 22:15 +0000"]


def test_a_zone_says_which_hour_is_meant() -> None:
    assert slots("0 9 * * *", "Asia/Tokyo", "2026-11-24 22:15", 1) == ["11-25 09:00 +0900"]
    assert schedule_of("0 9 * * *", "Asia/Tokyo").next_after(at("2026-11-24 22:15")) == at("2026-11-25 00:00")


def test_what_falls_into_the_hour_skipped_in_spring_is_due_right_after_it() -> None:
    found = slots("30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", 2)
    assert found == ["03-29 03:00 +0200", "03-30 02:30 +0200"]


def test_two_slots_of_the_skipped_hour_are_one() -> None:
    assert slots("10,40 2 * * *", "Europe/Berlin", "2026-03-28 12:00", 2) == ["03-29 03:00 +0200", "03-30 02:10 +0200"]


def test_what_falls_into_the_hour_that_comes_twice_in_autumn_is_due_once() -> None:
    found = slots("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", 2)
    assert found == ["10-25 02:30 +0200", "10-26 02:30 +0100"]


def test_nothing_comes_back_when_one_looks_during_the_second_of_the_two_hours() -> None:
    during = "2026-10-25 01:10"  # 02:10 +0100, the hour's second coming
    assert slots("30 2 * * *", "Europe/Berlin", during, 1) == ["10-26 02:30 +0100"]


def test_what_comes_each_hour_just_goes_on_when_clocks_change() -> None:
    assert slots("0 * * * *", "Europe/Berlin", "2026-03-28 23:30", 3) == [
        "03-29 01:00 +0100",
        "03-29 03:00 +0200",
        "03-29 04:00 +0200",
    ]
    assert slots("0 * * * *", "Europe/Berlin", "2026-10-24 23:30", 3) == [
        "10-25 02:00 +0200",
        "10-25 02:00 +0100",
        "10-25 03:00 +0100",
    ]


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "10,50 1-3 * * *", "0 */2 * * *", "@daily", "15 2 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]),
    st.floats(at("2026-01-01"), at("2027-01-01")),
    st.floats(0, 3 * 86_400),
)
def test_slots_rise_and_the_newest_one_is_the_last_of_them(text: str, zone: str, after_s: float, back_s: float) -> None:
    schedule = schedule_of(text, zone)
    found = list(islice(schedule.slots_after(after_s), 5))
    assert found == sorted(set(found))
    assert all(s > after_s for s in found)
    assert all(schedule.next_after(s - 0.5) == s for s in found)
    assert schedule.newest_until(found[-1], after_s=after_s - back_s) == found[-1]
    assert schedule.newest_until(found[0] - 1, after_s=after_s) is None


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("99 * * * *", "'99' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day-of-month"),
        ("* * * FOO *", "'FOO' is no month"),
        ("* * * * 8", "'8' is no day-of-week"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("9-1 * * * *", "'9-1' is no minute"),
        ("1,,2 * * * *", "'1,,2' is no minute"),
        ("\N{ARABIC-INDIC DIGIT THREE} * * * *", "is no minute"),
        ("* * * *", "has 4 fields instead of 5"),
        ("0 0 * * * *", "has 6 fields instead of 5"),
        ("", "has 0 fields instead of 5"),
        ("0 0 31 2 *", "never comes"),
        ("@reboot", "the short forms are @hourly"),
        ("1," * 200 + "1 * * * *", "the most is 200"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said(schedule: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        schedule_of(schedule, "UTC")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlyn", "europe/berlin", "../etc/passwd", "/etc/passwd", "Europe", "", "x" * 5000]
)
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="is no time zone"):
        zone_of(zone)


def test_the_nearest_zone_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean Europe/Berlin"):
        zone_of("Europe/Berlyn")


def test_a_manifest_is_told_where_its_schedule_is_wrong() -> None:
    spec = {"image": "a", "schedule": "61 * * * *", "timeZone": "Mars/Olympus"}
    document = {"apiVersion": "wherry/v1", "kind": "CronJob", "metadata": {"name": "b" * 50}, "spec": spec}
    faults = read_document(document)
    assert isinstance(faults, list)
    assert {fault.path for fault in faults} == {("spec", "schedule"), ("spec", "timeZone")}
    spec.update(schedule="@daily", timeZone="UTC")
    faults = read_document(document)
    assert isinstance(faults, list)
    assert [fault.path for fault in faults] == [("metadata", "name")]
    assert "the most is 49" in faults[0].message
