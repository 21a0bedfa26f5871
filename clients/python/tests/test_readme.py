"""The README is true: its Python runs, in order and as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from r2_deletion_queue import Deletion
from r2_deletion_queue.testing import FakeServer

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_block_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    server = FakeServer(objects=["proj_42/a.jpg", "exports/2019/x.csv"])
    monkeypatch.setenv("R2_DELETION_URL", server.url)
    monkeypatch.setenv("R2_DELETION_TOKEN", server.token)

    def handle(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        request.read()
        return server.handle(request)

    async def handle_async(_: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return server.handle(request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
    asyncio.run(names["erase"]("7"))
    assert names["receive"]({}, b"{}") == 401
    assert capsys.readouterr().out == "2\n"
    quickstart, parts, planned, swept, erased = reversed(
        [Deletion.from_json(view) for view in server.handle(_listing(server)).json()["deletions"]]
    )
    assert (quickstart.state, quickstart.counts.deleted) == ("succeeded", 2)
    assert (parts.counts.total, parts.labels) == (250_000, {"reason": "retention"})
    assert planned.plan is not None
    assert (planned.state, planned.plan.objects) == ("planned", 1)
    assert (swept.state, swept.prefixes) == ("queued", ("exports/2019/",))
    assert erased.state == "succeeded"


def _listing(server: FakeServer) -> httpx.Request:
    return httpx.Request("GET", f"{server.url}/v1/deletions", headers={"Authorization": f"Bearer {server.token}"})


def test_the_quickstart_is_five_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 5
