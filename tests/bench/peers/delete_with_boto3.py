"""Deletes keys with boto3 as a script does that wants to be quick: DeleteObjects of 1,000 keys, several at once.

The keys come on standard input, one a line. It prints the seconds that it took, without the start of Python and its modules:
a backend has them loaded.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

# S3 takes at most 1,000 keys in one call.
KEYS_PER_CALL = 1000
CALLS_AT_ONCE = 6


def main() -> None:
    bucket = sys.argv[1]
    keys = sys.stdin.read().splitlines()
    began = time.perf_counter()
    client = boto3.client(
        "s3",
        endpoint_url=os.environ["ENDPOINT"],
        region_name="auto",
        config=Config(max_pool_connections=CALLS_AT_ONCE, s3={"addressing_style": "path"}),
    )

    def delete(start: int) -> None:
        objects = [{"Key": key} for key in keys[start : start + KEYS_PER_CALL]]
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        # A 200 can hold errors, which boto3 neither raises nor tries again.
        if errors := answer.get("Errors"):
            raise SystemExit(f"{len(errors)} keys were not deleted")

    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        list(pool.map(delete, range(0, len(keys), KEYS_PER_CALL)))
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
