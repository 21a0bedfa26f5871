"""Keys are cut into parts: none is lost, none comes twice, and each part is one that the API takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2_deletion_queue._http import run
from r2_deletion_queue._parts import AsyncKeys, Part, Splitter, encode

# Everything that JSON escapes or UTF-8 lengthens, line feeds and commas among it.
KEYS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=60)
LONGEST = max(len(encode(chr(code) * 12, 0)) for code in (0, 0x41, 0x1F600))


def split(keys: AsyncKeys, keys_max: int, bytes_max: int) -> list[Part]:
    splitter = Splitter(keys, keys_max=keys_max, bytes_max=bytes_max)
    parts = []
    while (part := run(splitter.next())).keys:
        parts.append(part)
    assert splitter.has_ended
    return parts


@given(keys=KEYS, keys_max=st.integers(1, 20), bytes_max=st.integers(LONGEST, 4 * LONGEST))
def test_no_key_is_lost_or_there_twice_and_each_part_is_within_the_limits(
    keys: list[str], keys_max: int, bytes_max: int
) -> None:
    parts = split(iter(keys), keys_max, bytes_max)
    bodies = [part.as_ndjson() for part in parts]
    assert [json.loads(line) for body in bodies for line in body.splitlines()] == keys
    assert [key for part in parts for key in json.loads(part.as_json())] == keys
    for part, body in zip(parts, bodies, strict=True):
        assert 1 <= part.keys <= keys_max
        assert len(body) <= bytes_max
        assert len(part.as_json()) <= len(body) + 1
        assert part.keys == body.count(b"\n")
    # None is cut short: the first key of the next part would not have fitted.
    for part, body, following in zip(parts, bodies, bodies[1:], strict=False):
        assert part.keys == keys_max or len(body) + following.index(b"\n") + 1 > bytes_max


@given(keys=KEYS, keys_max=st.integers(1, 20))
def test_an_asynchronous_source_is_cut_in_the_same_way(keys: list[str], keys_max: int) -> None:
    async def source() -> AsyncIterator[str]:
        for key in keys:
            yield key

    assert split(source(), keys_max, 10_000) == split(keys, keys_max, 10_000)


def test_a_part_reads_one_key_beyond_it_and_no_more() -> None:
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for read in range(1, 1_000):
            yield f"key-{read}"

    splitter = Splitter(source(), keys_max=10)
    for parts in range(1, 20):
        assert run(splitter.next()).keys == 10
        assert read == 10 * parts + 1
        assert not splitter.has_ended


@pytest.mark.parametrize(("key", "error"), [("\ud800canary", ValueError), (b"canary", TypeError), (None, TypeError)])
def test_what_is_no_key_is_refused_by_its_position_and_not_shown(key: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^key 1 ") as raised:
        split(["a", key], 10, 1_000)  # type: ignore[list-item]
    assert "canary" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("keys", ["proj_42/", b"proj_42/", bytearray(b"proj_42/")])
def test_a_text_is_not_taken_for_its_characters(keys: str) -> None:
    with pytest.raises(TypeError, match=r"\[key\]"):
        Splitter(keys)


def test_a_key_longer_than_a_request_is_refused() -> None:
    with pytest.raises(ValueError, match="key 0 is longer"):
        split(["a" * 100], 10, 50)
