"""What the backend keeps, whatever keeps it: `sqlite.py` and `mongo.py` do."""

from typing import Protocol

from .model import Job, Outcome, Project


class ProjectGone(Exception):
    """There is no such project, or it is being deleted: it takes no files."""


class Repository(Protocol):
    """Projects, the paths of their files, and the outbox.

    Times are seconds since 1970. What is said about a job that is no longer in the outbox changes nothing: somebody
    else was faster.
    """

    async def create(self, project: str) -> bool:
        """Creates a project; False when there is or was one."""

    async def find(self, project: str) -> Project | None:
        """A project, also when it has been deleted."""

    async def track(self, project: str, paths: list[str]) -> None:
        """Writes down where files of a project will be, before they are uploaded there.

        Raises:
            ProjectGone: When it takes none. Then do not upload them.
        """

    async def paths(self, project: str) -> list[str]:
        """All paths of a project, always in the same order."""

    async def delete(self, project: str, job: str, now: float) -> Project | None:
        """Marks a project as being deleted and puts `job` into the outbox, both or neither.

        From here on nothing is lost. It is done to a project that is active or has failed; any other stays as it is.
        None when there is none.
        """

    async def claim(self, now: float, until: float) -> Job | None:
        """Takes the job that has been due for longest, and makes it due again at `until`, for the case of a crash."""

    async def proceed(self, job: str, reference: str | None, due: float) -> None:
        """The job goes on; look at it again at `due`."""

    async def postpone(self, job: str, reason: str, due: float) -> None:
        """It could not be tried; try it again at `due`."""

    async def repeat(self, job: str, deleted: int, successor: str, due: float) -> None:
        """It is over, and has to be done once more at `due`, as another job."""

    async def finish(self, job: str, outcome: Outcome) -> None:
        """It is over, and so is the project; when nothing is left, its paths are forgotten."""

    async def close(self) -> None:
        """Closes the connections."""
