"""Makes the Job of a CronJob's slot, or one asked for by hand: an ordinary Job with an owner, and its version. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

from control_plane import keys
from manifests.base import Metadata
from manifests.workloads import CronJob, CronJobSpec, Job, JobSpec, Kind, VersionRecord, WorkloadRecord

_OF_THE_CRON_ALONE = set(CronJobSpec.model_fields) - set(JobSpec.model_fields)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that isn't there yet, and its first version."""

    record: WorkloadRecord
    version: VersionRecord

    @property
    def id(self) -> str:
        return keys.id_of_ref(self.record.ref)


def slot_name(cron: str, slot_s: float) -> str:
    """Return the name of a slot's job, by the slot's time in UTC.

    >>> slot_name("backup", 1795558500.0)
    'backup-20261124-2215'
    """
    return f"{cron}-{datetime.fromtimestamp(slot_s, UTC):%Y%m%d-%H%M}"


def slot_uid(cron: WorkloadRecord, slot_s: float) -> str:
    """Return the uid of a slot's job: the same whoever makes it, and another in another life of the CronJob."""
    return blake2b(f"{cron.uid}/{slot_s:.0f}".encode(), digest_size=8).hexdigest()


def new_job(
    cron: WorkloadRecord, name: str, uid: str, *, number: int, created_s: float, changed_by: str = ""
) -> NewJob:
    """Return the job as the CronJob describes it now. `number` is that of its version."""
    assert isinstance(cron.workload, CronJob)
    meta = cron.workload.metadata
    spec = cron.workload.spec.model_dump(mode="json", exclude=_OF_THE_CRON_ALONE, exclude_none=True)
    job = Job(
        api_version="wherry/v1",
        kind="Job",
        metadata=Metadata(name=name, namespace=meta.namespace, labels=meta.labels),
        spec=JobSpec.model_validate(spec),
    )
    record = WorkloadRecord(
        uid=uid,
        version=number,
        generation=1,
        created_s=created_s,
        workload=job,
        owner=cron.ref,
        changed_by=changed_by,
    )
    version = VersionRecord(uid=uid, version=number, created_s=created_s, workload=job, changed_by=changed_by)
    return NewJob(record, version)


def job_id(cron: WorkloadRecord, name: str) -> str:
    return keys.workload_id(cron.ref.namespace, Kind.JOB, name)
