"""A producer in memory, for the tests of what uses this client.

    server = FakeServer(objects=["a", "b", "locked"])
    server.fail("locked")
    with server.client() as client:
        assert client.wait(client.create(["a", "locked"])).counts.failed == 1
    assert server.objects == {"b", "locked"}

It answers as the service does, as far as this client asks, but at once, and nothing is lost unless you say so.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ._client import AsyncClient, Client
from ._models import KeysDigest
from ._parts import PARTS_MAX, REQUEST_BYTES_MAX, REQUEST_KEYS_MAX
from ._retry import Retry

__all__ = ["FakeServer"]

_TITLES = {
    401: "Unauthorized",
    404: "Not Found",
    409: "Conflict",
    413: "Content Too Large",
    422: "Unprocessable Content",
}
# A prefix that has failed is asked for anew; a redrive is about keys.
_OF_PREFIXES = ("max_objects_exceeded", "sweep_incomplete")
_FINAL = ("succeeded", "failed", "cancelled", "planned")


@dataclass
class _Refusal(Exception):
    """An answer that is a problem."""

    status: int
    code: str
    detail: str = "As the test has it."
    retryable: bool = False
    retry_after: int | None = None
    errors: list[dict[str, str]] = field(default_factory=list)

    def response(self) -> httpx.Response:
        problem = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "Problem"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
            "request_id": f"req_{0:026d}",
        }
        if self.errors:
            problem["errors"] = self.errors
        headers = {"Content-Type": "application/problem+json"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return httpx.Response(self.status, headers=headers, content=json.dumps(problem))


@dataclass
class _Key:
    """A key of a deletion, and what has become of it: `pending` and so on, or the code of a failure."""

    key: str
    end: str = "pending"


@dataclass
class _Deletion:
    """What the fake knows of a deletion."""

    id: str
    options: dict[str, Any]
    fingerprint: str
    requested_at: datetime
    state: str
    looks: int
    keys: list[_Key] = field(default_factory=list)
    """Each once, but one that is in two parts twice, as in the service."""
    duplicates: int = 0
    parts: dict[int, tuple[str, int]] = field(default_factory=dict)
    """The digest of each part, and how many keys it had."""
    found: int = 0
    plan: dict[str, Any] | None = None
    generation: int = 0
    finished_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        return self.state in _FINAL

    @property
    def not_before(self) -> datetime | None:
        delay = self.options.get("delay_seconds", 0)
        return self.requested_at + timedelta(seconds=delay) if delay else None

    def add(self, keys: list[str]) -> int:
        """Takes keys in that came at once; says how many of them came twice."""
        once = dict.fromkeys(keys)
        self.keys += map(_Key, once)
        self.duplicates += len(keys) - len(once)
        return len(keys) - len(once)

    def with_end(self, end: str) -> list[str]:
        """The keys of which this has become."""
        return [key.key for key in self.keys if key.end == end]

    def failed(self) -> list[_Key]:
        """The keys that failed."""
        return [key for key in self.keys if key.end not in ("pending", "deleted", "skipped", "cancelled")]

    def counts(self) -> dict[str, int]:
        counted = {end: len(self.with_end(end)) for end in ("pending", "deleted", "skipped", "cancelled")}
        return {"total": len(self.keys), **counted, "failed": len(self.failed())}

    def view(self) -> dict[str, Any]:
        errors = _errors(self.failed())
        started = self.requested_at if self.finished_at and self.state != "cancelled" else None
        expires = self.finished_at and self.finished_at + timedelta(days=30 if errors else 7)
        return {
            "id": self.id,
            "state": self.state,
            "generation": self.generation,
            "fence": self.options.get("fence", "auto"),
            "counts": self.counts(),
            "duplicates_removed": self.duplicates,
            "messages": -(-len(self.keys) // 1_000),
            "requested_at": _time(self.requested_at),
            "not_before": _time(self.not_before),
            "started_at": _time(started),
            "finished_at": _time(self.finished_at),
            "expires_at": _time(expires),
            "errors": errors,
            "labels": self.options.get("labels", {}),
            "requested_by": "api_token",
            "dry_run": self.options.get("dry_run", False),
            "prefixes": self.options.get("prefixes"),
            "found_by_prefix": self.found,
            "plan": self.plan,
            "verification": None,
        }


def _errors(failed: list[_Key]) -> list[dict[str, Any]]:
    """How many keys failed in which way."""
    codes = Counter(key.end for key in failed)
    return [{"code": code, "r2_code": None, "count": count} for code, count in sorted(codes.items())]


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class FakeServer:
    """A producer, a consumer and a bucket.

    Args:
        token: The one that it takes.
        objects: The keys in the bucket.
        looks: How often a deletion is looked at before it is over.
        project_templates: How the keys of a project begin.
    """

    url = "https://fake.invalid"

    def __init__(
        self,
        *,
        token: str = "test-token",  # noqa: S107 - of a fake
        objects: Iterable[str] = (),
        looks: int = 1,
        project_templates: Iterable[str] = ("projects/{id}/",),
    ) -> None:
        self.token = token
        self.objects = set(objects)
        """The keys in the bucket. What is deleted goes from here."""
        self.looks = looks
        self.requests: list[httpx.Request] = []
        """Every request that came, in order."""
        self._templates = tuple(project_templates)
        self._ends: dict[str, str] = {}
        self._troubles: list[tuple[bool, _Refusal | Exception]] = []
        self._deletions: dict[str, _Deletion] = {}
        self._by_key: dict[str, str] = {}
        self.transport = httpx.MockTransport(self.handle)
        """For a client of your own making, synchronous or not."""

    # What a test says.

    def client(self, **arguments: Any) -> Client:  # noqa: ANN401 - those of Client
        """A client of this server, which does not wait long before it tries again."""
        return Client(self.url, self.token, transport=self.transport, **{"retry": _QUICK} | arguments)

    def async_client(self, **arguments: Any) -> AsyncClient:  # noqa: ANN401 - those of AsyncClient
        """The same for asyncio."""
        return AsyncClient(self.url, self.token, transport=self.transport, **{"retry": _QUICK} | arguments)

    def fail(self, *keys: str, code: str = "object_locked") -> None:
        """From now on these keys fail; with the code `deleted` they are deleted again."""
        self._ends.update(dict.fromkeys(keys, code))

    def skip(self, *keys: str) -> None:
        """From now on these keys are skipped, as if uploaded since the request."""
        self._ends.update(dict.fromkeys(keys, "skipped"))

    def refuse(
        self, status: int, code: str, *, times: int = 1, retryable: bool = False, retry_after: int | None = None
    ) -> None:
        """Answers the next requests with a problem."""
        refusal = _Refusal(status, code, retryable=retryable, retry_after=retry_after)
        self._troubles += [(False, refusal)] * times

    def drop(self, *, times: int = 1, answers_only: bool = False) -> None:
        """Loses the next requests, or only their answers: then what they ask for is done."""
        self._troubles += [(answers_only, httpx.ReadError("The connection was lost."))] * times

    def end_undo_windows(self) -> None:
        """Lets the time pass that was given by `delay_seconds`."""
        for deletion in self._deletions.values():
            deletion.options.pop("delay_seconds", None)

    # What a client sees.

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answers a request."""
        self.requests.append(request)
        is_late, trouble = self._troubles.pop(0) if self._troubles else (False, None)
        if isinstance(trouble, _Refusal):
            return trouble.response()
        if trouble is not None and not is_late:
            raise trouble
        try:
            response = self._route(request)
        except _Refusal as refusal:
            response = refusal.response()
        if trouble is not None:
            raise trouble
        return response

    def _route(self, request: httpx.Request) -> httpx.Response:  # noqa: PLR0911 - a table of the calls
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise _Refusal(401, "invalid_token")
        match (request.method, *request.url.path.strip("/").split("/")):
            case ("POST", "v1", "deletions"):
                return self._create(request)
            case ("GET", "v1", "deletions"):
                return self._list(request)
            case ("GET", "v1", "stats"):
                return self._stats()
            case ("POST", "v1", "redrives"):
                return self._redrive_all(json.loads(request.content or b"{}"))
            case ("GET", "v1", "deletions", name):
                return self._look(self._find(name))
            case ("PUT", "v1", "deletions", name, "parts", number):
                return self._put_part(self._find(name), number, request)
            case (method, "v1", "deletions", name, action):
                return self._act(method, self._find(name), action, request)
        raise _Refusal(404, "not_found")

    def _act(self, method: str, deletion: _Deletion, action: str, request: httpx.Request) -> httpx.Response:
        acts: Mapping[tuple[str, str], Callable[[], httpx.Response]] = {
            ("POST", "seal"): lambda: self._seal(deletion, request),
            ("POST", "cancel"): lambda: self._cancel(deletion),
            ("POST", "redrive"): lambda: self._redrive(deletion),
            ("GET", "receipt"): lambda: self._receipt(deletion),
            ("GET", "failures"): lambda: _page("failures", self._failures(deletion), request),
            ("GET", "skipped"): lambda: _page("skipped", self._skipped(deletion), request),
        }
        act = acts.get((method, action))
        if act is None:
            raise _Refusal(404, "not_found")
        return act()

    def _find(self, name: str) -> _Deletion:
        if name not in self._deletions:
            raise _Refusal(404, "not_found", "There is no such deletion.")
        return self._deletions[name]

    def _create(self, request: httpx.Request) -> httpx.Response:
        fingerprint = hashlib.sha256(request.url.query + b"?" + request.content).hexdigest()
        key = request.headers.get("idempotency-key")
        if key in self._by_key:
            earlier = self._deletions[self._by_key[key]]
            if earlier.fingerprint != fingerprint:
                raise _Refusal(422, "idempotency_key_reused", "The Idempotency-Key belongs to another request.")
            return _accepted(earlier, {"Idempotent-Replayed": "true"})
        keys, options = _read(request)
        self._resolve(options)
        in_parts = options.pop("in_parts", False)
        if keys is None and not in_parts and not options.get("prefixes"):
            raise _invalid("#/objectKeys", "missing field")
        name = f"del_{len(self._deletions) + 1:026d}"
        state = "accepting" if in_parts else "queued"
        deletion = _Deletion(name, options, fingerprint, datetime.now(UTC), state, self.looks)
        deletion.add(keys or [])
        self._deletions[name] = deletion
        if key is not None:
            self._by_key[key] = name
        return _accepted(deletion)

    def _resolve(self, options: dict[str, Any]) -> None:
        """Turns a project and a plan into prefixes."""
        prefixes = list(options.get("prefixes", []))
        if "project" in options:
            prefixes += [template.replace("{id}", options["project"]) for template in self._templates]
        if "plan" in options:
            plan = self._deletions.get(options["plan"])
            if plan is None or plan.plan is None:
                raise _invalid("#/plan", "expected the id of a dry run which is over")
            prefixes = prefixes or plan.options["prefixes"]
            seen = plan.plan["objects"]
            options["max_objects"] = min(options.get("max_objects", seen + 10), seen + max(10, seen // 10))
        if prefixes:
            options["prefixes"] = prefixes

    def _look(self, deletion: _Deletion) -> httpx.Response:
        if deletion.state in ("queued", "running") and deletion.not_before is None:
            deletion.looks -= 1
            deletion.state = "running"
            if deletion.looks < 0:
                self._carry_out(deletion)
        headers = {} if deletion.is_final else {"Retry-After": "0"}
        return httpx.Response(200, headers=headers, json=deletion.view())

    def _carry_out(self, deletion: _Deletion) -> None:
        prefixes = tuple(deletion.options.get("prefixes", ()))
        found = sorted(key for key in self.objects if prefixes and key.startswith(prefixes))
        deletion.finished_at = datetime.now(UTC)
        if deletion.options.get("dry_run"):
            deletion.plan = _plan(len(deletion.keys), found)
            deletion.keys.clear()
            deletion.state = "planned"
            return
        if len(found) > deletion.options.get("max_objects", len(found)):
            deletion.keys += [_Key(prefix, "max_objects_exceeded") for prefix in prefixes]
            found = []
        # What was named is decided by then, and not found again.
        found = sorted(set(found) - {key.key for key in deletion.keys})
        deletion.found = len(found)
        deletion.add(found)
        for key in deletion.keys:
            if key.end == "pending":
                key.end = self._ends.get(key.key, "deleted")
        self.objects.difference_update(deletion.with_end("deleted"))
        deletion.state = "failed" if deletion.failed() else "succeeded"

    def _put_part(self, deletion: _Deletion, number: str, request: httpx.Request) -> httpx.Response:
        if not number.isdigit() or not 1 <= int(number) <= PARTS_MAX:
            raise _Refusal(404, "not_found")
        if deletion.state != "accepting":
            raise _Refusal(409, "parts_closed", "The deletion takes no parts.")
        keys, _ = _read(request)
        digest = hashlib.sha256(request.content).hexdigest()
        earlier = deletion.parts.get(int(number))
        if earlier is not None and earlier[0] != digest:
            raise _Refusal(409, "part_differs", "The part was put with other keys.")
        duplicates = 0
        if earlier is None:
            duplicates = deletion.add(keys or [])
            deletion.parts[int(number)] = (digest, len(keys or []))
        taken = len(keys or []) - duplicates
        view = {"part": int(number), "keys": taken, "duplicates_removed": duplicates, "messages": -(-taken // 1_000)}
        return httpx.Response(202, json=view)

    def _seal(self, deletion: _Deletion, request: httpx.Request) -> httpx.Response:
        said = json.loads(request.content)
        missing = [number for number in range(1, said["parts"] + 1) if number not in deletion.parts]
        errors = [{"pointer": "#/parts", "detail": f"part {number} is missing"} for number in missing[:20]]
        keys = sum(keys for _, keys in deletion.parts.values())
        if not errors and (len(deletion.parts), keys) != (said["parts"], said["total_keys"]):
            errors = [{"pointer": "#/total_keys", "detail": f"the parts have {keys} keys"}]
        if errors:
            raise _Refusal(409, "parts_incomplete", "The parts are not what the request says.", errors=errors)
        if deletion.state == "cancelled":
            raise _Refusal(409, "deletion_cancelled", "The deletion was cancelled.")
        if deletion.state == "accepting":
            deletion.state = "queued"
        return _accepted(deletion)

    def _cancel(self, deletion: _Deletion) -> httpx.Response:
        if not deletion.is_final:
            for key in deletion.keys:
                key.end = "cancelled" if key.end == "pending" else key.end
            deletion.state, deletion.finished_at = "cancelled", datetime.now(UTC)
        return httpx.Response(200, json=deletion.view())

    def _redrive(self, deletion: _Deletion, keys: list[_Key] | None = None) -> httpx.Response:
        failed = [key for key in keys or deletion.failed() if key.end not in _OF_PREFIXES]
        if not deletion.is_final or not failed:
            return httpx.Response(200, json=deletion.view())
        for key in failed:
            key.end = "pending"
        deletion.generation += 1
        deletion.state, deletion.looks, deletion.finished_at = "queued", self.looks, None
        return _accepted(deletion)

    def _redrive_all(self, asked: dict[str, Any]) -> httpx.Response:
        found: list[dict[str, Any]] = []
        for deletion in self._deletions.values():
            keys = [key for key in deletion.failed() if asked.get("code") in (None, key.end)]
            before = _time(deletion.finished_at) or ""
            if not deletion.is_final or not keys or not before < asked.get("failed_before", "9"):
                continue
            found.append({"deletion": deletion.id, "keys": len(keys)})
            if not asked.get("dry_run"):
                self._redrive(deletion, keys)
        is_dry = asked.get("dry_run", False)
        total = sum(int(one["keys"]) for one in found)
        redrives = {"dry_run": is_dry, "redrives": found, "keys": total, "more": False}
        return httpx.Response(200 if is_dry else 202, json=redrives)

    def _receipt(self, deletion: _Deletion) -> httpx.Response:
        if not deletion.is_final:
            raise _Refusal(409, "deletion_not_final", "The deletion is not over.", retryable=True, retry_after=5)
        digest = None
        if deletion.options.get("verify"):
            of = KeysDigest.of(deletion.with_end("deleted"))
            digest = {"algorithm": of.algorithm, "keys": of.keys, "value": of.value}
        now = _time(datetime.now(UTC))
        receipt = {"issued_at": now, "deletion": deletion.view(), "deleted_keys_digest": digest}
        return httpx.Response(200, json=receipt)

    def _failures(self, deletion: _Deletion) -> list[dict[str, Any]]:
        common = {"message": "As the test has it.", "attempts": 1, "failed_at": _time(deletion.finished_at)}
        return [{"key": key.key, "code": key.end, **common} for key in deletion.failed()]

    def _skipped(self, deletion: _Deletion) -> list[dict[str, Any]]:
        now = _time(deletion.finished_at)
        common = {"code": "uploaded_since", "uploaded_at": now, "skipped_at": now}
        return [{"key": key, **common} for key in deletion.with_end("skipped")]

    def _list(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        labels = {name.removeprefix("label."): asked[name] for name in asked if name.startswith("label.")}
        views = [deletion.view() for deletion in reversed(self._deletions.values())]
        views = [view for view in views if asked.get("state") in (None, view["state"])]
        return _page("deletions", [view for view in views if labels.items() <= view["labels"].items()], request)

    def _stats(self) -> httpx.Response:
        states = [deletion.state for deletion in self._deletions.values()]
        counts = [deletion.counts() for deletion in self._deletions.values()]
        names = ("total", "pending", "deleted", "skipped", "failed", "cancelled")
        stats: dict[str, Any] = {
            "deletions": {state: states.count(state) for state in sorted(set(states))},
            "keys": {name: sum(each[name] for each in counts) for name in names},
            "oldest_unfinished": None,
            "failures": _errors([key for deletion in self._deletions.values() for key in deletion.failed()]),
            "unreadable_messages": 0,
            "notices": {"owed": 0, "failed": 0},
        }
        return httpx.Response(200, json=stats)


_QUICK = Retry(base=0.001, cap=0.01)


def _invalid(pointer: str, detail: str) -> _Refusal:
    return _Refusal(
        422, "validation_failed", "The request is invalid.", errors=[{"pointer": pointer, "detail": detail}]
    )


def _read(request: httpx.Request) -> tuple[list[str] | None, dict[str, Any]]:
    """The keys of a body, and what it says beside them."""
    if len(request.content) > REQUEST_BYTES_MAX:
        raise _Refusal(413, "payload_too_large")
    options: dict[str, Any]
    keys: list[str] | None
    if request.headers.get("content-type") == "application/x-ndjson":
        keys = [json.loads(line) for line in request.content.split(b"\n") if line.strip()]
        options = _options(request.url.params)
        pointer = "line {}"
    else:
        options = json.loads(request.content)
        keys, pointer = options.pop("objectKeys", None), "#/objectKeys/{}"
    if keys is not None and not 1 <= len(keys) <= REQUEST_KEYS_MAX:
        raise _invalid("#/objectKeys", f"expected 1 to {REQUEST_KEYS_MAX} keys")
    for at, key in enumerate(keys or []):
        if not 1 <= len(key.encode()) <= 1_024:
            raise _invalid(pointer.format(at), "an object key has 1 to 1024 bytes")
    return keys, options


def _options(query: httpx.QueryParams) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in query.items():
        if name.startswith("label."):
            options.setdefault("labels", {})[name.removeprefix("label.")] = value
        else:
            options[name] = value if name in ("fence", "project", "plan") else json.loads(value)
    return options


def _plan(keys: int, found: list[str]) -> dict[str, Any]:
    now = _time(datetime.now(UTC)) if found else None
    counted = {"keys": keys, "objects": len(found), "bytes": 0, "uploaded_since": 0}
    return {**counted, "oldest_uploaded_at": now, "newest_uploaded_at": now, "sample": found[:20]}


def _accepted(deletion: _Deletion, headers: Mapping[str, str] | None = None) -> httpx.Response:
    said = {"Location": f"/v1/deletions/{deletion.id}", **(headers or {})}
    if not deletion.is_final:
        said["Retry-After"] = "0"
    return httpx.Response(202, headers=said, json=deletion.view())


def _page(name: str, items: list[dict[str, Any]], request: httpx.Request) -> httpx.Response:
    size = min(int(request.url.params.get("page_size", "100")), 1_000)
    begin = int(request.url.params.get("page_token", "0"))
    following = str(begin + size) if begin + size < len(items) else None
    return httpx.Response(200, json={name: items[begin : begin + size], "next_page_token": following})
