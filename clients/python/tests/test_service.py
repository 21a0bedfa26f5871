"""What a caller gets of the service. Each scenario has keys of its own, and leaves what it did not ask for."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from r2_deletion_queue import (
    ApiError,
    Client,
    Conflict,
    DeletionFailed,
    NotFound,
    Unauthenticated,
    ValidationFailed,
    webhook,
)

if TYPE_CHECKING:
    from conftest import Endpoint, Service

PROJECT = Path(__file__).parents[1]
PATIENCE = 120


def test_what_is_asked_for_goes_and_nothing_else(service: Service, client: Client) -> None:
    keys = [f"asked/{number}/ä b%20c" for number in range(1_500)]
    service.put([*keys, "asked/kept"])
    seen: list[int] = []
    created = client.create([*keys, keys[0]], labels={"scenario": "asked"}, verify=True)
    assert (created.state, created.counts.total, created.duplicates_removed) == ("queued", 1_500, 1)
    ended = client.wait(created, timeout=PATIENCE, on_progress=lambda at: seen.append(at.counts.pending))
    assert (ended.state, ended.counts.deleted, ended.is_final) == ("succeeded", 1_500, True)
    assert (seen, seen[-1]) == (sorted(seen, reverse=True), 0)
    assert service.objects("asked/") == {"asked/kept"}
    assert [one.id for one in client.list(labels={"scenario": "asked"})] == [created.id]
    assert client.stats().keys.deleted >= 1_500
    receipt = client.receipt(ended)
    assert receipt.deletion == ended
    assert receipt.is_of(keys)
    assert not receipt.is_of(keys[1:])
    assert [*client.failures(ended), *client.skipped(ended)] == []


def test_parts_are_one_deletion(service: Service) -> None:
    service.put(["parts/0", "parts/2999", "parts/3000"])

    def keys() -> Iterator[str]:
        yield from (f"parts/{number}" for number in range(3_000))
        yield "parts/0"

    with service.client(max_request_keys=700) as client:
        created = client.create(keys(), labels={"scenario": "parts"}, idempotency_key="parts")
        again = client.create(keys(), labels={"scenario": "parts"}, idempotency_key="parts")
        assert again.id == created.id
        ended = client.wait(created, timeout=PATIENCE, raise_on_failure=True)
        with pytest.raises(Conflict) as refused:
            client.create(list(keys())[:-1], labels={"scenario": "parts"}, idempotency_key="parts")
    assert (refused.value.code, refused.value.deletion_id) == ("parts_incomplete", created.id)
    # The same key in two parts counts in each.
    assert (ended.counts.deleted, ended.duplicates_removed) == (3_001, 0)
    assert service.objects("parts/") == {"parts/3000"}


def test_an_upload_that_died_is_carried_on(service: Service) -> None:
    keys = [f"resumed/{number}" for number in range(1_000)]

    def dying() -> Iterator[str]:
        yield from keys[:500]
        raise OSError("the database has gone")

    with service.client(max_request_keys=200) as client:
        with pytest.raises(OSError, match="the database has gone"):
            client.create(dying(), idempotency_key="resumed")
        with pytest.raises(Conflict) as refused:
            client.create(reversed(keys), idempotency_key="resumed")
        assert refused.value.code == "part_differs"
        created = client.create(keys, idempotency_key="resumed")
        assert refused.value.deletion_id == created.id
        counts = client.wait(created, timeout=PATIENCE).counts
    assert (counts.total, counts.deleted) == (1_000, 1_000)


def test_large_requests_go_as_lines(service: Service, client: Client) -> None:
    service.put(["lines/7", "lines/é"])
    keys = [f"lines/{number}" for number in range(30_000)] + ["lines/é"]
    created = client.create(iter(keys), labels={"scenario": "lines & more"}, fence="off")
    ended = client.wait(created, timeout=PATIENCE)
    assert (ended.labels, ended.fence, ended.counts.deleted) == ({"scenario": "lines & more"}, "off", 30_001)
    assert service.objects("lines/") == set()


def test_the_same_request_is_one_deletion_and_another_is_refused(client: Client) -> None:
    first = client.create(["once/a"], idempotency_key="once")
    again = client.create(["once/a"], idempotency_key="once")
    assert (again.id, first.replayed, again.replayed) == (first.id, False, True)
    with pytest.raises(Conflict) as refused:
        client.create(["once/b"], idempotency_key="once")
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")


def test_a_deletion_is_undone_within_its_window(service: Service, client: Client) -> None:
    service.put(["undone/a"])
    created = client.create(["undone/a"], delay_seconds=3_600)
    assert created.not_before is not None
    cancelled = client.cancel(created)
    assert (cancelled.state, cancelled.counts.cancelled) == ("cancelled", 1)
    assert client.wait(created, timeout=PATIENCE, raise_on_failure=True).state == "cancelled"
    assert service.objects("undone/") == {"undone/a"}


def test_failures_are_read_over_their_pages(client: Client, failed: str) -> None:
    failures = list(client.failures(failed))
    assert [failure.key for failure in failures] == [f"{number:01000d}" for number in range(2_500)]
    assert {failure.code for failure in failures} == {"object_locked"}
    with pytest.raises(DeletionFailed, match="2500 of 2500 keys failed"):
        client.wait(failed, raise_on_failure=True)
    assert client.get(failed).errors[0].count == 2_500
    assert (2_500, "object_locked") in [(one.count, one.code) for one in client.stats().failures]
    redrives = client.redrive_failures(code="object_locked", dry_run=True)
    assert (redrives.dry_run, redrives.keys, redrives.more) == (True, 2_500, False)
    assert [(redrive.deletion, redrive.keys) for redrive in redrives.redrives] == [(failed, 2_500)]
    before = datetime(1969, 1, 1, tzinfo=UTC)
    assert client.redrive_failures(failed_before=before, dry_run=True).redrives == ()


def test_a_plan_counts_and_is_then_carried_out(service: Service, client: Client) -> None:
    objects = {f"planned/{number}" for number in range(25)}
    service.put([*objects, "planne", "planned-too"])
    planned = client.plan(prefixes=["planned/"], timeout=PATIENCE)
    assert planned.plan is not None
    assert (planned.state, planned.plan.objects, planned.dry_run) == ("planned", 25, True)
    assert set(planned.plan.sample) <= objects
    assert service.objects("planned/") == objects
    ended = client.wait(client.create(plan=planned, verify=True), timeout=PATIENCE)
    assert (ended.state, ended.counts.deleted, ended.found_by_prefix) == ("succeeded", 25, 25)
    assert client.receipt(ended).is_of(objects)
    assert service.objects("planne") == {"planne", "planned-too"}


def test_too_many_objects_are_not_deleted_by_prefix(service: Service, client: Client) -> None:
    objects = {f"braked/{number}" for number in range(5)}
    service.put(objects)
    ended = client.wait(client.create(prefixes=["braked/"], max_objects=2), timeout=PATIENCE)
    assert (ended.state, ended.counts.failed, ended.counts.deleted) == ("failed", 1, 0)
    assert [(failure.key, failure.code) for failure in client.failures(ended)] == [("braked/", "max_objects_exceeded")]
    assert service.objects("braked/") == objects
    # A prefix that failed is asked for anew: a redrive is about keys.
    assert client.wait(client.redrive(ended), timeout=PATIENCE).state == "failed"
    assert service.objects("braked/") == objects


def test_a_project_is_deleted_with_its_keys(service: Service, client: Client) -> None:
    service.put(["projects/77/a", "projects/77/b", "projects/777/a"])
    ended = client.wait(client.create(["projects/77/a"], project="77"), timeout=PATIENCE)
    assert (ended.state, ended.counts.deleted) == ("succeeded", 2)
    assert service.objects("projects/") == {"projects/777/a"}


def test_what_is_refused_says_why(service: Service, client: Client) -> None:
    stranger = service.client("another-token")
    refusals: list[tuple[type[ApiError], int, str, Any]] = [
        (ValidationFailed, 422, "validation_failed", lambda: client.create(["refused/a", ""])),
        (NotFound, 404, "not_found", lambda: client.get("del_7zzzzzzzzzzzzzzzzzzzzzzzzz")),
        (
            Unauthenticated,
            401,
            "invalid_token",
            lambda: stranger.get("del_7zzzzzzzzzzzzzzzzzzzzzzzzz"),
        ),
    ]
    with stranger:
        for kind, status, code, call in refusals:
            with pytest.raises(kind) as refused:
                call()
            assert (refused.value.status, refused.value.code, refused.value.retryable) == (status, code, False)
            assert re.fullmatch("req_[0-9a-z]{26}", refused.value.request_id or "")
    with pytest.raises(ValidationFailed) as invalid:
        client.create(["refused/a", ""])
    assert [error.pointer for error in invalid.value.errors] == ["#/objectKeys/1"]


def test_asyncio(service: Service) -> None:
    service.put(["asyncio/1", "asyncio/x"])

    async def keys() -> AsyncIterator[str]:
        for number in range(50):
            yield f"asyncio/{number}"

    async def scenario() -> None:
        async with service.async_client(max_request_keys=20) as client:
            created = await asyncio.gather(client.create(keys()), client.create(["asyncio/2"]))
            ended = [await client.wait(one, timeout=PATIENCE) for one in created]
            assert [one.counts.deleted for one in ended] == [50, 1]
            assert [failure async for failure in client.failures(ended[0])] == []

    asyncio.run(scenario())
    assert service.objects("asyncio/") == {"asyncio/x"}


def test_the_end_of_a_deletion_is_told_and_verified(client: Client, endpoint: Endpoint) -> None:
    created = client.create(["noticed/a"], labels={"scenario": "noticed"})
    deadline = time.monotonic() + PATIENCE
    # Notices of other scenarios arrive here, too.
    while True:
        headers, body = endpoint.arrived.get(timeout=deadline - time.monotonic())
        notice = webhook.verify(headers, body, endpoint.secret)
        with pytest.raises(webhook.VerificationFailed):
            webhook.verify(headers, body + b" ", endpoint.secret)
        assert notice.deletion is not None
        if notice.deletion.id == created.id:
            break
    assert (notice.id, notice.type) == (f"{created.id}_0", "deletion.finished")
    assert notice.deletion == client.wait(created)


def test_the_quickstart_of_the_readme(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    if service.fake is not None:
        pytest.skip("test_readme.py runs it against the fake")
    service.put(["proj_42/a.jpg"])
    block = re.search(r"^```python\n(.*?)^```", (PROJECT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    exec(block[1], {})
    assert capsys.readouterr().out == "2\n"
    assert service.objects("proj_42/") == set()


def test_the_command(service: Service) -> None:
    if service.fake is not None:
        pytest.skip("test_cli.py runs it against the fake")
    service.put(["command/a", "command/b"])
    command = [sys.executable, "-m", "r2_deletion_queue", "submit", "-", "--wait", "--label", "scenario=command"]
    run = subprocess.run(command, input="command/a\n", capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (run.returncode, run.stdout.split()[1:]) == (0, ["succeeded:", "1", "deleted", "of", "1"])
    assert service.objects("command/") == {"command/b"}
