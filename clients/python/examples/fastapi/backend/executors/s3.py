"""The old way, second attempt: the S3 API, from this process."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from backend.model import Job, Outcome, Progress, places

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class S3Executor:
    """Lists the project's places, and deletes each page of up to 1,000 keys by one DeleteObjects.

    With what earlier versions of this did wrong put right: every page is listed, not the first alone; and DeleteObjects
    answers 200 also when keys of it have failed, so its `Errors` are read. What is wrong with the way itself remains:

    - This process has to live as long as it takes. Killed, it begins again with the first page.
    - It keeps others waiting: the relay does one job at a time.
    - A key that fails is tried as often as boto3 does, within seconds. Then the deletion has failed.
    - What is uploaded between the list and the delete is deleted with it: nothing looks at its time.
    - What became of which key is known to nobody afterwards.
    - This process holds a secret that can delete the whole bucket.
    """

    def __init__(self, client: "S3Client", bucket: str, templates: list[str]) -> None:
        self._client = client
        self._bucket = bucket
        self._templates = templates

    async def start(self, job: Job, paths: list[str]) -> Progress:  # noqa: ARG002 - the list finds them
        """See `Executor`."""
        return Progress(outcome=await asyncio.to_thread(self._delete, places(self._templates, job.project)))

    async def look(self, reference: str) -> Progress:  # noqa: ARG002 - there is nothing that went on
        """See `Executor`."""
        return Progress()

    def _delete(self, prefixes: tuple[str, ...]) -> Outcome:
        deleted, errors = 0, Counter[str]()
        for prefix in prefixes:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                keys = [entry["Key"] for entry in page.get("Contents", [])]
                if not keys:
                    continue
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
                )
                failed = answer.get("Errors", [])
                errors.update(error.get("Code", "unknown") for error in failed)
                deleted += len(keys) - len(failed)
        reason = ", ".join(f"{count} {code}" for code, count in sorted(errors.items()))
        return Outcome(deleted, reason=reason or None)
