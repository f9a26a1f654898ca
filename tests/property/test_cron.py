"""Any history of a CronJob: clocks that jump, leaders that change or die before they write, jobs that end and go.

The model stands for the store: what is decided is written whole or not at all. However it goes, no slot is started
twice, they rise, and what is started is the newest slot of its time, within its window.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.controllers.crons import CronSight, OwnedJob, reconcile_cron
from control_plane.controllers.decision import Decision
from control_plane.cron_jobs import job_id, new_job, slot_uid
from manifests.schedules import schedule_of
from manifests.status import WorkloadStatus
from manifests.workloads import CronJobSpec, CronState, WorkloadRecord
from tests.builders import record, workload

BEGIN_S = 1_792_886_400.0  # the day before clocks are set back in Berlin


@dataclass
class World:
    record: WorkloadRecord
    wall_s: float = BEGIN_S
    state: CronState | None = None
    jobs: dict[str, OwnedJob] = field(default_factory=dict)
    started: list[float] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)

    @property
    def spec(self) -> CronJobSpec:
        spec = self.record.workload.spec
        assert isinstance(spec, CronJobSpec)
        return spec

    def decide(self) -> Decision:
        known = {job_id(self.record, name) for name in self.jobs}
        return reconcile_cron(self.record, CronSight(self.state, tuple(self.jobs.values()), known, self.wall_s))

    def one_pass(self, *, is_written: bool = True) -> bool:
        """Decide and write; return whether anything was written. A leader that dies before writes nothing."""
        decision = self.decide()
        if not is_written:
            return False
        if slot := decision.new_slot:
            self._check(slot.slot_s)
            made = new_job(self.record, slot.name, slot_uid(self.record, slot.slot_s), number=1, created_s=self.wall_s)
            assert slot.name not in self.jobs
            self.jobs[slot.name] = OwnedJob(made.record, None)
            self.started.append(slot.slot_s)
            self.uids.append(made.record.uid)
        for cancel in decision.cancels:
            self.end(cancel.job.ref.name, is_failed=True)
        for job in decision.deletes:
            del self.jobs[job.ref.name]
        self.state = decision.cron or self.state
        return bool(decision.new_slot or decision.cron or decision.cancels or decision.deletes)

    def _check(self, slot_s: float) -> None:
        schedule = schedule_of(self.spec.schedule, self.spec.time_zone)
        following = schedule.next_after(slot_s)
        assert slot_s <= self.wall_s <= slot_s + self.spec.start_window_s, "outside of its window"
        assert following is None or following > self.wall_s, "there is a newer slot"
        assert not self.spec.suspend
        if self.spec.overlap == "forbid":
            assert all(job.has_ended for job in self.jobs.values()), "the last one still runs"

    def end(self, name: str, *, is_failed: bool) -> None:
        job = self.jobs[name]
        said = WorkloadStatus(ref=job.record.ref, generation=1, is_complete=True, is_failed=is_failed)
        self.jobs[name] = OwnedJob(job.record, said)

    def change(self, **spec: object) -> None:
        told = self.spec.model_dump(mode="json", exclude_none=True) | spec
        changed = workload("CronJob", "backup", **told)
        self.record = self.record.model_copy(update={"workload": changed})


def happen(world: World, event: tuple[str, int]) -> None:
    name, number = event
    match name:
        case "wait":
            world.wall_s += number * 7.0
        case "sleep":  # nobody leads
            world.wall_s += number * 1800.0
        case "jump":
            world.wall_s += (number - 30) * 120.0  # an hour back or ahead, at most
        case "die":
            world.one_pass(is_written=False)
        case "end" | "fail" if world.jobs:
            world.end(sorted(world.jobs)[number % len(world.jobs)], is_failed=name == "fail")
        case "delete" if world.jobs:
            del world.jobs[sorted(world.jobs)[number % len(world.jobs)]]
        case "suspend":
            world.change(suspend=bool(number % 2))
        case "change":
            world.change(schedule=("* * * * *", "*/10 * * * *", "30 2 * * *")[number % 3])


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "wait", "wait", "sleep", "jump", "die", "end", "fail", "delete", "suspend", "change"]),
        st.integers(0, 60),
    ),
    max_size=40,
)


@given(
    EVENTS,
    st.sampled_from(["forbid", "allow", "replace"]),
    st.sampled_from(["1s", "1m", "5m", "2h"]),
    st.sampled_from(["* * * * *", "*/10 * * * *", "0 * * * *", "30 2 * * *"]),
    st.integers(0, 2),
)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_no_slot_is_started_twice(
    events: list[tuple[str, int]], overlap: str, window: str, schedule: str, kept: int
) -> None:
    of = record(
        "CronJob",
        name="backup",
        schedule=schedule,
        timeZone="Europe/Berlin",
        overlap=overlap,
        startWindow=window,
        keepSucceeded=kept,
        keepFailed=kept,
    )
    world = World(of.model_copy(update={"created_s": BEGIN_S}))
    for event in events:
        happen(world, event)
        world.one_pass()
        started = len(world.started)
        world.one_pass()  # what was cancelled may be more than is kept
        assert not world.one_pass(), "deciding again at one instant does more"
        assert len(world.started) == started
    assert world.started == sorted(set(world.started))
    assert len(set(world.uids)) == len(world.uids)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_a_clock_that_only_goes_ahead_slowly_starts_every_slot(steps: list[int]) -> None:
    of = record("CronJob", name="backup", schedule="*/5 * * * *", overlap="allow", startWindow="5m")
    world = World(of.model_copy(update={"created_s": BEGIN_S}))
    for step in steps:
        world.wall_s += step
        world.one_pass()
    due = schedule_of("*/5 * * * *", "UTC").first(1000, BEGIN_S)
    assert world.started == [slot for slot in due if slot <= world.wall_s]
