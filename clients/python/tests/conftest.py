"""How the tests are run, and the service that the scenarios of `test_service.py` meet.

That is the pair on the runtime if the environment says where, as `tests/e2e/tests/python_client.rs` does; else it is
the fake. So the fake is held to what the service does.
"""

from __future__ import annotations

import http.server
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import settings

from r2_deletion_queue import AsyncClient, Client
from r2_deletion_queue.testing import FakeServer

# The machine may be busy: a slow example is no wrong one.
settings.register_profile("ours", deadline=None, database=None)
settings.load_profile("ours")

URL = os.environ.get("R2_DELETION_URL")


@dataclass
class Service:
    """The clients of a service, and its bucket."""

    fake: FakeServer | None

    def client(self, token: str | None = None, **arguments: Any) -> Client:
        if self.fake is None:
            return Client(token=token, **arguments)
        return Client(self.fake.url, token or self.fake.token, transport=self.fake.transport, **arguments)

    def async_client(self, **arguments: Any) -> AsyncClient:
        return AsyncClient(**arguments) if self.fake is None else self.fake.async_client(**arguments)

    def put(self, keys: Iterable[str]) -> None:
        """Puts objects into the bucket."""
        if self.fake is None:
            httpx.post(f"{URL}/__dev/objects", json={"keys": list(keys), "size": 10}, timeout=60).raise_for_status()
        else:
            self.fake.objects.update(keys)

    def objects(self, prefix: str) -> set[str]:
        """The keys in the bucket that begin so."""
        if self.fake is not None:
            return {key for key in self.fake.objects if key.startswith(prefix)}
        answer = httpx.get(f"{URL}/__dev/objects", params={"prefix": prefix}, timeout=60).raise_for_status()
        return {one["key"] for one in answer.json()["objects"]}


@pytest.fixture(scope="session")
def service() -> Service:
    return Service(None if URL else FakeServer())


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def failed(service: Service) -> str:
    """A deletion of which 2,500 keys have failed."""
    if service.fake is None:
        return os.environ["R2_DELETION_FAILED"]
    keys = [f"{number:01000d}" for number in range(2_500)]
    service.fake.fail(*keys)
    with service.client() as client:
        return client.wait(client.create(keys)).id


@dataclass
class Endpoint:
    """Where completion notices arrive, each with its headers and its body."""

    secret: str
    arrived: queue.Queue[tuple[dict[str, str], bytes]]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Listens where the consumer was told to post."""
    if not URL:
        pytest.skip("the fake posts nothing")
    arrived: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.put((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    port = int(os.environ["R2_DELETION_NOTICE_PORT"])
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Endpoint(os.environ["R2_DELETION_NOTICE_SECRET"], arrived)
        server.shutdown()
        thread.join()
