"""What Schemathesis cannot know of the API by its description: how NDJSON is written, and which answers no schema foresees."""

import json

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Writes a list as lines. What is none, as negative tests have it, is a line that is no key."""
    return "\n".join(map(json.dumps, value if isinstance(value, list) else [[value]])).encode()


@schemathesis.deserializer("application/x-ndjson")
def elements(context, response):
    """Reads lines as a list."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether a failure is one: a valid request may be refused for what it says about an earlier one, and only then."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
        return True
    problem = response.json()
    if problem["code"] == "idempotency_key_reused":
        return False
    # A page_token is opaque: only the one that the page before gave is right.
    return [error["pointer"] for error in problem.get("errors", [])] != ["?page_token"]
