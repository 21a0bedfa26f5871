"""Exceptions: of which family, what they say, and that they survive a journey."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2_deletion_queue import (
    ApiError,
    Conflict,
    ConnectionFailed,
    Deletion,
    DeletionFailed,
    Error,
    Forbidden,
    NotFound,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
    WaitTimeout,
)
from r2_deletion_queue._errors import error_of
from world import ID, deletion

DESCRIPTION = Path(__file__).parents[3] / "producer/assets/openapi.json"

PROBLEM = {
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "1 of the keys is invalid. Nothing was accepted.",
    "code": "validation_failed",
    "retryable": False,
    "request_id": "req_01m86831gt5d7y0wq3r8k6n2zb",
    "errors": [{"pointer": "#/objectKeys/1", "detail": "the key is empty"}],
    "hint": "of a later version",
}


def test_a_problem_says_all_that_the_service_has_said() -> None:
    error = error_of(422, {"retry-after": "7"}, json.dumps(PROBLEM).encode())
    assert isinstance(error, ValidationFailed)
    assert (error.status, error.code, error.retryable, error.retry_after) == (422, "validation_failed", False, 7)
    assert (error.errors[0].pointer, error.raw["hint"]) == ("#/objectKeys/1", "of a later version")
    assert str(error) == (
        "422 validation_failed: 1 of the keys is invalid. Nothing was accepted. (req_01m86831gt5d7y0wq3r8k6n2zb)\n"
        "  #/objectKeys/1: the key is empty"
    )


def test_every_status_of_the_description_has_its_family() -> None:
    if not DESCRIPTION.exists():
        pytest.skip("the description is beside the producer only")
    families = {
        401: Unauthenticated,
        403: Forbidden,
        404: NotFound,
        408: Unavailable,
        409: Conflict,
        429: RateLimited,
        503: Unavailable,
    }
    paths = json.loads(DESCRIPTION.read_text())["paths"]
    statuses = {
        int(status)
        for path in paths.values()
        for call in path.values()
        if isinstance(call, dict)
        for status in call.get("responses", ())
    }
    refusals = {status for status in statuses if status >= 400}
    assert refusals >= {400, 401, 403, 404, 409, 413, 422, 429, 503}
    for status in refusals:
        assert type(error_of(status, {}, b"{}")) is families.get(status, ValidationFailed)


@given(
    st.integers(300, 599), st.binary(max_size=40) | st.sampled_from([b"[]", b'{"code": 5, "errors": [1, {}]}', b"null"])
)
def test_whatever_the_answer_is_it_is_an_exception(status: int, body: bytes) -> None:
    error = error_of(status, {}, body)
    assert error.status == status
    assert str(error).startswith(str(status))
    assert error.retryable == (status >= 500 or status in (408, 425, 429))


def _travelled(error: Error) -> Error:
    arrived: Error = pickle.loads(pickle.dumps(error))  # noqa: S301 - ours
    return arrived


def test_exceptions_go_from_one_process_to_another() -> None:
    api = error_of(422, {}, json.dumps(PROBLEM).encode())
    api.deletion_id = ID
    api.add_note("a note")
    read = Deletion.from_json(deletion("failed"))
    errors: list[Error] = [api, ConnectionFailed("lost", retryable=False), TimedOut("slow")]
    errors += [DeletionFailed(read), WaitTimeout(read, 5)]
    for error in errors:
        for other in (_travelled(error), copy.copy(error)):
            assert type(other) is type(error)
            assert str(other) == str(error)
            assert vars(other) == vars(error)
    assert isinstance(api, ApiError)
