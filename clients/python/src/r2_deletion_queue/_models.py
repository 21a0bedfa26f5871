"""What the API answers with.

Fields and states that this version does not know are no error: the one is in `raw`, the other a plain text.
No `repr` shows a key, a prefix or a label: they are personal data, and a `repr` ends up in a log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from ._errors import InvalidResponse

__all__ = [
    "Counts",
    "Deletion",
    "ErrorCount",
    "Failure",
    "Fence",
    "KeysDigest",
    "Notices",
    "OldestUnfinished",
    "Plan",
    "Receipt",
    "Redrive",
    "Redrives",
    "Skip",
    "State",
    "Stats",
    "Verification",
]

Fence: TypeAlias = Literal["auto", "always", "off"]
"""When an object that was uploaded after the request is kept."""

Json: TypeAlias = Mapping[str, Any]


class State(StrEnum):
    """The states that this version knows. A deletion's `state` is a text, and may be another."""

    ACCEPTING = "accepting"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PLANNED = "planned"


_FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.PLANNED})
_KNOWN = frozenset(State)


def _number(json: Json, name: str) -> int:
    value = json.get(name)
    return value if isinstance(value, int) else 0


def _text(json: Json, name: str) -> str:
    value = json.get(name)
    return value if isinstance(value, str) else ""


def _object(json: Json, name: str) -> Json | None:
    value = json.get(name)
    return value if isinstance(value, Mapping) else None


def _objects(json: Json, name: str) -> list[Json]:
    value = json.get(name)
    return [element for element in value if isinstance(element, Mapping)] if isinstance(value, list) else []


def _time(json: Json, name: str) -> datetime | None:
    value = json.get(name)
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise InvalidResponse(f"{name} is not a time") from None


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the keys: `total` is the sum of the others, at every look."""

    total: int
    pending: int
    deleted: int
    """Confirmed absent. R2 does not say whether there was an object."""
    skipped: int
    """Kept, because their object was uploaded after the request."""
    failed: int
    cancelled: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Counts:
        """Reads it."""
        return cls(
            total=_number(json, "total"),
            pending=_number(json, "pending"),
            deleted=_number(json, "deleted"),
            skipped=_number(json, "skipped"),
            failed=_number(json, "failed"),
            cancelled=_number(json, "cancelled"),
            raw=json,
        )


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many keys failed in one way."""

    code: str
    r2_code: int | None
    count: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> ErrorCount:
        """Reads it."""
        r2_code = json.get("r2_code")
        return cls(_text(json, "code"), r2_code if isinstance(r2_code, int) else None, _number(json, "count"), raw=json)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run has counted."""

    keys: int
    """Keys that were named; whether there are objects was not looked at."""
    objects: int
    """Objects that begin with a prefix and are older than the request."""
    bytes: int
    uploaded_since: int
    oldest_uploaded_at: datetime | None
    newest_uploaded_at: datetime | None
    sample: tuple[str, ...] = field(repr=False)
    """Some of the keys."""
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Plan:
        """Reads it."""
        sample = json.get("sample")
        return cls(
            keys=_number(json, "keys"),
            objects=_number(json, "objects"),
            bytes=_number(json, "bytes"),
            uploaded_since=_number(json, "uploaded_since"),
            oldest_uploaded_at=_time(json, "oldest_uploaded_at"),
            newest_uploaded_at=_time(json, "newest_uploaded_at"),
            sample=tuple(map(str, sample)) if isinstance(sample, list) else (),
            raw=json,
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """What was left under the prefixes when everything was decided."""

    verified_at: datetime | None
    objects_left: int
    uploaded_since: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Verification:
        """Reads it."""
        return cls(_time(json, "verified_at"), _number(json, "objects_left"), _number(json, "uploaded_since"), raw=json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A deletion, as it was at one look."""

    id: str
    state: str
    """One of `State`, or a later version's."""
    generation: int
    """How often its failed keys have been sent again."""
    fence: str
    counts: Counts
    duplicates_removed: int
    messages: int
    requested_at: datetime | None
    not_before: datetime | None
    """The end of the undo window."""
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    errors: tuple[ErrorCount, ...]
    labels: Mapping[str, str] = field(repr=False)
    requested_by: str
    dry_run: bool
    prefixes: tuple[str, ...] | None = field(repr=False)
    found_by_prefix: int
    plan: Plan | None
    verification: Verification | None
    replayed: bool = field(default=False, compare=False)
    """The Idempotency-Key had been used before: this is the deletion of that time."""
    raw: Json = field(repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing of it changes any more. A state that is not known is final when it has an end."""
        return self.state in _FINAL or (self.state not in _KNOWN and self.finished_at is not None)

    @classmethod
    def from_json(cls, json: Json, *, replayed: bool = False) -> Deletion:
        """Reads it.

        Raises:
            InvalidResponse: When it has no id, no state or no counts.
        """
        counts, plan, verification = (_object(json, name) for name in ("counts", "plan", "verification"))
        labels, prefixes = _object(json, "labels") or {}, json.get("prefixes")
        if not _text(json, "id") or not _text(json, "state") or counts is None:
            raise InvalidResponse("The answer is no deletion.")
        return cls(
            id=_text(json, "id"),
            state=_text(json, "state"),
            generation=_number(json, "generation"),
            fence=_text(json, "fence"),
            counts=Counts.from_json(counts),
            duplicates_removed=_number(json, "duplicates_removed"),
            messages=_number(json, "messages"),
            requested_at=_time(json, "requested_at"),
            not_before=_time(json, "not_before"),
            started_at=_time(json, "started_at"),
            finished_at=_time(json, "finished_at"),
            expires_at=_time(json, "expires_at"),
            errors=tuple(map(ErrorCount.from_json, _objects(json, "errors"))),
            labels={str(name): str(value) for name, value in labels.items()},
            requested_by=_text(json, "requested_by"),
            dry_run=json.get("dry_run") is True,
            prefixes=tuple(map(str, prefixes)) if isinstance(prefixes, list) else None,
            found_by_prefix=_number(json, "found_by_prefix"),
            plan=None if plan is None else Plan.from_json(plan),
            verification=None if verification is None else Verification.from_json(verification),
            replayed=replayed,
            raw=json,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A key that ended undeleted, or a prefix that could not be listed to the end."""

    key: str = field(repr=False)
    code: str
    """Such as `object_locked`; docs/api.md says what to do about each."""
    message: str
    attempts: int
    failed_at: datetime | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Failure:
        """Reads it."""
        return cls(
            key=_text(json, "key"),
            code=_text(json, "code"),
            message=_text(json, "message"),
            attempts=_number(json, "attempts"),
            failed_at=_time(json, "failed_at"),
            raw=json,
        )


@dataclass(frozen=True, slots=True)
class Skip:
    """A key that was left alone, because its object was uploaded after the request."""

    key: str = field(repr=False)
    code: str
    uploaded_at: datetime | None
    skipped_at: datetime | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Skip:
        """Reads it."""
        uploaded_at, skipped_at = _time(json, "uploaded_at"), _time(json, "skipped_at")
        return cls(_text(json, "key"), _text(json, "code"), uploaded_at, skipped_at, raw=json)


@dataclass(frozen=True, slots=True)
class KeysDigest:
    """A digest of a set of keys, whatever their order."""

    algorithm: str
    keys: int
    """How many."""
    value: str
    """64 hexadecimal digits."""

    ALGORITHM = "sha256-sum"

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeysDigest:
        """The digest of `keys`, each of which must be there once.

        It is the sum of the SHA-256 of each, as big-endian numbers, modulo 2^256.
        """
        total = count = 0
        for key in keys:
            total += int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
            count += 1
        return cls(cls.ALGORITHM, count, f"{total % 2**256:064x}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What has become of a deletion, to be kept when the service has forgotten it. Keep `raw`."""

    issued_at: datetime | None
    deletion: Deletion
    deleted_keys_digest: KeysDigest | None
    """Of the keys deleted; only of a deletion with `verify`."""
    raw: Json = field(repr=False, compare=False)

    def is_of(self, keys: Iterable[str]) -> bool:
        """Whether exactly these keys, each named once, are what was deleted. False without a digest to tell by.

        The digest tells lists apart that differ by accident, and is no proof against somebody who makes keys up.
        """
        return self.deleted_keys_digest is not None and self.deleted_keys_digest == KeysDigest.of(keys)

    @classmethod
    def from_json(cls, json: Json) -> Receipt:
        """Reads it.

        Raises:
            InvalidResponse: When it has no deletion.
        """
        digest, deletion = _object(json, "deleted_keys_digest"), _object(json, "deletion")
        if deletion is None:
            raise InvalidResponse("The answer is no receipt.")
        read = None
        if digest is not None:
            read = KeysDigest(_text(digest, "algorithm"), _number(digest, "keys"), _text(digest, "value"))
        return cls(_time(json, "issued_at"), Deletion.from_json(deletion), read, raw=json)


@dataclass(frozen=True, slots=True)
class Redrive:
    """What is sent again of one deletion."""

    deletion: str
    keys: int


@dataclass(frozen=True, slots=True)
class Redrives:
    """What one call sends again of all deletions, or would send."""

    dry_run: bool
    redrives: tuple[Redrive, ...]
    keys: int
    more: bool
    """There are more than one call takes, or some that another is sending: call again."""
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Redrives:
        """Reads it."""
        redrives = (Redrive(_text(one, "deletion"), _number(one, "keys")) for one in _objects(json, "redrives"))
        return cls(json.get("dry_run") is True, tuple(redrives), _number(json, "keys"), json.get("more") is True, json)


@dataclass(frozen=True, slots=True)
class OldestUnfinished:
    """The deletion that has waited longest for its end."""

    id: str
    requested_at: datetime | None

    @classmethod
    def from_json(cls, json: Json) -> OldestUnfinished:
        """Reads it."""
        return cls(_text(json, "id"), _time(json, "requested_at"))


@dataclass(frozen=True, slots=True)
class Notices:
    """Completion notices that were not delivered."""

    owed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The totals over all deletions that are kept."""

    deletions: Mapping[str, int]
    """How many are in each state."""
    keys: Counts
    oldest_unfinished: OldestUnfinished | None
    failures: tuple[ErrorCount, ...]
    unreadable_messages: int
    notices: Notices
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Stats:
        """Reads it."""
        oldest, notices = _object(json, "oldest_unfinished"), _object(json, "notices") or {}
        states = _object(json, "deletions") or {}
        return cls(
            deletions={str(state): count for state, count in states.items() if isinstance(count, int)},
            keys=Counts.from_json(_object(json, "keys") or {}),
            oldest_unfinished=None if oldest is None else OldestUnfinished.from_json(oldest),
            failures=tuple(map(ErrorCount.from_json, _objects(json, "failures"))),
            unreadable_messages=_number(json, "unreadable_messages"),
            notices=Notices(_number(notices, "owed"), _number(notices, "failed")),
            raw=json,
        )
