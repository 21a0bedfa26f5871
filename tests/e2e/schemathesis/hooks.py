"""The answers that are right although no schema can foresee them. Everything else that a check finds is a failure."""

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData


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
