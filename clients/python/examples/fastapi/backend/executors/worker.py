"""Deletes by r2-deletion-queue: asks once, and is told when it is over."""

import hashlib
import json

from r2_deletion_queue import AsyncClient, Deletion, NotFound, State

from backend.model import Job, Outcome, Progress

# What one request takes is 100,000 keys and 16 MB; beside a project there can be only one.
NAMED_MAX = 100_000
NAMED_BYTES_MAX = 15_000_000

JOB_LABEL = "job"


class WorkerExecutor:
    """Names the files that are tracked, and the project, so that what nobody tracked is found as well.

    The service does what the other two leave to this process: it goes on when this process dies, tries again for hours,
    leaves alone what is uploaded meanwhile, and says of each key what became of it.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def start(self, job: Job, paths: list[str]) -> Progress:
        """See `Executor`."""
        named = _named(paths)
        deletion = await self._client.create(
            named,
            project=job.project,
            labels={"project": job.project, JOB_LABEL: job.id},
            verify=True,
            idempotency_key=_idempotency_key(job, named),
        )
        return progress_of(deletion)

    async def look(self, reference: str) -> Progress:
        """See `Executor`."""
        try:
            return progress_of(await self._client.get(reference))
        except NotFound:
            # Its ledger is another one, or has forgotten it: deleting what is gone does no harm.
            return Progress()


def progress_of(deletion: Deletion) -> Progress:
    """What a deletion, as it was read or told, means for its job."""
    if not deletion.is_final:
        return Progress(deletion.id)
    deleted = deletion.counts.deleted
    if deletion.state == State.SUCCEEDED:
        seen = deletion.verification
        left = deletion.counts.skipped + (0 if seen is None else seen.objects_left + seen.uploaded_since)
        return Progress(deletion.id, Outcome(deleted, is_whole=left == 0))
    codes = ", ".join(f"{error.count} {error.code}" for error in deletion.errors)
    return Progress(deletion.id, Outcome(deleted, reason=codes or deletion.state))


def _named(paths: list[str]) -> list[str]:
    """As many as one request takes. All of them are in the project's places, where the service finds the others."""
    named, size = [], 0
    for path in paths[:NAMED_MAX]:
        size += len(json.dumps(path)) + 2
        if size > NAMED_BYTES_MAX:
            break
        named.append(path)
    return named


def _idempotency_key(job: Job, named: list[str]) -> str:
    """The same whenever the same is asked for, however often the process dies in between.

    The service refuses a key with another request than its first one, so the paths are in it: with MongoDB they can be
    others after a crash, when somebody was told that the project is gone while their path was being written down.
    """
    digest = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return f"{job.id}-{digest[:32]}"
