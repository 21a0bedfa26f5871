"""What can go wrong, as exceptions, and how an answer becomes one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._models import Deletion

__all__ = [
    "ApiError",
    "Conflict",
    "ConnectionFailed",
    "DeletionFailed",
    "Error",
    "FieldError",
    "Forbidden",
    "InvalidResponse",
    "NotFound",
    "RateLimited",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "ValidationFailed",
    "WaitTimeout",
    "error_of",
]


class Error(Exception):
    """Whatever this package raises beside `ValueError` and `TypeError` for wrong arguments."""


class ConnectionFailed(Error):
    """There was no answer, however often it was tried: whether the request has arrived is not known.

    Call again with the same `idempotency_key`.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class TimedOut(ConnectionFailed):
    """The answer did not come in time."""


class InvalidResponse(Error):
    """An answer that is not the API's: is the URL that of the producer?"""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong at one place of a request."""

    pointer: str
    """A JSON Pointer such as `#/objectKeys/17`, `line 17`, or `?name`."""
    detail: str
    """What is wrong there, for a person."""


class ApiError(Error):
    """The API has refused the request. Its subclasses say why; `code` says it exactly."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: str,
        retryable: bool,
        request_id: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        raw: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        """The HTTP status."""
        self.code = code
        """Stable, such as `validation_failed`; `http_502` and the like where something in between has answered."""
        self.detail = detail
        """For a person."""
        self.retryable = retryable
        """Whether the same request may succeed later."""
        self.request_id = request_id
        """As it is in the producer's log."""
        self.errors = tuple(errors)
        """What is wrong where: the first 20."""
        self.retry_after = retry_after
        """After how many seconds to try again, if the server has said so."""
        self.deletion_id: str | None = None
        """The deletion that was begun, when it is a part of it that was refused."""
        self.raw: Mapping[str, Any] = raw or {}
        """The problem as it came."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Goes whole from one process to another, as in Celery."""
        return _rebuild, (type(self), self.detail, self.__dict__)

    def __str__(self) -> str:
        request = f" ({self.request_id})" if self.request_id else ""
        places = "".join(f"\n  {error.pointer}: {error.detail}" for error in self.errors)
        return f"{self.status} {self.code}: {self.detail}{request}{places}"


def _rebuild(kind: type[ApiError], detail: str, fields: dict[str, Any]) -> ApiError:
    error = kind.__new__(kind, detail)
    error.__dict__.update(fields)
    return error


class ValidationFailed(ApiError):
    """The request is wrong, and nothing of it was accepted: correct what `errors` points at."""


class Unauthenticated(ApiError):
    """The token is missing or is none."""


class Forbidden(ApiError):
    """The token may not do this, or not with these keys."""


class NotFound(ApiError):
    """There is no such deletion, or it is another token's."""


class Conflict(ApiError):
    """The deletion is not in a state for this, or the Idempotency-Key belongs to another request."""


class RateLimited(ApiError):
    """Too many calls, or too much in the Queue."""


class Unavailable(ApiError):
    """The service cannot do it at the moment."""


class DeletionFailed(Error):
    """A deletion has ended, and some key was not deleted; `failures(...)` says which."""

    def __init__(self, deletion: Deletion) -> None:
        codes = ", ".join(sorted({error.code for error in deletion.errors}))
        because = f" ({codes})" if codes else ""
        super().__init__(f"{deletion.id}: {deletion.counts.failed} of {deletion.counts.total} keys failed{because}")
        self.deletion = deletion

    def __reduce__(self) -> tuple[Any, ...]:
        """As `ApiError`."""
        return type(self), (self.deletion,)


class WaitTimeout(Error, TimeoutError):
    """A deletion is not over within the time that was given to `wait`. It goes on."""

    def __init__(self, deletion: Deletion, timeout: float) -> None:
        pending = f"{deletion.counts.pending} of {deletion.counts.total} keys are pending"
        super().__init__(f"{deletion.id} is {deletion.state} after {timeout:g} s, {pending}")
        self.deletion = deletion
        """As it was at the last look."""
        self.timeout = timeout

    def __reduce__(self) -> tuple[Any, ...]:
        """As `ApiError`."""
        return type(self), (self.deletion, self.timeout)


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    429: RateLimited,
}
_SERVER_ERROR = 500
_REQUEST_ERROR = 400
# Without a word of the API's: what the network in between says when trying again helps.
_RETRYABLE_STATUS = frozenset({408, 425, 429})


def _family(status: int, code: str) -> type[ApiError]:
    if code == "idempotency_key_reused":
        return Conflict
    if status >= _SERVER_ERROR:
        return Unavailable
    return _BY_STATUS.get(status, ValidationFailed if status >= _REQUEST_ERROR else ApiError)


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """What an answer outside 2xx means; `headers` have names in lower case.

    What the API says of `retryable` counts for more than the status. Every request of this client is safe to send
    again, so that an answer of something in between is judged by its status alone.
    """
    problem: Mapping[str, Any] = {}
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if isinstance(read, dict):
        problem = read
    code, said, errors = problem.get("code"), problem.get("retryable"), problem.get("errors")
    code = code if isinstance(code, str) else f"http_{status}"
    guessed = status >= _SERVER_ERROR or status in _RETRYABLE_STATUS
    request_id = problem.get("request_id") or headers.get("x-request-id")
    return _family(status, code)(
        status=status,
        code=code,
        detail=str(problem.get("detail") or problem.get("title") or "The answer is not one of the API."),
        retryable=said if isinstance(said, bool) else guessed,
        request_id=str(request_id) if request_id else None,
        errors=[
            FieldError(str(error.get("pointer", "")), str(error.get("detail", "")))
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, dict)
        ],
        retry_after=retry_after_of(headers),
        raw=problem,
    )


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`; none when they are not a number of them, as RFC 9110 has clients do."""
    said = headers.get("retry-after", "").strip()
    return float(said) if said.isascii() and said.isdigit() else None
