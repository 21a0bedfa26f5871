"""The service, with a fake of the Workers."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from r2_deletion_queue.testing import FakeServer

from backend.app import create_app
from backend.executors.worker import WorkerExecutor
from backend.settings import Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE = 20.0
TEMPLATES = ("projects/{id}/", "proj_{id}/")

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(objects=["projects/42/a", "proj_42/lost", "projects/421/a"], project_templates=TEMPLATES)


@pytest.fixture
def settings(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    values = {
        "R2_DELETION_URL": server.url,
        "R2_DELETION_TOKEN": server.token,
        "NOTICE_SECRET": SECRET,
        "PROJECT_TEMPLATES": json.dumps(TEMPLATES),
        "DATABASE": str(tmp_path / "backend.db"),
        "POLL_SECONDS": "0.01",
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backend.relay.IDLE_SECONDS", 0.01)
    monkeypatch.delenv("MONGO_URL", raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return Settings()


@asynccontextmanager
async def running(settings: Settings, server: FakeServer) -> AsyncIterator[httpx.AsyncClient]:
    """The service, from its start to its end."""
    app = create_app(settings, executor=WorkerExecutor(server.async_client()))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://backend.invalid") as api,
    ):
        yield api


@pytest.fixture
async def api(settings: Settings, server: FakeServer) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings, server) as api:
        yield api


async def until(api: httpx.AsyncClient, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Waits until project 42 is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        project: dict[str, Any] = (await api.get("/projects/42")).json()
        if is_it(project):
            return project
        assert time.monotonic() < deadline, project
        await asyncio.sleep(0.01)


async def test_a_project_goes_with_its_files_and_those_that_nobody_tracked(
    api: httpx.AsyncClient, server: FakeServer
) -> None:
    assert (await api.put("/projects/42")).status_code == 201
    assert (await api.put("/projects/42")).status_code == 200
    assert (await api.post("/projects/42/files", json={"paths": ["projects/42/a"]})).status_code == 201
    assert (await api.get("/projects/42")).json()["files"] == 1
    answer = await api.delete("/projects/42")
    assert (answer.status_code, answer.json()["state"]) == (202, "deleting")
    assert answer.headers["location"] == "/projects/42"
    assert (await api.post("/projects/42/files", json={"paths": ["projects/42/b"]})).status_code == 409
    gone = await until(api, lambda project: project["state"] == "deleted")
    assert gone == {"id": "42", "state": "deleted", "files": 0, "deleted": 2, "reason": None}
    assert server.objects == {"projects/421/a"}
    assert (await api.delete("/projects/42")).status_code == 200
    body = json.loads(next(request for request in server.requests if request.method == "POST").content)
    assert (body["objectKeys"], body["project"]) == (["projects/42/a"], "42")


async def test_what_is_wrong_is_refused(api: httpx.AsyncClient) -> None:
    assert (await api.get("/projects/42")).status_code == 404
    assert (await api.delete("/projects/42")).status_code == 404
    assert (await api.post("/projects/42/files", json={"paths": ["projects/42/a"]})).status_code == 409
    assert (await api.put("/projects/4_2")).status_code == 422
    await api.put("/projects/42")
    for paths in ([], ["projects/421/a"], ["projects/42"], ["a"], ["projects/42/" + "ä" * 600]):
        assert (await api.post("/projects/42/files", json={"paths": paths})).status_code == 422


async def test_the_service_is_out_of_order_for_a_while(api: httpx.AsyncClient, server: FakeServer) -> None:
    await api.put("/projects/42")
    server.refuse(401, "invalid_token")
    await api.delete("/projects/42")
    late = await until(api, lambda project: project["reason"] is not None)
    assert (late["state"], late["reason"]) == ("deleting", "invalid_token")
    await until(api, lambda project: project["state"] == "deleted")


async def test_a_failed_deletion_says_why_and_is_asked_for_again(api: httpx.AsyncClient, server: FakeServer) -> None:
    await api.put("/projects/42")
    server.fail("projects/42/a")
    await api.delete("/projects/42")
    failed = await until(api, lambda project: project["state"] == "failed")
    assert (failed["reason"], failed["deleted"]) == ("1 object_locked", 1)
    server.fail("projects/42/a", code="deleted")
    assert (await api.delete("/projects/42")).status_code == 202
    await until(api, lambda project: project["state"] == "deleted")
    assert server.objects == {"projects/421/a"}


async def test_what_was_uploaded_meanwhile_is_deleted_later(
    api: httpx.AsyncClient, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.relay.REPEAT_SECONDS", 0.2)
    await api.put("/projects/42")
    server.skip("projects/42/a")
    await api.delete("/projects/42")
    await until(api, lambda project: project["deleted"] == 1)
    assert "projects/42/a" in server.objects
    server.fail("projects/42/a", code="deleted")
    gone = await until(api, lambda project: project["state"] == "deleted")
    assert gone["deleted"] == 2
    assert server.objects == {"projects/421/a"}


async def test_the_end_of_a_deletion_is_told(
    settings: Settings, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "poll_seconds", 3_600.0)
    async with running(settings, server) as api:
        await api.put("/projects/42")
        await api.delete("/projects/42")
        with server.client() as client:
            await until(api, lambda _: bool(list(client.list())))
            ended = client.wait(next(client.list()))
        body = json.dumps({"type": "deletion.finished", "data": dict(ended.raw)}).encode()
        assert (await api.post("/webhooks/r2-deletions", content=body, headers=signed(body + b" "))).status_code == 401
        assert (await api.get("/projects/42")).json()["state"] == "deleting"
        for _ in range(2):
            assert (await api.post("/webhooks/r2-deletions", content=body, headers=signed(body))).status_code == 204
        gone = (await api.get("/projects/42")).json()
        assert (gone["state"], gone["deleted"]) == ("deleted", 2)


def signed(body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    code = hmac.new(key, f"n.{now}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": "n",
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{base64.b64encode(code).decode()}",
    }


def test_settings_that_are_missing_are_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.executor == "worker"
    monkeypatch.setenv("EXECUTOR", "s3")
    with pytest.raises(ValueError, match="needs R2_BUCKET and R2_ENDPOINT and R2_ACCESS_KEY_ID"):
        Settings()
