"""Requests and answers, and the ports by which they are exchanged: all I/O of the clients is here."""

from __future__ import annotations

import asyncio
import platform
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TypeVar

import httpx

from ._errors import ConnectionFailed, InvalidResponse, TimedOut

T = TypeVar("T")

try:
    __version__ = version("r2-deletion-queue")
except PackageNotFoundError:  # A copy of the source that was not installed.
    __version__ = "0"
USER_AGENT = f"r2-deletion-queue-python/{__version__} python/{platform.python_version()} httpx/{httpx.__version__}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be sent, as often as it takes."""

    method: str
    path: str
    # A query may have labels, headers have the token, and a body has keys.
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


class Port(Protocol):
    """What the decisions need of the world."""

    async def send(self, request: Request) -> Response:
        """Sends a request once. Raises `ConnectionFailed` without an answer."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""

    def draw(self) -> float:
        """A random number, from 0 to 1."""


class _Clock:
    def now(self) -> float:
        return time.monotonic()

    def draw(self) -> float:
        return random.random()  # noqa: S311 - it spreads load, and guards nothing


class SyncPort(_Clock):
    """Blocks, and so never suspends: what awaits it can be driven by `run`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    async def send(self, request: Request) -> Response:
        try:
            return _response(self._client.request(**_arguments(request)))
        except httpx.HTTPError as error:
            raise _failure(request, error) from error

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - it blocks on purpose


class AsyncPort(_Clock):
    """Suspends in asyncio."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def send(self, request: Request) -> Response:
        try:
            return _response(await self._client.request(**_arguments(request)))
        except httpx.HTTPError as error:
            raise _failure(request, error) from error

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Carries through what awaits nothing but a `SyncPort`, here and now and without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError("something that suspends was awaited by a synchronous client")


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.query) or None,
        "headers": dict(request.headers),
        "content": request.body,
        # Neither the environment nor another host is to have a say in who gets the token.
        "auth": None,
        "follow_redirects": False,
    }


def _response(response: httpx.Response) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, response.content)


def _failure(request: Request, error: httpx.HTTPError) -> ConnectionFailed | InvalidResponse:
    said = f"{request.method} {request.path}: {type(error).__name__}: {error}"
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(said)
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return ConnectionFailed(said, retryable=False)
    if isinstance(error, httpx.TransportError):
        return ConnectionFailed(said)
    return InvalidResponse(said)
