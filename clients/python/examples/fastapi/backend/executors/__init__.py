"""What deletes files: `worker.py`, or one of the old ways, `s3.py` and `wrangler.py`."""

from typing import Protocol

from backend.model import Job, Progress


class Executor(Protocol):
    """Deletes the files of a project.

    Every call may be made again, after a crash or while another process makes it: the same job is the same deletion.
    """

    async def start(self, job: Job, paths: list[str]) -> Progress:
        """Has the files of `job.project` deleted: those at `paths`, and as far as it can those that nobody tracked."""

    async def look(self, reference: str) -> Progress:
        """How far it is. Without a reference in the answer it is to be started anew."""
