"""What a CronJob's reconciler decides, case by case, at times that the tests choose."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.controllers.crons import CronSight, OwnedJob, reconcile_cron
from control_plane.controllers.decision import Decision, NewSlot
from control_plane.cron_jobs import new_job
from manifests.status import WorkloadStatus
from manifests.workloads import CronState, WorkloadRecord
from tests.builders import record


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-11-24 {text}").replace(tzinfo=UTC).timestamp()


def cron(*, created: str = "00:00", **spec: Any) -> WorkloadRecord:
    made = record("CronJob", name="backup", **{"schedule": "15 * * * *", **spec})
    return made.model_copy(update={"created_s": at(created)})


def job(of: WorkloadRecord, name: str, *, outcome: str = "running", created: str = "00:00") -> OwnedJob:
    made = new_job(of, name, f"uid-{name}", number=1, created_s=at(created)).record
    if outcome == "running":
        return OwnedJob(made, None)
    said = WorkloadStatus(ref=made.ref, generation=1, is_complete=True, is_failed=outcome == "failed")
    return OwnedJob(made, said)


def decide(
    of: WorkloadRecord,
    now: str,
    *,
    state: CronState | None = None,
    jobs: Sequence[OwnedJob] = (),
    known: Sequence[str] = (),
) -> Decision:
    return reconcile_cron(of, CronSight(state, jobs, frozenset(known), at(now)))


def handled(of: WorkloadRecord, until: str, **changes: object) -> CronState:
    """Return the state of a CronJob that was looked after until then."""
    state = CronState(uid=of.uid, schedule="15 * * * *", time_zone="UTC", handled_s=at(until))
    return state.model_copy(update=changes)


def test_a_slot_whose_time_has_come_gets_a_job_and_is_handled() -> None:
    backup = cron()
    decision = decide(backup, "22:15", state=handled(backup, "21:15"))
    assert decision.new_slot == NewSlot("backup-20261124-2215", at("22:15"))
    assert decision.cron is not None
    assert (decision.cron.handled_s, decision.cron.last_job) == (at("22:15"), "backup-20261124-2215")


def test_before_its_time_nothing_is_written_and_a_timer_waits_for_it() -> None:
    backup = cron()
    decision = decide(backup, "22:14:50", state=handled(backup, "21:15"))
    assert decision == Decision(again_after_s=10.0)


def test_the_timer_is_never_longer_than_half_a_minute_so_that_a_jump_of_the_clock_is_noticed() -> None:
    backup = cron()
    assert decide(backup, "21:30", state=handled(backup, "21:15")).again_after_s == 30.0


def test_a_handled_slot_is_not_started_again() -> None:
    backup = cron()
    for now in ("22:15", "22:16", "22:19:59"):
        assert decide(backup, now, state=handled(backup, "22:15")).new_slot is None


def test_of_the_slots_that_were_missed_only_the_newest_is_started() -> None:
    backup = cron(startWindow="2h")
    decision = decide(backup, "22:20", state=handled(backup, "12:15"))
    assert decision.new_slot == NewSlot("backup-20261124-2215", at("22:15"))


def test_a_slot_that_was_missed_by_more_than_its_window_is_skipped_without_a_write() -> None:
    backup = cron(startWindow="5m")
    assert decide(backup, "22:20", state=handled(backup, "12:15")).new_slot is None
    late = decide(backup, "22:19:59", state=handled(backup, "12:15"))
    assert late.new_slot is not None
    assert decide(backup, "22:20:01", state=handled(backup, "12:15")).cron is None


def test_what_was_due_before_the_cron_job_was_made_is_not() -> None:
    backup = cron(created="22:16")
    decision = decide(backup, "22:17")
    assert decision.new_slot is None
    assert decision.cron is not None
    assert decision.cron.handled_s == at("22:16")


def test_a_changed_schedule_counts_from_the_change() -> None:
    backup = cron(schedule="*/2 * * * *", startWindow="1h")
    first = decide(backup, "22:15", state=handled(backup, "21:15"))
    assert first.new_slot is None
    assert first.cron is not None
    assert (first.cron.schedule, first.cron.handled_s) == ("*/2 * * * *", at("22:15"))
    assert decide(backup, "22:16", state=first.cron).new_slot == NewSlot("backup-20261124-2216", at("22:16"))


def test_a_schedule_that_is_changed_while_the_clock_is_set_back_starts_nothing_again() -> None:
    backup = cron(schedule="*/5 * * * *")
    changed = decide(backup, "21:20", state=handled(backup, "22:15"))
    assert changed.cron is not None
    assert changed.cron.handled_s == at("22:15")
    assert decide(backup, "22:15", state=changed.cron).new_slot is None


def test_a_clock_that_is_set_back_starts_nothing_again_and_the_message_says_so() -> None:
    backup = cron()
    state = handled(backup, "22:15")
    back = decide(backup, "21:20", state=state)
    assert (back.new_slot, back.cron) == (None, None)
    assert "the clock was set back" in back.messages[0]
    assert decide(backup, "23:15", state=state).new_slot == NewSlot("backup-20261124-2315", at("23:15"))


def test_a_clock_that_jumps_ahead_and_back_costs_no_slot_that_was_not_in_its_window() -> None:
    backup = cron()
    state = handled(backup, "21:15")
    assert decide(backup, "22:50", state=state).cron is None  # it is 21:50
    assert decide(backup, "22:15", state=state).new_slot is not None


def test_a_suspended_one_starts_nothing_and_says_so_and_catches_up_at_most_once() -> None:
    suspended, resumed = cron(suspend=True, startWindow="3h"), cron(startWindow="3h")
    state = handled(resumed, "18:15")
    decision = decide(suspended, "22:15", state=state)
    assert (decision.new_slot, decision.cron) == (None, None)
    assert "suspended" in decision.messages[0]
    caught_up = decide(resumed, "22:20", state=state)
    assert caught_up.new_slot == NewSlot("backup-20261124-2215", at("22:15"))
    assert decide(resumed, "22:20", state=caught_up.cron).new_slot is None


def test_forbid_waits_for_the_running_job_within_the_window() -> None:
    backup = cron(overlap="forbid")
    state, running = handled(backup, "21:15"), job(backup, "backup-20261124-2115")
    waiting = decide(backup, "22:15", state=state, jobs=[running])
    assert (waiting.new_slot, waiting.cron) == (None, None)
    assert "waits for backup-20261124-2115" in waiting.messages[0]
    over = job(backup, "backup-20261124-2115", outcome="complete")
    assert decide(backup, "22:18", state=state, jobs=[over]).new_slot == NewSlot("backup-20261124-2215", at("22:15"))
    assert decide(backup, "22:21", state=state, jobs=[over]).new_slot is None


def test_forbid_looks_again_when_the_window_ends() -> None:
    backup = cron(overlap="forbid", startWindow="10s")
    running = job(backup, "backup-20261124-2115")
    assert decide(backup, "22:15:04", state=handled(backup, "21:15"), jobs=[running]).again_after_s == 6.0


def test_allow_starts_beside_the_running_job() -> None:
    backup = cron(overlap="allow")
    running = job(backup, "backup-20261124-2115")
    decision = decide(backup, "22:15", state=handled(backup, "21:15"), jobs=[running])
    assert decision.new_slot is not None
    assert decision.cancels == ()


def test_replace_cancels_the_running_job() -> None:
    backup = cron(overlap="replace")
    running = job(backup, "backup-20261124-2115")
    decision = decide(backup, "22:15", state=handled(backup, "21:15"), jobs=[running])
    assert decision.new_slot is not None
    assert [(c.job.ref.name, c.reason) for c in decision.cancels] == [
        ("backup-20261124-2115", "replaced by backup-20261124-2215")
    ]


def test_the_newest_of_its_ended_jobs_are_kept() -> None:
    backup = cron(keepSucceeded=2, keepFailed=1)
    good = [job(backup, f"good-{n}", outcome="complete", created=f"0{n}:00") for n in range(5)]
    bad = [job(backup, f"bad-{n}", outcome="failed", created=f"0{n}:30") for n in range(3)]
    running = [job(backup, "running", created="00:10")]
    decision = decide(backup, "21:30", state=handled(backup, "21:15"), jobs=[*good, *bad, *running])
    assert sorted(j.ref.name for j in decision.deletes) == ["bad-0", "bad-1", "good-0", "good-1", "good-2"]


def test_jobs_of_an_earlier_cron_job_of_the_name_go() -> None:
    backup = cron()
    other = backup.model_copy(update={"uid": "an earlier life"})
    decision = decide(backup, "21:30", state=handled(backup, "21:15"), jobs=[job(other, "old"), job(backup, "mine")])
    assert [j.ref.name for j in decision.deletes] == ["old"]


def test_a_state_of_an_earlier_life_counts_for_nothing() -> None:
    backup = cron(created="22:00")
    decision = decide(backup, "22:15", state=handled(backup, "23:15", uid="an earlier life"))
    assert decision.new_slot is not None


def test_a_state_that_cannot_be_read_counts_from_now() -> None:
    backup = cron()
    sight = CronSight(None, (), frozenset(), at("22:16"), is_state_unreadable=True)
    decision = reconcile_cron(backup, sight)
    assert decision.new_slot is None
    assert decision.cron is not None
    assert decision.cron.handled_s == at("22:16")


def test_somebody_else_s_job_of_that_name_stays_and_the_slot_has_passed() -> None:
    backup = cron()
    decision = decide(backup, "22:15", state=handled(backup, "21:15"), known=["default/job/backup-20261124-2215"])
    assert decision.new_slot is None
    assert decision.cron is not None
    assert decision.cron.handled_s == at("22:15")


@pytest.mark.parametrize("overlap", ["forbid", "allow", "replace"])
def test_deciding_twice_at_one_instant_starts_one_job(overlap: str) -> None:
    backup = cron(overlap=overlap)
    first = decide(backup, "22:15", state=handled(backup, "21:15"))
    assert first.new_slot is not None
    second = decide(backup, "22:15", state=first.cron, jobs=[job(backup, first.new_slot.name)])
    assert (second.new_slot, second.cron, second.cancels, second.deletes) == (None, None, (), ())


def test_the_job_is_the_cron_job_s_own_without_its_schedule() -> None:
    backup = cron(completions=3, parallelism=2, retries=5, timeout="1m", env={"A": "1"})
    made = new_job(backup, "backup-20261124-2215", "u", number=1, created_s=0.0)
    spec = made.record.workload.spec.model_dump(mode="json")
    assert (spec["completions"], spec["parallelism"], spec["retries"], spec["timeout"]) == (3, 2, 5, "1m")
    assert "schedule" not in spec
    assert made.record.owner == backup.ref
    assert made.version.workload == made.record.workload
