"""The two clients: who sends and waits. What they do is in `_core`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx

from . import _core
from ._core import AsyncProgress, Core, DeletionOrId, Listing, Options, Progress
from ._http import AsyncPort, SyncPort, run
from ._models import Deletion, Failure, Fence, Receipt, Redrives, Skip, Stats
from ._parts import REQUEST_BYTES_MAX, REQUEST_KEYS_MAX, AsyncKeys, Keys
from ._retry import Retry

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""For the answer 60 seconds: a request may wait for room, and for thousands of messages to be stored."""


class Client:
    """Deletes objects from R2 by the producer at `url`.

    Make one for a process, and close it or use it in a `with`; it is safe to use from several threads.

        with Client("https://producer.example.workers.dev", token) as client:
            deletion = client.create(["proj_42/a.jpg", "proj_42/b.jpg"])
            client.wait(deletion, raise_on_failure=True)

    Args:
        url: Where the producer is; by default as the environment's `R2_DELETION_URL` says.
        token: By default the environment's `R2_DELETION_TOKEN`.
        retry: How patiently a call is carried through.
        timeout: Of one attempt, in seconds or as httpx has it.
        transport: What carries requests, such as that of `testing.FakeServer`, or `httpx.HTTPTransport(proxy=...)`.
        max_request_keys: From so many keys on a deletion goes in parts.
        max_request_bytes: The same by the length of a body.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
        max_request_keys: int = REQUEST_KEYS_MAX,
        max_request_bytes: int = REQUEST_BYTES_MAX,
    ) -> None:
        self._url, token = _core.read_environment(url, token)
        self._http = httpx.Client(base_url=self._url, timeout=timeout, transport=transport)
        self._core = Core(
            SyncPort(self._http), token, retry=retry, keys_max=max_request_keys, bytes_max=max_request_bytes
        )

    def create(
        self,
        keys: Keys = (),
        *,
        prefixes: Sequence[str] | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        delay_seconds: int = 0,
        fence: Fence = "auto",
        max_objects: int | None = None,
        verify: bool = False,
        plan: DeletionOrId | None = None,
        idempotency_key: str | None = None,
    ) -> Deletion:
        """Asks for a deletion, and returns when all of it is stored: from then on it is carried out.

        Any number of keys up to 100 million, from any iterable, of which one request's worth is in memory at a time.
        More than one request takes goes in parts, each of which is deleted as it arrives.

        Args:
            keys: The keys of the objects, as they are.
            prefixes: How the keys begin that are to be deleted besides.
            project: A project whose keys are to be deleted besides.
            labels: To find it by.
            delay_seconds: An undo window: nothing is deleted before it ends.
            fence: When an object that was uploaded after the request is kept.
            max_objects: Delete nothing by prefix when there are more.
            verify: Keep a digest of the keys for the receipt, and look what is left under the prefixes.
            plan: A dry run (see `plan`) whose prefixes are to be deleted.
            idempotency_key: With the same key and the same arguments it is the same deletion, however often this is
                called; made up when none is given.

        Raises:
            ApiError: When it is refused; with `deletion_id` when parts of it were accepted.
            ConnectionFailed: When there is no answer.
        """
        options = Options(
            prefixes=prefixes,
            project=project,
            labels=labels,
            delay_seconds=delay_seconds,
            fence=fence,
            max_objects=max_objects,
            verify=verify,
            plan=plan,
        )
        return run(self._core.create(keys, options, idempotency_key))

    def plan(
        self,
        keys: Keys = (),
        *,
        prefixes: Sequence[str] | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        max_objects: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = 300.0,
        on_progress: Progress | None = None,
    ) -> Deletion:
        """Counts what would be deleted, and deletes nothing: the result has a `plan`, and can be `create`'s plan."""
        options = Options(prefixes=prefixes, project=project, labels=labels, max_objects=max_objects, dry_run=True)
        return run(self._core.plan(keys, options, idempotency_key, timeout, on_progress))

    def get(self, deletion: DeletionOrId) -> Deletion:
        """How a deletion is now."""
        return run(self._core.get(deletion))

    def wait(
        self,
        deletion: DeletionOrId,
        *,
        timeout: float | None = None,
        on_progress: Progress | None = None,
        raise_on_failure: bool = False,
    ) -> Deletion:
        """Waits until a deletion is over, and returns it, also when keys have failed: look at `state`.

        Args:
            deletion: The deletion, or its id.
            timeout: For so many seconds.
            on_progress: Is called with the deletion at each look.
            raise_on_failure: Raise `DeletionFailed` when a key has failed.

        Raises:
            WaitTimeout: When it is not over by then.
        """
        return run(self._core.wait(deletion, timeout, on_progress, raise_on_failure=raise_on_failure))

    def cancel(self, deletion: DeletionOrId) -> Deletion:
        """Cancels what of it is not in flight. One that is over stays as it is: look at `state`."""
        return run(self._core.cancel(deletion))

    def redrive(self, deletion: DeletionOrId) -> Deletion:
        """Sends its failed keys again."""
        return run(self._core.redrive(deletion))

    def redrive_failures(
        self, *, code: str | None = None, failed_before: datetime | None = None, dry_run: bool = False
    ) -> Redrives:
        """Sends failed keys of all deletions again: those with this code that failed before this. Call while `more`."""
        return run(self._core.redrive_failures(code, failed_before, dry_run=dry_run))

    def receipt(self, deletion: DeletionOrId) -> Receipt:
        """What has become of a deletion that is over."""
        return run(self._core.receipt(deletion))

    def stats(self) -> Stats:
        """The totals. It reads everything: once a minute rather than once a second."""
        return run(self._core.stats())

    def failures(self, deletion: DeletionOrId) -> Iterator[Failure]:
        """The keys of a deletion that ended undeleted."""
        return self._items(_core.failures(deletion))

    def skipped(self, deletion: DeletionOrId) -> Iterator[Skip]:
        """The keys of a deletion that the fence has kept."""
        return self._items(_core.skipped(deletion))

    def list(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> Iterator[Deletion]:
        """Deletions, newest first, in this state and with these labels."""
        return self._items(_core.deletions(state, labels))

    def _items(self, listing: Listing[T]) -> Iterator[T]:
        token = None
        while True:
            page = run(self._core.page(listing, token))
            yield from page.items
            token = page.next_token
            if token is None:
                return

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._url!r})"


class AsyncClient:
    """The same for asyncio: what `Client` has, to be awaited, and lists to be read with `async for`.

    `create` takes asynchronous iterables of keys as well, and `wait` an `on_progress` that is a coroutine function.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        retry: Retry | None = None,
        timeout: float | httpx.Timeout = TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
        max_request_keys: int = REQUEST_KEYS_MAX,
        max_request_bytes: int = REQUEST_BYTES_MAX,
    ) -> None:
        self._url, token = _core.read_environment(url, token)
        self._http = httpx.AsyncClient(base_url=self._url, timeout=timeout, transport=transport)
        self._core = Core(
            AsyncPort(self._http), token, retry=retry, keys_max=max_request_keys, bytes_max=max_request_bytes
        )

    async def create(
        self,
        keys: AsyncKeys = (),
        *,
        prefixes: Sequence[str] | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        delay_seconds: int = 0,
        fence: Fence = "auto",
        max_objects: int | None = None,
        verify: bool = False,
        plan: DeletionOrId | None = None,
        idempotency_key: str | None = None,
    ) -> Deletion:
        """As `Client.create`."""
        options = Options(
            prefixes=prefixes,
            project=project,
            labels=labels,
            delay_seconds=delay_seconds,
            fence=fence,
            max_objects=max_objects,
            verify=verify,
            plan=plan,
        )
        return await self._core.create(keys, options, idempotency_key)

    async def plan(
        self,
        keys: AsyncKeys = (),
        *,
        prefixes: Sequence[str] | None = None,
        project: str | None = None,
        labels: Mapping[str, str] | None = None,
        max_objects: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = 300.0,  # noqa: ASYNC109 - the same surface
        on_progress: AsyncProgress | None = None,
    ) -> Deletion:
        """As `Client.plan`."""
        options = Options(prefixes=prefixes, project=project, labels=labels, max_objects=max_objects, dry_run=True)
        return await self._core.plan(keys, options, idempotency_key, timeout, on_progress)

    async def get(self, deletion: DeletionOrId) -> Deletion:
        """As `Client.get`."""
        return await self._core.get(deletion)

    async def wait(
        self,
        deletion: DeletionOrId,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same surface
        on_progress: AsyncProgress | None = None,
        raise_on_failure: bool = False,
    ) -> Deletion:
        """As `Client.wait`."""
        return await self._core.wait(deletion, timeout, on_progress, raise_on_failure=raise_on_failure)

    async def cancel(self, deletion: DeletionOrId) -> Deletion:
        """As `Client.cancel`."""
        return await self._core.cancel(deletion)

    async def redrive(self, deletion: DeletionOrId) -> Deletion:
        """As `Client.redrive`."""
        return await self._core.redrive(deletion)

    async def redrive_failures(
        self, *, code: str | None = None, failed_before: datetime | None = None, dry_run: bool = False
    ) -> Redrives:
        """As `Client.redrive_failures`."""
        return await self._core.redrive_failures(code, failed_before, dry_run=dry_run)

    async def receipt(self, deletion: DeletionOrId) -> Receipt:
        """As `Client.receipt`."""
        return await self._core.receipt(deletion)

    async def stats(self) -> Stats:
        """As `Client.stats`."""
        return await self._core.stats()

    def failures(self, deletion: DeletionOrId) -> AsyncIterator[Failure]:
        """As `Client.failures`."""
        return self._items(_core.failures(deletion))

    def skipped(self, deletion: DeletionOrId) -> AsyncIterator[Skip]:
        """As `Client.skipped`."""
        return self._items(_core.skipped(deletion))

    def list(self, *, state: str | None = None, labels: Mapping[str, str] | None = None) -> AsyncIterator[Deletion]:
        """As `Client.list`."""
        return self._items(_core.deletions(state, labels))

    async def _items(self, listing: Listing[T]) -> AsyncIterator[T]:
        token = None
        while True:
            page = await self._core.page(listing, token)
            for item in page.items:
                yield item
            token = page.next_token
            if token is None:
                return

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self._url!r})"
