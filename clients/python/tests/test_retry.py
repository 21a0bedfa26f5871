"""When a call is tried again."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2_deletion_queue import (
    ApiError,
    Conflict,
    ConnectionFailed,
    NotFound,
    RateLimited,
    Retry,
    TimedOut,
    Unavailable,
    ValidationFailed,
)
from r2_deletion_queue._core import Options
from r2_deletion_queue._http import Response, run
from world import ID, TOKEN, Answer, World, answer, deletion, problem

LOST = TimedOut("POST /v1/deletions: ReadTimeout")
ACCEPTED = answer(202, deletion())


@pytest.mark.parametrize(
    "trouble",
    [
        LOST,
        ConnectionFailed("GET: ConnectError"),
        problem(429, "rate_limited", retryable=True),
        problem(503, "overloaded", retryable=True),
        problem(409, "request_in_progress", retryable=True),
        problem(408, "request_timeout", retryable=True),
        Response(502, {}, b"<html>"),
        Response(500, {}, b"error code: 1101"),
        Response(429, {}, b""),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_with_the_same_request(trouble: Answer) -> None:
    world = World([trouble, trouble, ACCEPTED])
    assert run(world.core().create(["a"], Options(), None)).id == ID
    first, second, third = world.requests
    assert first == second == third
    assert first.body == second.body == third.body
    assert first.headers["Idempotency-Key"] == third.headers["Idempotency-Key"]


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (problem(503, "not_configured", retryable=False), Unavailable),
        (problem(409, "parts_closed", retryable=False), Conflict),
        (problem(422, "idempotency_key_reused"), Conflict),
        (problem(404, "not_found"), NotFound),
        (problem(422, "validation_failed"), ValidationFailed),
        (problem(413, "payload_too_large"), ValidationFailed),
        (Response(404, {}, b"<html>"), NotFound),
        (Response(307, {"location": "https://elsewhere.example"}, b""), ApiError),
    ],
    ids=str,
)
def test_what_stays_wrong_is_raised_at_once(trouble: Response, kind: type[ApiError]) -> None:
    world = World([trouble])
    with pytest.raises(kind) as raised:
        run(world.core().create(["a"], Options(), None))
    assert (type(raised.value), raised.value.status, world.sleeps) == (kind, trouble.status, [])


def test_each_call_has_a_key_of_its_own_unless_it_is_given_one() -> None:
    world = World(then=lambda _: ACCEPTED)
    for key in (None, None, "project-42"):
        run(world.core().create(["a"], Options(), key))
    first, second, third = (request.headers["Idempotency-Key"] for request in world.requests)
    assert first != second
    assert third == "project-42"


def test_patience_ends_before_the_total_and_the_last_trouble_is_raised() -> None:
    world = World(then=lambda _: problem(503, "ledger_unavailable", retryable=True, retry_after="5"))
    with pytest.raises(Unavailable) as raised:
        run(world.core(retry=Retry(total=60)).get(ID))
    assert raised.value.code == "ledger_unavailable"
    assert len(world.requests) > 5
    assert world.time < 60
    assert world.time + 5 + 8 >= 60


def test_a_retry_after_longer_than_the_patience_is_not_begun() -> None:
    world = World([problem(429, "rate_limited", retryable=True, retry_after="600")])
    with pytest.raises(RateLimited) as raised:
        run(world.core().get(ID))
    assert (raised.value.retry_after, world.sleeps) == (600.0, [])


def test_without_patience_there_is_one_attempt() -> None:
    world = World([LOST])
    with pytest.raises(TimedOut):
        run(world.core(retry=Retry(total=0)).get(ID))


@given(
    attempt=st.integers(0, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
    elapsed=st.floats(0, 1_000),
    retry_after=st.none() | st.integers(0, 1_000),
)
def test_a_pause_is_jittered_bounded_and_not_before_retry_after(
    attempt: int, draw: float, elapsed: float, retry_after: int | None
) -> None:
    retry = Retry(total=200, base=0.5, cap=8)
    failure = ApiError(status=429, code="rate_limited", detail="", retryable=True, retry_after=retry_after)
    pause = retry.pause(failure, attempt=attempt, elapsed=elapsed, draw=draw)
    least = retry_after or 0
    if pause is None:
        assert elapsed + least + 8 >= 200
    else:
        assert least <= pause <= least + min(8, 0.5 * 2 ** min(attempt, 10))
        assert elapsed + pause < 200


def test_a_malformed_retry_after_is_as_none() -> None:
    world = World([problem(503, "overloaded", retryable=True, retry_after="soon"), answer(200, deletion())])
    run(world.core().get(ID))
    assert world.sleeps == [0.25]


def test_the_log_says_what_is_tried_again_and_neither_token_nor_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World([problem(503, "overloaded", retryable=True), ACCEPTED])
    run(world.core().create(["canary-key"], Options(labels={"who": "canary-label"}), None))
    assert "POST /v1/deletions: overloaded, again in" in caplog.text
    for secret in (TOKEN, "canary"):
        assert secret not in caplog.text
        assert secret not in repr(world.requests)
