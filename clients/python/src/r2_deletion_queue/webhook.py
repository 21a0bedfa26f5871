"""Completion notices, as they are posted to an endpoint of yours: [Standard Webhooks](https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ._errors import Error
from ._models import Deletion

__all__ = ["Notice", "VerificationFailed", "verify"]

_PREFIX = "whsec_"
_VERSION = "v1"


class VerificationFailed(Error):
    """It is no notice of yours: answer with 401, and believe nothing of it."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that was verified."""

    id: str
    """The same when it comes again: `webhook-id`."""
    type: str
    """`deletion.finished`, or a later version's: pass by what you do not know."""
    timestamp: datetime | None
    """When the deletion ended."""
    deletion: Deletion | None
    """The deletion as `Client.get` shows it, when it is about one."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secrets: str | Iterable[str],
    tolerance: float = 300.0,
    *,
    now: float | None = None,
) -> Notice:
    """Reads a notice, if one of `secrets` has signed it.

    Args:
        headers: As they came; the case of their names does not matter.
        body: The bytes as they came, not JSON that was read and written again.
        secrets: One or several `whsec_...`, also as one text with spaces between them.
        tolerance: How many seconds old it may be, or how far ahead our clock may be behind.
        now: The time, as `time.time()` has it.

    Raises:
        VerificationFailed: When it is not signed, not by one of them, or too old.
        ValueError: When there is no secret, or one is none.
    """
    keys = [_key(secret) for secret in _words(secrets)]
    if not keys:
        raise ValueError("there is no secret to verify a notice with")
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not given.get(name)]
    if missing:
        raise VerificationFailed(f"the header {missing[0]} is missing")
    sent = given["webhook-timestamp"]
    if not (sent.isascii() and sent.isdigit()):
        raise VerificationFailed("the header webhook-timestamp is no time")
    age = (time.time() if now is None else now) - int(sent)
    if abs(age) > tolerance:
        raise VerificationFailed(f"it was sent {age:.0f} s ago, by its time and ours")
    body = body.encode() if isinstance(body, str) else bytes(body)
    signed = f"{given['webhook-id']}.{sent}.".encode() + body
    if not _is_signed(signed, keys, given["webhook-signature"]):
        raise VerificationFailed("no signature is that of one of the secrets")
    return _read(given["webhook-id"], body)


def _words(secrets: str | Iterable[str]) -> list[str]:
    texts = [secrets] if isinstance(secrets, str) else list(secrets)
    return [word for text in texts for word in text.split()]


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a secret is whsec_ and base64 behind it")
    return key


def _is_signed(signed: bytes, keys: list[bytes], signatures: str) -> bool:
    """Compares every signature with every key, so that the time it takes says nothing about which was right."""
    found = False
    for key in keys:
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        for signature in signatures.split():
            version, _, code = signature.partition(",")
            is_ours = hmac.compare_digest(code.encode(), expected)
            found |= is_ours and version == _VERSION
    return found


def _read(webhook_id: str, body: bytes) -> Notice:
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise VerificationFailed("it is signed, and no notice")
    data, ended = read.get("data"), read.get("timestamp")
    kind = str(read.get("type", ""))
    about = data if kind.startswith("deletion.") and isinstance(data, dict) else None
    return Notice(
        id=webhook_id,
        type=kind,
        timestamp=datetime.fromisoformat(ended) if isinstance(ended, str) else None,
        deletion=None if about is None else Deletion.from_json(about),
        raw=read,
    )
