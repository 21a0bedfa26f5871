"""Completion notices are believed only when they are signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2_deletion_queue import webhook
from world import ID, deletion

# The vector of the libraries of Standard Webhooks, which the consumer is tested with, too.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx"
BODY = b'{"test": 2432232314}'
SENT = 1_614_265_330
HEADERS = {
    "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(SENT),
    "WEBHOOK-SIGNATURE": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def verify(
    headers: dict[str, str] = HEADERS, body: bytes = BODY, secrets: str | Iterable[str] = SECRET, now: float = SENT
) -> webhook.Notice:
    return webhook.verify(headers, body, secrets, now=now)


@pytest.mark.parametrize("secrets", [SECRET, [SECRET], [OTHER, SECRET], f"{OTHER} {SECRET}", iter([SECRET])])
def test_a_notice_that_any_of_the_secrets_signed_is_read(secrets: str | Iterable[str]) -> None:
    notice = verify(secrets=secrets)
    assert (notice.id, notice.raw, notice.deletion) == (HEADERS["Webhook-Id"], json.loads(BODY), None)


@pytest.mark.parametrize("signatures", ["{}", "v1,AAAA {}", "{} v1,AAAA", "v1a,AAAA v2 , {} v1,ü"])
def test_one_signature_among_others_is_enough(signatures: str) -> None:
    verify(HEADERS | {"WEBHOOK-SIGNATURE": signatures.format(HEADERS["WEBHOOK-SIGNATURE"])})


@pytest.mark.parametrize("now", [SENT - 301, SENT + 301])
def test_what_was_sent_at_another_time_is_refused(now: float) -> None:
    with pytest.raises(webhook.VerificationFailed, match="sent"):
        verify(now=now)
    verify(now=SENT + 300)
    verify(now=SENT - 300)


@pytest.mark.parametrize("name", list(HEADERS))
@pytest.mark.parametrize("value", [None, "", "x", "-5", "१", "v1,", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="])
def test_a_header_that_is_missing_or_another_is_refused(name: str, value: str | None) -> None:
    headers = {key: text for key, text in HEADERS.items() if key != name}
    with pytest.raises(webhook.VerificationFailed):
        verify(headers if value is None else headers | {name: value})


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_body_that_is_another_in_one_byte_is_refused(at: int, difference: int) -> None:
    body = bytearray(BODY)
    body[at] ^= difference
    with pytest.raises(webhook.VerificationFailed):
        verify(body=bytes(body))


@pytest.mark.parametrize("secrets", ["", " ", [], "whsec_", "whsec_?canary", ["canary not base64!"]])
def test_without_a_secret_nothing_is_verified(secrets: str | list[str]) -> None:
    with pytest.raises(ValueError, match="secret") as raised:
        verify(secrets=secrets)
    assert "canary" not in str(raised.value)


def test_a_notice_has_the_deletion() -> None:
    body = json.dumps(
        {"type": "deletion.finished", "timestamp": "2026-11-24T08:33:15.702Z", "data": deletion("succeeded")}
    )
    signed = f"{ID}_0.{SENT}.{body}".encode()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    code = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": f"{ID}_0", "webhook-timestamp": str(SENT), "webhook-signature": f"v1,{code}"}
    notice = webhook.verify(headers, body, SECRET, now=SENT)
    assert notice.deletion is not None
    assert (notice.type, notice.deletion.id, notice.deletion.state) == ("deletion.finished", ID, "succeeded")
    assert notice.timestamp is not None
    assert notice.timestamp.isoformat() == "2026-11-24T08:33:15.702000+00:00"
