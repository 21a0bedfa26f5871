"""Wherever the process dies, every file of a deleted project goes, and it is one deletion."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from r2_deletion_queue import AsyncClient, Retry
from r2_deletion_queue.testing import FakeServer

from backend.executors.worker import WorkerExecutor
from backend.model import State
from backend.relay import Relay
from backend.repository import Repository
from conftest import Reopen

pytestmark = pytest.mark.anyio

TRACKED = ["projects/42/a", "proj_42_b"]
NEIGHBOURS = {"projects/421/a", "proj_4_2"}


# What a deletion takes of the repository and of the service; each step has two sides.
STEPS = ("delete", "claim", "paths", "POST", "proceed", "claim", "GET", "proceed", "claim", "GET", "finish")


class Crash(BaseException):
    """The process dies here."""


class Fuse:
    """Lets the process die at one step, counted from the start: before it or behind it."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.steps: list[str] = []

    @property
    def has_blown(self) -> bool:
        return self._left < 0

    async def over(self, name: str, step: Callable[[], Awaitable[Any]]) -> Any:
        """Takes a step of the outside world, which is taken whether or not anybody learns of it."""
        self.steps.append(name)
        self._tick()
        result = await step()
        self._tick()
        return result

    def _tick(self) -> None:
        self._left -= 1
        if self._left == -1:
            raise Crash


class Fused:
    """A repository with a fuse."""

    def __init__(self, repository: Repository, fuse: Fuse) -> None:
        self._repository = repository
        self._fuse = fuse

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._repository, name)
        return lambda *arguments: self._fuse.over(name, lambda: call(*arguments))


class FusedTransport(httpx.AsyncBaseTransport):
    """The network with a fuse."""

    def __init__(self, server: FakeServer, fuse: Fuse) -> None:
        self._server = server
        self._fuse = fuse

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async def answer() -> httpx.Response:
            await request.aread()
            return self._server.handle(request)

        response: httpx.Response = await self._fuse.over(request.method, answer)
        return response


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


async def life(repository: Repository, server: FakeServer, fuse: Fuse, clock: Clock) -> None:
    """What a process does: takes the request again, which nobody was told is accepted, and works on the outbox."""
    fused: Any = Fused(repository, fuse)
    transport = FusedTransport(server, fuse)
    async with AsyncClient(server.url, server.token, transport=transport, retry=Retry(total=0)) as client:
        relay = Relay(fused, WorkerExecutor(client), lease=30.0, poll=5.0, now=clock)
        if (await repository.find("42") or pytest.fail("no project")).state == State.ACTIVE:
            await fused.delete("42", f"job-{clock.time}", clock.time)
        for _ in range(20):
            await relay.step()
            clock.time += 5.0


async def crash_at(step: int, reopen: Reopen) -> Fuse:
    """Lets the process die at this side of a step, and another one go on."""
    server = FakeServer(
        objects=[*TRACKED, "projects/42/untracked", *NEIGHBOURS], project_templates=("projects/{id}/", "proj_{id}_")
    )
    repository, clock, fuse = await reopen(), Clock(), Fuse(step)
    if not await repository.create("42"):
        pytest.fail("the database is not empty")
    await repository.track("42", TRACKED)
    try:
        await life(repository, server, fuse, clock)
    except Crash:
        clock.time += 30.0
        await life(await reopen(), server, Fuse(1_000_000), clock)
    found = await repository.find("42")
    assert found is not None
    assert (found.state, found.files, found.deleted) == (State.DELETED, 0, 3)
    assert server.objects == NEIGHBOURS
    with server.client() as client:
        assert len(list(client.list())) == 1
    return fuse


@pytest.mark.parametrize("step", range(2 * len(STEPS)))
async def test_a_process_that_dies_at_any_step_loses_nothing(step: int, reopen: Reopen) -> None:
    assert (await crash_at(step, reopen)).has_blown


async def test_these_are_all_steps(reopen: Reopen) -> None:
    fuse = await crash_at(1_000_000, reopen)
    assert tuple(fuse.steps[: len(STEPS)]) == STEPS
    assert set(fuse.steps[len(STEPS) :]) == {"claim"}
