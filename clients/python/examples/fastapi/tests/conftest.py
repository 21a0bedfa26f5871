"""What the tests share: each repository, empty, and MongoDB where there is one."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from backend.mongo import MongoRepository
from backend.repository import Repository
from backend.sqlite import SqliteRepository

Reopen = Callable[[], Awaitable[Repository]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The MongoDB that the environment names; else what speaks its protocol."""
    url = os.environ.get("MONGO_URL")
    if url:
        yield url
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A single server, which has no transactions.
    command = [sys.executable, "-m", "secantus", "--standalone", "--port", str(port), "--storage-path", "data"]
    folder = tmp_path_factory.mktemp("secantus")
    with subprocess.Popen(command, cwd=folder, stdout=DEVNULL, stderr=DEVNULL) as server:
        try:
            _wait_until_it_answers(server, port)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            server.kill()


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("SecantusDB has not started")


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
