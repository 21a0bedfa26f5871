"""Which requests a deletion is asked for with."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2_deletion_queue import ApiError, Deletion, Forbidden
from r2_deletion_queue._core import Options
from r2_deletion_queue._http import USER_AGENT, Request, Response, run
from r2_deletion_queue.testing import FakeServer
from world import ID, TOKEN, World, answer, deletion, problem


def sent(keys: Any = (), idempotency_key: str | None = "key", **options: Any) -> Request:
    world = World([answer(202, deletion())])
    run(world.core().create(keys, Options(**options), idempotency_key))
    return world.requests[0]


def body(request: Request) -> Any:
    return json.loads(request.body or b"")


def test_few_keys_go_as_json() -> None:
    request = sent(["a", "b"], labels={"project": "42"}, delay_seconds=60, fence="always", verify=True)
    assert (request.method, request.path, request.query) == ("POST", "/v1/deletions", ())
    assert request.headers == {
        "Authorization": f"Bearer {TOKEN}",
        "User-Agent": USER_AGENT,
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Idempotency-Key": "key",
    }
    fields = {"labels": {"project": "42"}, "delay_seconds": 60, "fence": "always", "verify": True}
    assert body(request) == {"objectKeys": ["a", "b"], **fields}


def test_many_keys_go_as_lines_with_the_options_in_the_query() -> None:
    keys = [f"project/{number}" for number in range(50_000)]
    request = sent(iter(keys), labels={"project": "42"}, delay_seconds=60, verify=True, project="7", max_objects=9)
    assert request.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in (request.body or b"").splitlines()] == keys
    query = {"label.project": "42", "delay_seconds": "60", "verify": "true", "project": "7", "max_objects": "9"}
    assert dict(request.query) == query


@pytest.mark.parametrize("options", [{"prefixes": ["x/"]}, {"labels": {str(n): "v" * 512 for n in range(16)}}])
def test_many_keys_go_as_json_where_a_query_cannot_say_the_rest(options: dict[str, Any]) -> None:
    request = sent([f"project/{number}" for number in range(50_000)], **options)
    assert (request.headers["Content-Type"], request.query) == ("application/json", ())
    assert body(request).items() >= options.items()
    assert len(body(request)["objectKeys"]) == 50_000


def test_a_sweep_needs_no_keys() -> None:
    plan = Deletion.from_json(deletion("planned"))
    assert body(sent(prefixes=["a/", "b/"], max_objects=0)) == {"prefixes": ["a/", "b/"], "max_objects": 0}
    assert body(sent(project="42")) == {"project": "42"}
    assert body(sent(plan=plan)) == {"plan": ID}


@pytest.mark.parametrize("options", [{}, {"prefixes": []}, {"dry_run": True}, {"verify": True, "labels": {"a": "b"}}])
def test_nothing_is_not_asked_for(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="nothing to delete"):
        run(World().core().create(iter([]), Options(**options), None))


@pytest.mark.parametrize("prefixes", ["projects/", b"projects/"])
def test_a_text_is_not_taken_for_a_list_of_prefixes(prefixes: Any) -> None:
    with pytest.raises(TypeError, match=r"\[prefix\]"):
        Options(prefixes=prefixes)


@pytest.mark.parametrize("key", ["", '"quoted"', " a", "a ", "a\nb", "schlüssel"])
def test_an_idempotency_key_that_no_header_can_have_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        sent(["a"], key)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.lists(st.text(max_size=5), max_size=3))
def test_the_same_arguments_are_the_same_bytes(labels: dict[str, str], keys: list[str]) -> None:
    """The service knows a request that is sent again by its body."""
    keys = [key for key in keys if key.isprintable()] + ["a"]
    reversed_labels = dict(reversed(labels.items()))
    assert sent(keys, labels=labels).body == sent(iter(keys), labels=reversed_labels).body


def test_the_whole_body_counts_against_the_limit() -> None:
    """Two keys of 41 bytes as lines fit into 90 bytes, and do not with what JSON says around them."""
    world = World(
        then=lambda request: answer(202, deletion("accepting" if b"in_parts" in (request.body or b"") else "queued"))
    )
    run(world.core(bytes_max=90).create(["a" * 38, "b" * 38], Options(labels={"project": "42"}), "key"))
    assert [request.method for request in world.requests] == ["POST", "PUT", "POST"]
    assert all(len(request.body or b"") <= 90 for request in world.requests)


# In parts.


def in_parts(server: FakeServer, keys: Any, **arguments: Any) -> Deletion:
    with server.client(max_request_keys=10) as client:
        return client.create(keys, **arguments)


def paths(server: FakeServer) -> list[str]:
    return [f"{request.method} {request.url.path.removeprefix('/v1/deletions')}" for request in server.requests]


def test_more_than_one_request_takes_goes_in_parts_and_is_sealed() -> None:
    server = FakeServer()
    created = in_parts(server, (f"key-{number % 24}" for number in range(25)), labels={"a": "b"}, delay_seconds=9)
    of = f"/{created.id}"
    assert paths(server) == ["POST ", *(f"PUT {of}/parts/{number}" for number in (1, 2, 3)), f"POST {of}/seal"]
    begun, *parts, seal = (request.content for request in server.requests)
    assert json.loads(begun) == {"in_parts": True, "labels": {"a": "b"}, "delay_seconds": 9}
    assert [len(part.splitlines()) for part in parts] == [10, 10, 5]
    assert json.loads(seal) == {"parts": 3, "total_keys": 25}
    assert (created.state, created.counts.total, created.duplicates_removed) == ("queued", 25, 0)


def test_exactly_one_requests_worth_is_one_request() -> None:
    server = FakeServer()
    in_parts(server, [f"key-{number}" for number in range(10)])
    assert paths(server) == ["POST "]


def test_no_more_than_a_part_is_read_ahead() -> None:
    server = FakeServer()
    seen: list[tuple[int, int]] = []

    def keys() -> Iterator[str]:
        for number in range(35):
            seen.append((number, len(server.requests)))
            yield f"key-{number}"

    in_parts(server, keys())
    # The first key of the third part is read when the first is not yet put, and so on.
    assert [requests for number, requests in seen if number in (10, 20, 30)] == [0, 2, 3]


def test_a_deletion_takes_little_more_memory_than_a_part() -> None:
    class Forgetful(World):
        async def send(self, request: Request) -> Response:
            try:
                return await super().send(request)
            finally:
                self.requests.clear()

    part, keys = 1_000_000, (f"{number:01000d}" for number in range(20_000))
    world = Forgetful(then=lambda request: answer(202, deletion("accepting" if request.method == "POST" else "queued")))
    tracemalloc.start()
    try:
        run(world.core(bytes_max=part).create(keys, Options(), None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The part, as it was collected and as it is sent, and what a growing buffer has too much.
    assert peak < 2.4 * part


def test_a_call_that_died_half_way_is_carried_on_by_the_same_call() -> None:
    server = FakeServer()
    keys = [f"key-{number}" for number in range(35)]
    dying = iter(keys[:25])

    def source() -> Iterator[str]:
        yield from dying
        raise RuntimeError("the database has gone")

    with pytest.raises(RuntimeError, match="the database has gone") as raised:
        in_parts(server, source(), idempotency_key="erasure-7")
    assert "idempotency_key='erasure-7'" in raised.value.__notes__[0]
    created = in_parts(server, keys, idempotency_key="erasure-7")
    assert created.id in raised.value.__notes__[0]
    assert (created.state, created.counts.total, created.duplicates_removed) == ("queued", 35, 0)
    # And again, when it is sealed: nothing is put, and it is the same.
    puts = sum(request.method == "PUT" for request in server.requests)
    assert in_parts(server, keys, idempotency_key="erasure-7").id == created.id
    assert sum(request.method == "PUT" for request in server.requests) == puts
    # With other keys it is not.
    with pytest.raises(ApiError) as refused:
        in_parts(server, keys[:-1], idempotency_key="erasure-7")
    assert (refused.value.code, refused.value.deletion_id) == ("parts_incomplete", created.id)


@pytest.mark.parametrize("lost", range(5))
@pytest.mark.parametrize("answers_only", [False, True])
def test_whichever_request_or_answer_is_lost_each_key_is_there_once(*, lost: int, answers_only: bool) -> None:
    server = FakeServer()
    answered = iter(range(100))
    handle = server.handle

    def losing(request: Any) -> Any:
        if next(answered) == lost:
            server.drop(answers_only=answers_only)
        return handle(request)

    server.transport.handler = losing
    created = in_parts(server, [f"key-{number}" for number in range(25)])
    assert len(server.requests) == 6
    assert (created.state, created.counts.total, created.duplicates_removed) == ("queued", 25, 0)
    with server.client() as client:
        assert client.stats().keys.total == 25


def test_a_refused_part_says_of_which_deletion() -> None:
    refused = problem(403, "key_not_allowed")
    world = World([answer(202, deletion("accepting")), refused])
    with pytest.raises(Forbidden) as raised:
        run(world.core(keys_max=1).create(["a", "canary"], Options(), None))
    assert raised.value.deletion_id == ID
    assert ID in raised.value.__notes__[0]
    assert "canary" not in str(raised.value) + raised.value.__notes__[0]


@pytest.mark.parametrize("options", [{"prefixes": ["x/"]}, {"project": "42"}, {"plan": ID}, {"dry_run": True}])
def test_what_cannot_go_in_parts_is_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="more keys than one request takes"):
        run(World().core(keys_max=1).create(["a", "b"], Options(**options), None))


def test_a_deletion_of_more_parts_than_there_may_be_is_left_unsealed() -> None:
    def respond(request: Request) -> Response:
        assert not request.path.endswith("/seal")
        return answer(202, deletion("accepting"))

    world = World(then=respond)
    with pytest.raises(ValueError, match="1000 parts"):
        run(world.core(keys_max=1).create(map(str, range(1_001)), Options(), None))
    assert len(world.requests) == 1_001
