"""The repository in MongoDB."""

from collections.abc import Mapping
from typing import Any, Self

from pymongo import ASCENDING, AsyncMongoClient, ReturnDocument, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from .model import Job, Outcome, Project, State
from .repository import ProjectGone

Document = Mapping[str, Any]


class MongoRepository:
    """See `Repository`.

    The outbox's entry is a field of the project's own document, so that one update writes both or neither. A
    transaction over two collections would need a replica set; this works on a single server, too.

        projects  {_id: "42", state: "deleting", deleted: 0, reason: null, outbox: {id, reference, tries, due}}
        files     {_id: "projects/42/a.jpg", project: "42"}

    A path has a document of its own, because a document holds 16 MB and a project any number of paths.
    """

    def __init__(self, client: AsyncMongoClient[dict[str, Any]], database: AsyncDatabase[dict[str, Any]]) -> None:
        self._client = client
        self._projects = database["projects"]
        self._files = database["files"]

    @classmethod
    async def open(cls, url: str, database: str | None = None) -> Self:
        """Opens `database`, else the one that `url` names, else `projects_backend`."""
        # Journalled, and by a majority where there is one: what is written survives the loss of a server.
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, w="majority", journal=True)
        named = client.get_default_database("projects_backend") if database is None else client[database]
        repository = cls(client, named)
        await repository._projects.create_index([("outbox.due", ASCENDING)], sparse=True)
        await repository._projects.create_index([("outbox.id", ASCENDING)], sparse=True)
        await repository._files.create_index([("project", ASCENDING), ("_id", ASCENDING)])
        return repository

    async def create(self, project: str) -> bool:
        """See `Repository`."""
        try:
            await self._projects.insert_one({"_id": project, "state": State.ACTIVE, "deleted": 0, "reason": None})
        except DuplicateKeyError:
            return False
        return True

    async def find(self, project: str) -> Project | None:
        """See `Repository`."""
        found = await self._projects.find_one({"_id": project})
        return None if found is None else await self._project(found)

    async def track(self, project: str, paths: list[str]) -> None:
        """See `Repository`.

        Written first, looked at afterwards: a deletion that the look does not see has not read the paths yet either.
        """
        if not await self._takes_files(project):
            raise ProjectGone
        change = {"$setOnInsert": {"project": project}}
        await self._files.bulk_write([UpdateOne({"_id": path}, change, upsert=True) for path in paths], ordered=False)
        if not await self._takes_files(project):
            # Nothing is uploaded there. The relay may have read it meanwhile, which does no harm.
            await self._files.delete_many({"_id": {"$in": paths}, "project": project})
            raise ProjectGone

    async def paths(self, project: str) -> list[str]:
        """See `Repository`."""
        return [file["_id"] async for file in self._files.find({"project": project}).sort("_id", ASCENDING)]

    async def delete(self, project: str, job: str, now: float) -> Project | None:
        """See `Repository`."""
        await self._projects.update_one(
            {"_id": project, "state": {"$in": [State.ACTIVE, State.FAILED]}},
            {"$set": {"state": State.DELETING, "reason": None, "outbox": _entry(job, now)}},
        )
        return await self.find(project)

    async def claim(self, now: float, until: float) -> Job | None:
        """See `Repository`."""
        found = await self._projects.find_one_and_update(
            {"outbox.due": {"$lte": now}},
            {"$set": {"outbox.due": until}, "$inc": {"outbox.tries": 1}},
            sort=[("outbox.due", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        if found is None:
            return None
        entry = found["outbox"]
        return Job(entry["id"], found["_id"], entry["reference"], entry["tries"])

    async def proceed(self, job: str, reference: str | None, due: float) -> None:
        """See `Repository`."""
        changes = {"reason": None, "outbox.reference": reference, "outbox.tries": 0, "outbox.due": due}
        await self._projects.update_one({"outbox.id": job}, {"$set": changes})

    async def postpone(self, job: str, reason: str, due: float) -> None:
        """See `Repository`."""
        await self._projects.update_one({"outbox.id": job}, {"$set": {"reason": reason, "outbox.due": due}})

    async def repeat(self, job: str, deleted: int, successor: str, due: float) -> None:
        """See `Repository`."""
        change = {"$set": {"outbox": _entry(successor, due)}, "$inc": {"deleted": deleted}}
        await self._projects.update_one({"outbox.id": job}, change)

    async def finish(self, job: str, outcome: Outcome) -> None:
        """See `Repository`.

        The paths go first: a crash behind that leaves the job in the outbox, which then finishes once more.
        """
        found = await self._projects.find_one({"outbox.id": job})
        if found is None:
            return
        if outcome.reason is None:
            await self._files.delete_many({"project": found["_id"]})
        state = State.DELETED if outcome.reason is None else State.FAILED
        change = {
            "$set": {"state": state, "reason": outcome.reason},
            "$inc": {"deleted": outcome.deleted},
            "$unset": {"outbox": ""},
        }
        await self._projects.update_one({"outbox.id": job}, change)

    async def close(self) -> None:
        """See `Repository`."""
        await self._client.close()

    async def _takes_files(self, project: str) -> bool:
        return await self._projects.find_one({"_id": project, "state": State.ACTIVE}) is not None

    async def _project(self, found: Document) -> Project:
        files = await self._files.count_documents({"project": found["_id"]})
        return Project(found["_id"], State(found["state"]), files, found["deleted"], found["reason"])


def _entry(job: str, due: float) -> dict[str, Any]:
    return {"id": job, "reference": None, "tries": 0, "due": due}
