"""The old way, first attempt: wrangler's command line, as in a container."""

import asyncio
from asyncio.subprocess import DEVNULL

from backend.model import Job, Outcome, Progress


class WranglerExecutor:
    """Runs `wrangler r2 object delete` once for each path.

    - A process of Node.js for each key: a second or two each, one after the other.
    - wrangler cannot list a bucket, so what nobody tracked stays, and nobody is told.
    - Without `--remote` it deletes from a simulation on the own disk, and says that it has deleted: the default since
      wrangler 4, and how files were lost track of.
    - It succeeds whether or not there was such an object, and says only whether, not why, it failed.
    - Killed, it begins again with the first path.
    - The path is an argument, which other processes on the machine can read.
    """

    def __init__(self, command: list[str], bucket: str, arguments: list[str]) -> None:
        self._command = command
        self._bucket = bucket
        self._arguments = arguments

    async def start(self, job: Job, paths: list[str]) -> Progress:  # noqa: ARG002 - it knows paths, not projects
        """See `Executor`."""
        failed = [path for path in paths if not await self._delete(path)]
        reason = f"{len(failed)} wrangler_failed" if failed else None
        return Progress(outcome=Outcome(len(paths) - len(failed), reason=reason))

    async def look(self, reference: str) -> Progress:  # noqa: ARG002 - there is nothing that went on
        """See `Executor`."""
        return Progress()

    async def _delete(self, path: str) -> bool:
        arguments = ["r2", "object", "delete", f"{self._bucket}/{path}", *self._arguments]
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
