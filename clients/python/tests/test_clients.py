"""The two clients: the same calls, waiting, lists, and what they keep to themselves."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from r2_deletion_queue import (
    AsyncClient,
    Client,
    ConnectionFailed,
    Deletion,
    DeletionFailed,
    InvalidResponse,
    NotFound,
    Retry,
    State,
    TimedOut,
    Unauthenticated,
    WaitTimeout,
)
from r2_deletion_queue._http import Response, run
from r2_deletion_queue.testing import FakeServer
from world import ID, TOKEN, World, answer, deletion, problem


def surface(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
    methods = {name: method for name, method in vars(client).items() if not name.startswith("_")}
    return {
        name.removeprefix("a") if name == "aclose" else name: [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(method).parameters.values()
        ]
        for name, method in methods.items()
    }


def test_both_clients_have_the_same_calls() -> None:
    assert surface(Client) == surface(AsyncClient)
    assert inspect.signature(Client).parameters.keys() == inspect.signature(AsyncClient).parameters.keys()


def test_both_clients_ask_the_same() -> None:
    """Every call, by either: the requests are the same to the byte, and so are the answers."""
    ours, theirs = FakeServer(objects=["b", "c/1"]), FakeServer(objects=["b", "c/1"])
    for server in (ours, theirs):
        server.fail("b")
    with ours.client(max_request_keys=2) as client:
        created = client.create(["a", "b", "c"], labels={"a": "b"}, verify=True, idempotency_key="one")
        plain: list[Any] = [created, client.wait(created), list(client.failures(created))]
        plain += [list(client.skipped(created)), client.redrive(created), client.wait(created)]
        plain += [client.receipt(created).deleted_keys_digest, client.stats(), list(client.list(labels={"a": "b"}))]
        plain += [client.plan(prefixes=["c/"], idempotency_key="two").plan]
        plain += [client.cancel(client.create(["a"], delay_seconds=60, idempotency_key="three")).state]

    async def awaited() -> list[Any]:
        async def keys() -> AsyncIterator[str]:
            for key in ("a", "b", "c"):
                yield key

        async with theirs.async_client(max_request_keys=2) as client:
            created = await client.create(keys(), labels={"a": "b"}, verify=True, idempotency_key="one")
            found: list[Any] = [created, await client.wait(created), [one async for one in client.failures(created)]]
            found += [[one async for one in client.skipped(created)]]
            found += [await client.redrive(created), await client.wait(created)]
            found += [(await client.receipt(created)).deleted_keys_digest, await client.stats()]
            found += [[one async for one in client.list(labels={"a": "b"})]]
            found += [(await client.plan(prefixes=["c/"], idempotency_key="two")).plan]
            undone = await client.create(["a"], delay_seconds=60, idempotency_key="three")
            return [*found, (await client.cancel(undone)).state]

    # Times are those of two servers.
    without_times = r"datetime\.datetime\([^)]*\)"
    shown = [re.sub(without_times, "TIME", repr(results)) for results in (plain, asyncio.run(awaited()))]
    assert shown[0] == shown[1]
    requests = [
        [
            (request.method, request.url.raw_path, request.content, request.headers["accept"])
            for request in server.requests
        ]
        for server in (ours, theirs)
    ]
    assert requests[0] == requests[1]
    assert len(requests[0]) > 15


def test_the_synchronous_client_works_within_an_event_loop() -> None:
    async def inside() -> int:
        with FakeServer().client(max_request_keys=1) as client:
            return client.wait(client.create(iter(["a", "b"]))).counts.deleted

    assert asyncio.run(inside()) == 2


# Waiting.


def looked(*states: str, retry_after: str = "1") -> World:
    return World(
        [
            answer(200, deletion(state), **({} if state in ("succeeded", "failed") else {"retry_after": retry_after}))
            for state in states
        ]
    )


def test_wait_looks_as_often_as_the_service_says_and_tells_of_each_look() -> None:
    world, seen = looked("queued", "running", "succeeded", retry_after="5"), list[str]()

    async def tell(deletion: Deletion) -> None:
        seen.append(deletion.state)

    ended = run(world.core().wait(ID, None, tell))
    assert (ended.state, seen, world.sleeps) == ("succeeded", ["queued", "running", "succeeded"], [5.25, 5.25])


def test_wait_goes_on_in_a_state_that_it_does_not_know() -> None:
    assert run(looked("queued", "hibernating", "succeeded").core().wait(ID, None, None)).state == "succeeded"


def test_wait_outlives_what_passes() -> None:
    world = looked("queued", "succeeded")
    world.answers[1:1] = [TimedOut("GET"), problem(503, "ledger_unavailable", retryable=True, retry_after="5")]
    assert run(world.core().wait(ID, None, None)).state == "succeeded"


def test_wait_ends_in_time_with_a_last_look_at_the_deletion() -> None:
    world = World(then=lambda _: answer(200, deletion("running"), retry_after="5"))
    with pytest.raises(WaitTimeout, match="running after 12 s") as raised:
        run(world.core().wait(ID, 12, None))
    assert raised.value.deletion.state == State.RUNNING
    assert isinstance(raised.value, TimeoutError)
    assert (world.time, len(world.requests)) == (12, 4)


def test_wait_does_not_outlast_its_time_when_there_is_no_answer() -> None:
    world = World(then=lambda _: TimedOut("GET"))
    with pytest.raises(TimedOut):
        run(world.core().wait(ID, 10, None))
    assert 0 < world.time < 10


def test_a_failed_deletion_is_returned_or_raised_as_asked() -> None:
    assert run(looked("failed").core().wait(ID, None, None)).state == "failed"
    with pytest.raises(DeletionFailed) as raised:
        run(looked("failed").core().wait(ID, None, None, raise_on_failure=True))
    assert raised.value.deletion.id == ID


# Lists.


def test_a_list_is_read_to_its_end_over_pages_that_may_be_empty() -> None:
    keys = [f"key-{number}" for number in range(2_500)]
    server = FakeServer()
    server.fail(*keys)
    with server.client() as client:
        created = client.wait(client.create(keys))
        assert [failure.key for failure in client.failures(created)] == keys
    assert [str(request.url.params) for request in server.requests[-3:]] == [
        "page_size=1000",
        "page_size=1000&page_token=1000",
        "page_size=1000&page_token=2000",
    ]
    empty = answer(200, {"deletions": [], "next_page_token": "more"})
    last = answer(200, {"deletions": [deletion()], "next_page_token": None})
    with Client("https://a.example", TOKEN, transport=httpx.MockTransport(responding([empty, last]))) as client:
        assert [one.id for one in client.list()] == [ID]


def responding(answers: list[Response]) -> Any:
    def handle(_: httpx.Request) -> httpx.Response:
        given = answers.pop(0)
        return httpx.Response(given.status, headers=dict(given.headers), content=given.body)

    return handle


def test_a_redrive_says_which_failures() -> None:
    world = World([answer(202, {"dry_run": True, "redrives": [{"deletion": ID, "keys": 2}], "keys": 2, "more": False})])
    before = datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    redrives = run(world.core().redrive_failures("throttled", before, dry_run=True))
    assert (redrives.keys, redrives.redrives[0].deletion) == (2, ID)
    said = {"code": "throttled", "failed_before": "2030-01-01T00:00:00.000Z", "dry_run": True}
    assert json.loads(world.requests[0].body or b"") == said
    with pytest.raises(ValueError, match="time zone"):
        run(world.core().redrive_failures(None, datetime(2030, 1, 1), dry_run=True))  # noqa: DTZ001 - it is refused


# What they take, and what they keep to themselves.


@pytest.mark.parametrize(
    "url", ["", "example.com", "ftp://a", "https://", "https://user:canary@a.example", "https://a?b"]
)
def test_a_url_that_is_none_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2_DELETION_URL", raising=False)
    with pytest.raises(ValueError, match="R2_DELETION_URL") as raised:
        Client(url, TOKEN)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "canary\n", "canary canary", "canäry"])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2_DELETION_TOKEN", raising=False)
    with pytest.raises(ValueError, match="R2_DELETION_TOKEN") as raised:
        AsyncClient("https://a.example", token)
    assert "can" not in str(raised.value).replace("cannot", "")


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "a/b", "a?b", "a%2fb", "a\n"])
def test_an_id_that_is_no_segment_of_a_path_is_refused(name: str) -> None:
    with FakeServer().client() as client:
        for call in (client.get, client.cancel, client.receipt, client.failures, client.wait):
            with pytest.raises(ValueError, match="a deletion or its id"):
                call(name)


def test_a_path_before_the_api_is_kept() -> None:
    seen = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json=deletion())

    with Client("https://a.example/deletions/", TOKEN, transport=httpx.MockTransport(handle)) as client:
        client.get(ID)
    assert seen == [f"https://a.example/deletions/v1/deletions/{ID}"]


def test_what_is_not_the_api_is_said_to_be_so() -> None:
    for given in (Response(200, {}, b"<html>"), answer(200, []), answer(200, {}), answer(200, {"id": ID})):
        with pytest.raises(InvalidResponse):
            run(World([given]).core().get(ID))


def test_neither_token_nor_keys_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = FakeServer(token="canary-token")
    shown = []
    with server.client(max_request_keys=1) as client:
        created = client.create(["canary-1", "canary-2"], labels={"who": "canary"})
        shown += [repr(client), repr(created), repr(client.wait(created))]
        server.fail("canary-1")
        shown += [repr(list(client.failures(client.wait(client.create(["canary-1"])))))]
        for name, keys in (("del_0", ["a"]), (created.id, ["canary", "canary\ud800"])):
            with pytest.raises((NotFound, ValueError)) as raised:
                client.create(keys, plan=client.get(name))
            shown += [str(raised.value), repr(raised.value), *getattr(raised.value, "__notes__", [])]
    with Client(server.url, "canary-other", transport=server.transport) as client, pytest.raises(Unauthenticated) as no:
        client.create(["canary"])
    shown += [str(no.value), repr(no.value), caplog.text]
    assert "canary" not in "\n".join(shown)


@pytest.mark.parametrize(
    ("error", "kind", "attempts"),
    [
        (httpx.ReadTimeout("slow"), TimedOut, 3),
        (httpx.ConnectError("refused"), ConnectionFailed, 3),
        (httpx.RemoteProtocolError("broken off"), ConnectionFailed, 3),
        (httpx.LocalProtocolError("no header"), ConnectionFailed, 1),
        (httpx.DecodingError("no gzip"), InvalidResponse, 1),
    ],
)
def test_no_answer_is_one_of_our_exceptions(error: httpx.HTTPError, kind: type[Exception], attempts: int) -> None:
    server = FakeServer()
    server._troubles = [(False, error)] * 3
    with server.client() as client, pytest.raises(NotFound if attempts == 3 else kind):
        client.get(ID)
    assert len(server.requests) == (4 if attempts == 3 else 1)
    server._troubles = [(False, error)]
    with server.client(retry=Retry(total=0)) as client, pytest.raises(kind) as raised:
        client.get(ID)
    assert type(raised.value) is kind


def test_now_is_no_part_of_a_time_zone() -> None:
    """The times of answers are in UTC and say so."""
    with FakeServer().client() as client:
        asked = client.create(["a"]).requested_at
    assert asked is not None
    assert abs((datetime.now(UTC) - asked).total_seconds()) < 60
