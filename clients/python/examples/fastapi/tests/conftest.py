"""What the tests share: each repository, empty, and MongoDB where there is one."""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from secantus import SecantusDBServer

from backend.mongo import MongoRepository
from backend.repository import Repository
from backend.sqlite import SqliteRepository

Reopen = Callable[[], Awaitable[Repository]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    """The MongoDB that the environment names; else what speaks its protocol."""
    url = os.environ.get("MONGO_URL")
    if url:
        yield url
        return
    # A single server, which has no transactions.
    with SecantusDBServer(port=0, storage_path=":memory:", replica_set_name=None) as server:
        yield server.uri


@pytest.fixture(params=["sqlite", "mongo"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Opens one database each time, as a process does that starts."""
    opened: list[Repository] = []
    name = f"projects_backend_{uuid.uuid4().hex}"
    url = request.getfixturevalue("mongo_url") if request.param == "mongo" else ""

    async def open_it() -> Repository:
        if url:
            opened.append(await MongoRepository.open(url, name))
        else:
            opened.append(await SqliteRepository.open(tmp_path / "backend.db"))
        return opened[-1]

    yield open_it
    for repository in opened:
        await repository.close()
    if url:
        async with AsyncMongoClient[dict[str, Any]](url) as client:
            await client.drop_database(name)


@pytest.fixture
async def repository(reopen: Reopen) -> Repository:
    return await reopen()
