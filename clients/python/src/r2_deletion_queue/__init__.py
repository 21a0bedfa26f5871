"""Client of r2-deletion-queue: deletes objects from Cloudflare R2, reliably and by the million.

with Client(url, token) as client:
    deletion = client.create(keys)
    client.wait(deletion, raise_on_failure=True)
"""

from ._client import AsyncClient, Client
from ._errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    DeletionFailed,
    Error,
    FieldError,
    Forbidden,
    InvalidResponse,
    NotFound,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    ValidationFailed,
    WaitTimeout,
)
from ._http import __version__
from ._models import (
    Counts,
    Deletion,
    ErrorCount,
    Failure,
    Fence,
    KeysDigest,
    Notices,
    OldestUnfinished,
    Plan,
    Receipt,
    Redrive,
    Redrives,
    Skip,
    State,
    Stats,
    Verification,
)
from ._retry import Retry

__all__ = [
    "Client",
    "AsyncClient",
    "Retry",
    "Deletion",
    "State",
    "Fence",
    "Counts",
    "ErrorCount",
    "Failure",
    "Skip",
    "Plan",
    "Verification",
    "Receipt",
    "KeysDigest",
    "Redrive",
    "Redrives",
    "Stats",
    "OldestUnfinished",
    "Notices",
    "Error",
    "ConnectionFailed",
    "TimedOut",
    "InvalidResponse",
    "DeletionFailed",
    "WaitTimeout",
    "ApiError",
    "ValidationFailed",
    "Unauthenticated",
    "Forbidden",
    "NotFound",
    "Conflict",
    "RateLimited",
    "Unavailable",
    "FieldError",
    "__version__",
]
