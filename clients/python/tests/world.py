"""What the tests share: a port without a network, whose time passes when somebody waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from r2_deletion_queue._core import Core
from r2_deletion_queue._errors import ConnectionFailed
from r2_deletion_queue._http import Request, Response
from r2_deletion_queue._retry import Retry

TOKEN = "canary-token"
ID = "del_01m8679jhs5nkam9tcyfa766k1"
Answer = Response | ConnectionFailed


class World:
    """Answers from a list, or by a function once that is used up, and notes what was asked."""

    def __init__(
        self, answers: Iterable[Answer] = (), *, then: Callable[[Request], Answer] | None = None, draw: float = 0.5
    ) -> None:
        self.answers = list(answers)
        self.then = then
        self.requests: list[Request] = []
        self.sleeps: list[float] = []
        self.time = 0.0
        self._draw = draw

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        if not self.answers and self.then is None:
            raise AssertionError(f"one request too many: {request}")
        answer = self.answers.pop(0) if self.answers or self.then is None else self.then(request)
        if isinstance(answer, ConnectionFailed):
            raise answer
        return answer

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds

    def now(self) -> float:
        return self.time

    def draw(self) -> float:
        return self._draw

    def core(self, *, retry: Retry | None = None, keys_max: int = 100_000, bytes_max: int = 16_000_000) -> Core:
        return Core(self, TOKEN, retry=retry, keys_max=keys_max, bytes_max=bytes_max)


def answer(status: int, body: object = None, **headers: str) -> Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, names, json.dumps(body).encode())


def problem(status: int, code: str, *, retryable: bool = False, **headers: str) -> Response:
    said = {
        "type": "about:blank",
        "title": "Title",
        "status": status,
        "detail": "What went wrong.",
        "code": code,
        "retryable": retryable,
        "request_id": "req_01m86831gt5d7y0wq3r8k6n2zb",
    }
    return answer(status, said, **headers)


def deletion(state: str = "queued", **fields: Any) -> dict[str, Any]:
    counts = {"total": 2, "pending": 0, "deleted": 2, "skipped": 0, "failed": 0, "cancelled": 0}
    return {"id": ID, "state": state, "counts": counts} | fields
