"""Takes jobs out of the outbox and sees them through."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable

from r2_deletion_queue import ApiError

from .executors import Executor
from .model import Job, Progress
from .repository import Repository

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""How often the outbox is looked at for what other processes put there."""
RETRY_SECONDS_MAX = 300.0
REPEAT_SECONDS = 60.0
"""How long after a deletion the project is looked at again, when files were uploaded meanwhile."""


class Relay:
    """Carries jobs from the outbox to the executor, as often as it takes.

    The request that deletes a project only writes the job down. Wherever this process is killed afterwards, the job is
    in the outbox until its end has been written down: it becomes due again, and the executor is asked for the same
    once more, which is the same deletion.

    Args:
        repository: Has the outbox.
        executor: Deletes.
        lease: After so many seconds a job counts as abandoned by the process that took it.
        poll: How many seconds until a deletion is looked at, if its end was not told before.
        now: The time.
    """

    def __init__(
        self,
        repository: Repository,
        executor: Executor,
        *,
        lease: float = 30.0,
        poll: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._executor = executor
        self._lease = lease
        self._poll = poll
        self.now = now
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            self._woken.clear()
            try:
                while await self.step():
                    pass
            except Exception:
                log.exception("the outbox cannot be read")
            try:
                await asyncio.wait_for(self._woken.wait(), IDLE_SECONDS)
            except TimeoutError:
                continue

    def wake(self) -> None:
        """Says that something was put into the outbox."""
        self._woken.set()

    async def step(self) -> bool:
        """Does what is due first; False when nothing is."""
        job = await self._repository.claim(self.now(), self.now() + self._lease)
        if job is None:
            return False
        try:
            progress = await self._advance(job)
        except Exception as error:  # noqa: BLE001 - whatever it was, it may pass
            # An exception's text can have a path in it.
            reason = error.code if isinstance(error, ApiError) else type(error).__name__
            pause = min(2.0 ** (job.tries - 1), RETRY_SECONDS_MAX)
            log.warning("job %s of project %s: %s, again in %.0f s", job.id, job.project, reason, pause)
            await self._repository.postpone(job.id, reason, self.now() + pause)
            return True
        await self.settle(job.id, progress)
        return True

    async def settle(self, job: str, progress: Progress) -> None:
        """Writes down how far a job is, as it was found or told. Doing it twice is as good as once."""
        outcome = progress.outcome
        if outcome is None:
            due = self.now() + (0.0 if progress.reference is None else self._poll)
            await self._repository.proceed(job, progress.reference, due)
        elif outcome.reason is None and not outcome.is_whole:
            # Uploads that were under way: nothing new can begin, so they become fewer.
            await self._repository.repeat(job, outcome.deleted, uuid.uuid4().hex, self.now() + REPEAT_SECONDS)
        else:
            await self._repository.finish(job, outcome)

    async def _advance(self, job: Job) -> Progress:
        if job.reference is not None:
            return await self._executor.look(job.reference)
        return await self._executor.start(job, await self._repository.paths(job.project))
