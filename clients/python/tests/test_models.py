"""What is read of answers, from this version and from others."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import r2_deletion_queue
from r2_deletion_queue import (
    Counts,
    Deletion,
    ErrorCount,
    Failure,
    InvalidResponse,
    KeysDigest,
    Plan,
    Receipt,
    Redrives,
    Skip,
    State,
    Stats,
    Verification,
)
from world import ID, deletion

DESCRIPTION = Path(__file__).parents[3] / "producer/assets/openapi.json"


@pytest.fixture(scope="module")
def schemas() -> Mapping[str, Any]:
    if not DESCRIPTION.exists():
        pytest.skip("the description is beside the producer only")
    schemas: Mapping[str, Any] = json.loads(DESCRIPTION.read_text())["components"]["schemas"]
    return schemas


@pytest.mark.parametrize(
    "model", [Counts, Deletion, ErrorCount, Failure, Plan, Receipt, Redrives, Skip, Stats, Verification]
)
def test_every_field_of_the_description_is_a_field(model: type, schemas: Mapping[str, Any]) -> None:
    ours = {field.name for field in dataclasses.fields(model)} - {"raw", "replayed"}
    assert ours == set(schemas[model.__name__]["properties"])


def test_every_state_of_the_description_is_known(schemas: Mapping[str, Any]) -> None:
    assert set(State) == set(schemas["State"]["enum"])


def test_the_examples_of_the_description_are_read(schemas: Mapping[str, Any]) -> None:
    example = schemas["Deletion"]["examples"][0]
    read = Deletion.from_json(example)
    assert (read.state, read.is_final, read.counts.failed, read.errors[0].r2_code) == ("failed", True, 3, 10069)
    assert read.requested_at == datetime(2026, 11, 24, 8, 33, 15, 394_000, tzinfo=UTC)
    assert read.raw is example
    failure = schemas["Failure"]["examples"][0]
    assert Failure.from_json(failure).key == failure["key"]


def test_a_deletion_of_another_version_is_read() -> None:
    """Without the fields that came later, and with fields and a state that are yet to come."""
    read = Deletion.from_json(deletion("hibernating", colour="blue", counts={"total": 3, "lost": 1}))
    assert (read.state, read.is_final, read.counts.total, read.plan, read.prefixes) == (
        "hibernating",
        False,
        3,
        None,
        None,
    )
    assert read.raw["colour"] == "blue"
    assert Deletion.from_json(deletion("hibernated", finished_at="2026-11-24T08:33:19.208Z")).is_final


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(json: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    inner = json.items() if isinstance(json, dict) else enumerate(json) if isinstance(json, list) else ()
    for name, value in inner:
        yield from places(value, (*path, name))


@given(data=st.data(), value=JSON)
def test_whatever_stands_somewhere_it_is_read_or_said_to_be_no_answer(data: st.DataObject, value: object) -> None:
    whole: dict[str, Any] = {
        "deletion": deletion(
            errors=[{"code": "throttled", "r2_code": None, "count": 1}],
            plan={"objects": 1, "sample": ["a"]},
            verification={"verified_at": "2026-11-24T08:33:19.208Z"},
            prefixes=["a/"],
            labels={"a": "b"},
        ),
        "deleted_keys_digest": {"algorithm": "sha256-sum", "keys": 1, "value": "00"},
    }
    changed = copy.deepcopy(whole)
    path = data.draw(st.sampled_from([path for path in places(whole) if path]))
    parent: Any = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with contextlib.suppress(InvalidResponse):
        repr(Receipt.from_json(changed))


def test_no_repr_has_a_key_a_prefix_or_a_label() -> None:
    canary = "canary"
    plan = {"objects": 1, "sample": [canary]}
    shown = [
        Deletion.from_json(deletion(labels={"who": canary}, prefixes=[canary], plan=plan, more=canary)),
        Failure.from_json({"key": canary, "code": "throttled", "message": "m", "attempts": 1}),
        Skip.from_json({"key": canary, "code": "uploaded_since"}),
    ]
    assert canary not in repr(shown)


def test_the_digest_is_that_of_the_service() -> None:
    assert KeysDigest.of([]).value == "0" * 64
    # The example of docs/api.md.
    keys = ["proj_46_b.jpg", "projects/46/c.jpg", "proj_46/a.jpg"]
    assert KeysDigest.of(keys).value == "12904c6db24a4a81d26770c578b5b7ce5e46a66cb3954a1dd4613c58c527c96f"
    one = KeysDigest.of(["a"])
    # SHA-256 of "a".
    assert one == KeysDigest("sha256-sum", 1, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
    both = (int(one.value, 16) + int(KeysDigest.of(["b"]).value, 16)) % 2**256
    assert KeysDigest.of(["b", "a"]) == KeysDigest("sha256-sum", 2, f"{both:064x}")


def test_a_receipt_is_of_its_keys_and_no_others() -> None:
    digest = KeysDigest.of(["a", "b"])
    json_digest = {"algorithm": digest.algorithm, "keys": digest.keys, "value": digest.value}
    receipt = Receipt.from_json({"deletion": deletion(), "deleted_keys_digest": json_digest})
    assert receipt.is_of(["b", "a"])
    assert not receipt.is_of(["a"])
    assert not receipt.is_of(["a", "c"])
    assert not Receipt.from_json({"deletion": deletion(), "deleted_keys_digest": None}).is_of([])


def test_all_that_is_public_is_exported() -> None:
    for name in r2_deletion_queue.__all__:
        assert getattr(r2_deletion_queue, name) is not None
    assert Deletion.from_json(deletion()).id == ID
