"""Every decision of the clients, once.

What is here is written as coroutines over a [`Port`], which sends one request, waits, and knows the time. `AsyncClient`
gives them a port that suspends; `Client` gives them one that blocks, and carries them through without an event loop.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlencode

from ._errors import (
    ApiError,
    ConnectionFailed,
    DeletionFailed,
    InvalidResponse,
    WaitTimeout,
    error_of,
    retry_after_of,
)
from ._http import USER_AGENT, Port, Request, Response
from ._models import Deletion, Failure, Fence, Receipt, Redrives, Skip, State, Stats
from ._parts import PARTS_MAX, REQUEST_BYTES_MAX, REQUEST_KEYS_MAX, AsyncKeys, Part, Splitter
from ._retry import Retry

T = TypeVar("T")
Progress: TypeAlias = Callable[[Deletion], object]
AsyncProgress: TypeAlias = Callable[[Deletion], Awaitable[object] | object]
DeletionOrId: TypeAlias = Deletion | str

log = logging.getLogger("r2_deletion_queue")

_JSON = {"Content-Type": "application/json"}
_NDJSON = {"Content-Type": "application/x-ndjson"}
# From here on keys go as lines, which the producer reads as they come; JSON it must have in its memory as a whole.
_NDJSON_BYTES_MIN = 262_144
# URLs of 16 KB are the longest that the platform takes; what is longer goes as JSON.
_QUERY_BYTES_MAX = 4_096
_PAGE_SIZE = 1_000
_POLL_SECONDS = 2.0
_POLL_JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request says beside keys."""

    prefixes: Sequence[str] | None = None
    project: str | None = None
    labels: Mapping[str, str] | None = None
    delay_seconds: int = 0
    fence: Fence = "auto"
    max_objects: int | None = None
    verify: bool = False
    plan: DeletionOrId | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuses a text in place of a list: its characters would be prefixes."""
        if isinstance(self.prefixes, (str, bytes)):
            raise TypeError("prefixes must be a list of prefixes: for one prefix, write [prefix]")

    @property
    def sweeps(self) -> bool:
        """Whether it asks for more than keys."""
        return bool(self.prefixes) or self.project is not None or self.plan is not None

    def fields(self) -> dict[str, Any]:
        """The fields of a body: what differs from the defaults, always in the same order.

        The service knows an Idempotency-Key's request by the bytes of its body.
        """
        fields: dict[str, Any] = {
            "prefixes": list(self.prefixes or ()) or None,
            "project": self.project,
            "labels": dict(sorted((self.labels or {}).items())) or None,
            "delay_seconds": self.delay_seconds or None,
            "fence": None if self.fence == "auto" else self.fence,
            "max_objects": self.max_objects,
            "verify": self.verify or None,
            "plan": None if self.plan is None else id_of(self.plan),
            "dry_run": self.dry_run or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def query(self) -> tuple[tuple[str, str], ...] | None:
        """The same as parameters beside lines; none when they cannot say it."""
        fields = self.fields()
        labels = fields.pop("labels", {})
        pairs = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in fields.items()]
        pairs += [(f"label.{name}", value) for name, value in labels.items()]
        try:
            fits = "prefixes" not in fields and len(urlencode(pairs)) <= _QUERY_BYTES_MAX
        except UnicodeEncodeError:
            # Half a surrogate pair: the service will say where it is.
            fits = False
        return tuple(pairs) if fits else None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: tuple[T, ...]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list that is read in pages."""

    path: str
    name: str
    parse: Callable[[Mapping[str, Any]], T]
    query: tuple[tuple[str, str], ...] = ()


def id_of(deletion: DeletionOrId) -> str:
    """The id, which goes into paths.

    Raises:
        ValueError: When it could be anything but one segment of a path.
    """
    name = deletion.id if isinstance(deletion, Deletion) else str(deletion)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError("expected a deletion or its id, such as del_01m8679jhs5nkam9tcyfa766k1")
    return name


def _path_of(deletion: DeletionOrId, rest: str = "") -> str:
    return f"/v1/deletions/{id_of(deletion)}{rest}"


def failures(deletion: DeletionOrId) -> Listing[Failure]:
    """The keys that ended undeleted."""
    return Listing(_path_of(deletion, "/failures"), "failures", Failure.from_json, (("page_size", str(_PAGE_SIZE)),))


def skipped(deletion: DeletionOrId) -> Listing[Skip]:
    """The keys that the fence has kept."""
    return Listing(_path_of(deletion, "/skipped"), "skipped", Skip.from_json, (("page_size", str(_PAGE_SIZE)),))


def deletions(state: str | None, labels: Mapping[str, str] | None) -> Listing[Deletion]:
    """Deletions, newest first."""
    query = [("state", str(state))] if state is not None else []
    query += [(f"label.{name}", value) for name, value in (labels or {}).items()]
    return Listing("/v1/deletions", "deletions", Deletion.from_json, tuple(query))


def read_environment(url: str | None, token: str | None) -> tuple[str, str]:
    """Where the producer is, and the token, each from the environment when it is not given.

    Raises:
        ValueError: When one is missing or wrong. It does not say the token.
    """
    url = url or os.environ.get("R2_DELETION_URL", "")
    token = token or os.environ.get("R2_DELETION_TOKEN", "")
    if not re.fullmatch(r"https?://[^/@?#\s]+(/[^?#\s]*)?", url):
        raise ValueError("expected the producer's URL, as url or in R2_DELETION_URL: https://... without name or query")
    # What no header can have would be in the text of an exception otherwise.
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("expected a token, as token or in R2_DELETION_TOKEN: printable ASCII without spaces")
    return url.rstrip("/"), token


class Core:
    """The calls."""

    def __init__(
        self,
        port: Port,
        token: str,
        *,
        retry: Retry | None = None,
        keys_max: int = REQUEST_KEYS_MAX,
        bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        if not 1 <= keys_max <= REQUEST_KEYS_MAX or not 1 <= bytes_max <= REQUEST_BYTES_MAX:
            raise ValueError(f"a request has from 1 to {REQUEST_KEYS_MAX} keys and {REQUEST_BYTES_MAX} bytes")
        self._port = port
        self._headers = {
            "Authorization": f"Bearer {token}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
        }
        self._retry = retry or Retry()
        self._keys_max = keys_max
        self._bytes_max = bytes_max

    # The calls.

    async def create(self, keys: AsyncKeys, options: Options, idempotency_key: str | None) -> Deletion:
        """Asks for a deletion: in one request if it fits, else in parts."""
        key = _idempotency_key(idempotency_key)
        splitter = Splitter(keys, keys_max=self._keys_max, bytes_max=self._bytes_max)
        part = await splitter.next()
        if not part.keys and not options.sweeps:
            raise ValueError("nothing to delete: there are no keys, no prefixes, no project and no plan")
        whole = self._whole(part, options, key) if splitter.has_ended else None
        if whole is not None:
            return _deletion(await self._call(whole))
        if options.sweeps or options.dry_run:
            raise ValueError("more keys than one request takes cannot go with prefixes, a project, a plan or a dry run")
        return await self._create_in_parts(part, splitter, options, key)

    def _whole(self, part: Part, options: Options, key: str) -> Request | None:
        """The one request, if its body is not too long."""
        headers = {"Idempotency-Key": key}
        query = options.query()
        if query is not None and len(part.lines) >= _NDJSON_BYTES_MIN:
            return Request("POST", "/v1/deletions", query, headers | _NDJSON, part.as_ndjson())
        body = _json_body(options.fields(), part)
        if len(body) > self._bytes_max:
            return None
        return Request("POST", "/v1/deletions", (), headers | _JSON, body)

    async def _create_in_parts(self, part: Part, splitter: Splitter, options: Options, key: str) -> Deletion:
        """Asks for it in parts.

        1. Begin it: with this Idempotency-Key it is the same deletion each time.
        2. Put part by part; those that it has already are taken as they are.
        3. Seal it, with as many parts and keys as there were.

        When it was sealed before, nothing is put: the sealing says whether it was sealed as this.
        """
        # (1) Begin.
        body = json.dumps({"in_parts": True} | options.fields()).encode()
        begin = Request("POST", "/v1/deletions", (), {"Idempotency-Key": key} | _JSON, body)
        deletion = _deletion(await self._call(begin))
        number = total = 0
        try:
            # (2) Put.
            while part.keys:
                number, total = number + 1, total + part.keys
                if number > PARTS_MAX:
                    raise ValueError(f"there are more keys than {PARTS_MAX} parts hold")  # noqa: TRY301
                if deletion.state == State.ACCEPTING:
                    path = _path_of(deletion, f"/parts/{number}")
                    await self._call(Request("PUT", path, (), _NDJSON, part.take_ndjson()))
                part = await splitter.next()
            # (3) Seal.
            sealed = await self._call(_json_request(_path_of(deletion, "/seal"), parts=number, total_keys=total))
        except Exception as error:
            _explain_half(error, deletion, key)
            raise
        return _deletion(sealed)

    async def get(self, deletion: DeletionOrId) -> Deletion:
        """One deletion."""
        return _deletion(await self._call(Request("GET", _path_of(deletion))))

    async def wait(
        self,
        deletion: DeletionOrId,
        timeout: float | None,  # noqa: ASYNC109 - with a clock of the port
        on_progress: AsyncProgress | None,
        *,
        raise_on_failure: bool = False,
    ) -> Deletion:
        """Looks until it is over, as often as the service says."""
        request = Request("GET", _path_of(deletion))
        started = self._port.now()
        while True:
            left = None if timeout is None else started + timeout - self._port.now()
            response = await self._call(request, patience=left)
            seen = _deletion(response)
            if on_progress is not None:
                told = on_progress(seen)
                if inspect.isawaitable(told):
                    await told
            if seen.is_final:
                if raise_on_failure and seen.state == State.FAILED:
                    raise DeletionFailed(seen)
                return seen
            said = retry_after_of(response.headers)
            pause = _POLL_SECONDS if said is None else said
            pause *= 1.0 + _POLL_JITTER * self._port.draw()
            if timeout is not None:
                left = started + timeout - self._port.now()
                if left <= 0.0:
                    raise WaitTimeout(seen, timeout)
                # The last look is when the time is over.
                pause = min(pause, left)
            await self._port.sleep(pause)

    async def plan(
        self,
        keys: AsyncKeys,
        options: Options,
        idempotency_key: str | None,
        timeout: float | None,  # noqa: ASYNC109 - as above
        on_progress: AsyncProgress | None,
    ) -> Deletion:
        """Asks for a dry run, and waits until it has counted."""
        created = await self.create(keys, options, idempotency_key)
        return await self.wait(created, timeout, on_progress, raise_on_failure=True)

    async def cancel(self, deletion: DeletionOrId) -> Deletion:
        """Cancels what of it is not in flight."""
        return _deletion(await self._call(Request("POST", _path_of(deletion, "/cancel"))))

    async def redrive(self, deletion: DeletionOrId) -> Deletion:
        """Sends its failed keys again."""
        return _deletion(await self._call(Request("POST", _path_of(deletion, "/redrive"))))

    async def redrive_failures(self, code: str | None, failed_before: datetime | None, *, dry_run: bool) -> Redrives:
        """Sends failed keys of all deletions again."""
        before = None
        if failed_before is not None:
            if failed_before.tzinfo is None:
                raise ValueError("failed_before needs a time zone")
            before = failed_before.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said = {"code": code and str(code), "failed_before": before, "dry_run": dry_run or None}
        fields = {name: value for name, value in said.items() if value is not None}
        return Redrives.from_json(_object(await self._call(_json_request("/v1/redrives", **fields))))

    async def receipt(self, deletion: DeletionOrId) -> Receipt:
        """What has become of it."""
        return Receipt.from_json(_object(await self._call(Request("GET", _path_of(deletion, "/receipt")))))

    async def stats(self) -> Stats:
        """The totals."""
        return Stats.from_json(_object(await self._call(Request("GET", "/v1/stats"))))

    async def page(self, listing: Listing[T], token: str | None) -> Page[T]:
        """A page of a list, the first without a token."""
        query = listing.query if token is None else (*listing.query, ("page_token", token))
        page = _object(await self._call(Request("GET", listing.path, query)))
        items, following = page.get(listing.name), page.get("next_page_token")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise InvalidResponse(f"The answer is no page of {listing.name}.")
        return Page(tuple(map(listing.parse, items)), following if isinstance(following, str) else None)

    # One call.

    async def _call(self, request: Request, *, patience: float | None = None) -> Response:
        """Sends a request until it is accepted, or refused for good, or the patience is at its end.

        That is the policy's, or `patience` if it is less. All requests of this client can be sent again: what creates
        has an Idempotency-Key, the same in every attempt.
        """
        request = Request(
            request.method, request.path, request.query, {**self._headers, **request.headers}, request.body
        )
        retry = self._retry if patience is None else replace(self._retry, total=min(self._retry.total, patience))
        started = self._port.now()
        attempt = 0
        while True:
            failure = await self._attempt(request)
            if isinstance(failure, Response):
                return failure
            elapsed = self._port.now() - started
            pause = retry.pause(failure, attempt=attempt, elapsed=elapsed, draw=self._port.draw())
            if pause is None:
                raise failure
            why = failure.code if isinstance(failure, ApiError) else type(failure).__name__
            log.info("%s %s: %s, again in %.1f s", request.method, request.path, why, pause)
            await self._port.sleep(pause)
            attempt += 1

    async def _attempt(self, request: Request) -> Response | ApiError | ConnectionFailed:
        try:
            response = await self._port.send(request)
        except ConnectionFailed as failure:
            return failure
        if 200 <= response.status < 300:  # noqa: PLR2004 - every 2xx
            return response
        return error_of(response.status, response.headers, response.body)


def _idempotency_key(given: str | None) -> str:
    """The key of one call. One is made up when none is given, so that every call can be sent again."""
    if given is None:
        return str(uuid.uuid4())
    if not re.fullmatch(r"[!#-~]([ -~]*[!-~])?", given):
        raise ValueError("an idempotency_key is printable ASCII, and neither quoted nor within spaces")
    return given


def _json_body(fields: Mapping[str, Any], part: Part) -> bytes:
    """The fields, and behind them the keys, which are JSON already."""
    body = json.dumps(fields).encode()
    if not part.keys:
        return body
    comma = b", " if fields else b""
    return body[:-1] + comma + b'"objectKeys": ' + part.as_json() + b"}"


def _json_request(path: str, **fields: object) -> Request:
    return Request("POST", path, (), _JSON, json.dumps(fields).encode())


def _object(response: Response) -> Mapping[str, Any]:
    try:
        read = json.loads(response.body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise InvalidResponse("The answer is not one of the API. Is the URL that of the producer?")
    return read


def _deletion(response: Response) -> Deletion:
    replayed = response.headers.get("idempotent-replayed") == "true"
    return Deletion.from_json(_object(response), replayed=replayed)


def _explain_half(error: Exception, deletion: Deletion, key: str) -> None:
    if isinstance(error, ApiError):
        error.deletion_id = deletion.id
    error.add_note(
        f"The deletion {deletion.id} was begun: the parts that are put are deleted. To go on, call again with the same "
        f"keys in the same order and idempotency_key={key!r}; to leave it, cancel it."
    )
