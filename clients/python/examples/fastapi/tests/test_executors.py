"""What each executor asks for, and what it makes of the answer."""

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from r2_deletion_queue.testing import FakeServer

from backend.executors import worker
from backend.executors.s3 import S3Executor
from backend.executors.worker import WorkerExecutor
from backend.executors.wrangler import WranglerExecutor
from backend.model import Job, Outcome, Progress

pytestmark = pytest.mark.anyio

JOB = Job("job-1", "42", None, 1)


async def test_the_same_job_is_the_same_deletion() -> None:
    server = FakeServer(objects=["projects/42/a", "projects/421/a"])
    async with server.async_client() as client:
        executor = WorkerExecutor(client)
        first = await executor.start(JOB, ["projects/42/a"])
        assert await executor.start(JOB, ["projects/42/a"]) == first
        assert (await executor.start(Job("job-2", "42", None, 1), ["projects/42/a"])).reference != first.reference
        # With MongoDB a path can be gone again when the job is tried once more: no reason to be refused for ever.
        assert (await executor.start(JOB, [])).reference != first.reference
        assert await executor.look("del_unknown") == Progress()


async def test_no_more_is_named_than_one_request_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "NAMED_MAX", 3)
    paths = [f"projects/42/{number}" for number in range(5)]
    server = FakeServer(objects=[*paths, "projects/421/a"])
    async with server.async_client() as client:
        executor = WorkerExecutor(client)
        started = await executor.start(JOB, paths)
        assert json.loads(server.requests[0].content)["objectKeys"] == paths[:3]
        ended = await client.wait(started.reference or "")
        assert worker.progress_of(ended) == Progress(ended.id, Outcome(5))
        monkeypatch.setattr(worker, "NAMED_BYTES_MAX", 40)
        await executor.start(JOB, paths)
        assert json.loads(server.requests[-1].content)["objectKeys"] == paths[:2]
    assert server.objects == {"projects/421/a"}


async def test_s3_reads_every_page_and_every_error() -> None:
    s3 = boto3.client("s3", region_name="auto", aws_access_key_id="id", aws_secret_access_key="secret")
    bucket, prefix = "files", "projects/42/"
    pages: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"Contents": [{"Key": "projects/42/a"}], "IsTruncated": True, "NextContinuationToken": "more"}),
        ({"ContinuationToken": "more"}, {"Contents": [{"Key": "projects/42/b"}, {"Key": "projects/42/c"}]}),
    ]
    with Stubber(s3) as stub:
        for asked, page in pages:
            stub.add_response("list_objects_v2", page, {"Bucket": bucket, "Prefix": prefix, **asked})
            keys = [{"Key": entry["Key"]} for entry in page["Contents"]]
            errors = [{"Key": key["Key"], "Code": "AccessDenied"} for key in keys[1:]]
            expected = {"Bucket": bucket, "Delete": {"Objects": keys, "Quiet": True}}
            stub.add_response("delete_objects", {"Errors": errors}, expected)
        executor = S3Executor(s3, bucket, ["projects/{id}/"])
        assert await executor.start(JOB, []) == Progress(outcome=Outcome(2, reason="1 AccessDenied"))
        stub.assert_no_pending_responses()


async def test_wrangler_is_run_for_each_path(tmp_path: Path) -> None:
    script = tmp_path / "wrangler.py"
    script.write_text(
        "import sys\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n"
        "sys.exit('locked' in sys.argv[4])\n"
    )
    executor = WranglerExecutor([sys.executable, str(script)], "files", ["--remote"])
    paths = ["projects/42/a b", "projects/42/locked"]
    assert await executor.start(JOB, paths) == Progress(outcome=Outcome(1, reason="1 wrangler_failed"))
    runs = (tmp_path / "runs").read_text().splitlines()
    assert runs == [str(["r2", "object", "delete", f"files/{path}", "--remote"]) for path in paths]
