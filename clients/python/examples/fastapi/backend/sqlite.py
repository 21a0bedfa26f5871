"""The repository in a file of SQLite's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiosqlite

from .model import Job, Outcome, Project, State
from .repository import ProjectGone

SCHEMA = """
PRAGMA journal_mode = WAL;
-- What is committed is on the disk: not even a power failure takes it back.
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS projects (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    reason TEXT
);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_of_project ON files (project, path);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL UNIQUE REFERENCES projects,
    reference TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_by_due ON outbox (due);
"""


class SqliteRepository:
    """See `Repository`. The outbox is a table, written by the transaction that marks the project."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        # A connection has one transaction at a time.
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Opens the file, and makes it when there is none."""
        connection = await aiosqlite.connect(path, timeout=10, isolation_level=None)
        await connection.executescript(SCHEMA)
        return cls(connection)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._lock:
            await self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                await self._connection.execute("COMMIT")
            except BaseException:
                await self._connection.execute("ROLLBACK")
                raise

    async def create(self, project: str) -> bool:
        """See `Repository`."""
        async with self._transaction() as db:
            cursor = await db.execute(
                "INSERT INTO projects (id, state) VALUES (?, ?) ON CONFLICT DO NOTHING", (project, State.ACTIVE)
            )
            return cursor.rowcount == 1

    async def find(self, project: str) -> Project | None:
        """See `Repository`."""
        async with self._transaction() as db:
            return await _find(db, project)

    async def track(self, project: str, paths: list[str]) -> None:
        """See `Repository`."""
        async with self._transaction() as db:
            found = await _find(db, project)
            if found is None or found.state != State.ACTIVE:
                raise ProjectGone
            await db.executemany(
                "INSERT INTO files (path, project) VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(path, project) for path in paths],
            )

    async def paths(self, project: str) -> list[str]:
        """See `Repository`."""
        async with self._transaction() as db:
            rows = await db.execute_fetchall("SELECT path FROM files WHERE project = ? ORDER BY path", (project,))
            return [row[0] for row in rows]

    async def delete(self, project: str, job: str, now: float) -> Project | None:
        """See `Repository`."""
        async with self._transaction() as db:
            cursor = await db.execute(
                "UPDATE projects SET state = ?, reason = NULL WHERE id = ? AND state IN (?, ?)",
                (State.DELETING, project, State.ACTIVE, State.FAILED),
            )
            if cursor.rowcount == 1:
                await db.execute("INSERT INTO outbox (id, project, due) VALUES (?, ?, ?)", (job, project, now))
            return await _find(db, project)

    async def claim(self, now: float, until: float) -> Job | None:
        """See `Repository`."""
        async with self._transaction() as db:
            rows = await db.execute_fetchall(
                "UPDATE outbox SET due = ?, tries = tries + 1"
                " WHERE id = (SELECT id FROM outbox WHERE due <= ? ORDER BY due LIMIT 1)"
                " RETURNING id, project, reference, tries",
                (until, now),
            )
            return next((Job(*row) for row in rows), None)

    async def proceed(self, job: str, reference: str | None, due: float) -> None:
        """See `Repository`."""
        async with self._transaction() as db:
            await _explain(db, job, None)
            await db.execute("UPDATE outbox SET reference = ?, tries = 0, due = ? WHERE id = ?", (reference, due, job))

    async def postpone(self, job: str, reason: str, due: float) -> None:
        """See `Repository`."""
        async with self._transaction() as db:
            await _explain(db, job, reason)
            await db.execute("UPDATE outbox SET due = ? WHERE id = ?", (due, job))

    async def repeat(self, job: str, deleted: int, successor: str, due: float) -> None:
        """See `Repository`."""
        async with self._transaction() as db:
            await db.execute(
                "UPDATE projects SET deleted = deleted + ? WHERE id = (SELECT project FROM outbox WHERE id = ?)",
                (deleted, job),
            )
            await db.execute(
                "UPDATE outbox SET id = ?, reference = NULL, tries = 0, due = ? WHERE id = ?", (successor, due, job)
            )

    async def finish(self, job: str, outcome: Outcome) -> None:
        """See `Repository`."""
        state = State.DELETED if outcome.reason is None else State.FAILED
        async with self._transaction() as db:
            rows = await db.execute_fetchall("DELETE FROM outbox WHERE id = ? RETURNING project", (job,))
            for (project,) in rows:
                await db.execute(
                    "UPDATE projects SET state = ?, deleted = deleted + ?, reason = ? WHERE id = ?",
                    (state, outcome.deleted, outcome.reason, project),
                )
                if state == State.DELETED:
                    await db.execute("DELETE FROM files WHERE project = ?", (project,))

    async def close(self) -> None:
        """See `Repository`."""
        await self._connection.close()


async def _find(db: aiosqlite.Connection, project: str) -> Project | None:
    rows = await db.execute_fetchall(
        "SELECT id, state, (SELECT count(*) FROM files WHERE project = id), deleted, reason FROM projects WHERE id = ?",
        (project,),
    )
    return next((Project(name, State(state), *rest) for name, state, *rest in rows), None)


async def _explain(db: aiosqlite.Connection, job: str, reason: str | None) -> None:
    await db.execute(
        "UPDATE projects SET reason = ? WHERE id = (SELECT project FROM outbox WHERE id = ?)", (reason, job)
    )
