"""Starts a CronJob by hand: one more job of it, now, which counts as no slot of its schedule."""

import random

from control_plane import cron_views, keys
from control_plane.cron_jobs import NewJob, new_job
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer, StaleError
from control_plane.desired.workloads import read_record
from control_plane.store.protocol import ABSENT, ModifiedAt, Put, Revision
from foundation.clock import Clock
from manifests.errors import InvalidError, NotFoundError
from manifests.workloads import CronJob, WorkloadRecord


class CronRunner:
    def __init__(self, committer: Committer, clock: Clock, rng: random.Random) -> None:
        self._committer, self._store, self._state = committer, committer.store, committer.state
        self._clock, self._rng = clock, rng

    async def run(self, workload: str) -> tuple[Revision, NewJob]:
        """Make a job as the CronJob says now. Raises ConflictError if it forbids what overlaps and one runs."""

        async def run_once() -> tuple[Revision, NewJob]:
            entry = await self._store.get(keys.WORKLOADS + workload)
            if entry is None:
                namespace, kind, name = workload.split("/")
                raise NotFoundError(f"there is no {kind} {name} in namespace {namespace}")
            cron = read_record(workload, entry)
            self._check(cron)
            name = f"{cron.ref.name}-run-{self._rng.getrandbits(24):06x}"
            uid = f"{self._rng.getrandbits(64):016x}"
            now_s = self._clock.wall_s()
            job = new_job(cron, name, uid, number=1, created_s=now_s, changed_by=current_actor())
            version = keys.VERSIONS + keys.version_id(job.id, 1)
            compares = (
                ModifiedAt(keys.WORKLOADS + workload, entry.mod_revision),
                ModifiedAt(keys.WORKLOADS + job.id, ABSENT),
                ModifiedAt(version, ABSENT),
            )
            writes = (Put(keys.WORKLOADS + job.id, job.record.to_bytes()), Put(version, job.version.to_bytes()))
            return await self._committer.commit(compares, writes), job

        return await self._committer.retried(run_once)

    def _check(self, cron: WorkloadRecord) -> None:
        if not isinstance(cron.workload, CronJob):
            raise InvalidError(
                f"{cron.ref} can't be run",
                why=f"it is a {cron.workload.kind}, and only a CronJob is started now and then",
                fix="A Job runs once, when it is applied; a Service and a Daemon run always.",
            )
        running = cron_views.cron(self._state, cron)["active"]
        if running and cron.workload.spec.overlap == "forbid":
            raise StaleError(
                f"{cron.ref} isn't started beside a job of its own",
                why=f"{running[0]} still runs, and its overlap is forbid",
                fix=f"Wait for it, or end it with `wherry delete job {running[0]}`.",
            )
