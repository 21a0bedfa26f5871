"""Keys as lines of JSON, cut into parts that the API takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

REQUEST_KEYS_MAX = 100_000
"""Most keys of one request, and of one part."""
REQUEST_BYTES_MAX = 16_000_000
"""Most bytes of its body."""
PARTS_MAX = 1_000
"""Most parts of one deletion."""

Keys: TypeAlias = Iterable[str]
AsyncKeys: TypeAlias = Iterable[str] | AsyncIterable[str]


class _Unsuspending:
    """An iterator as an asynchronous one that never suspends."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterator[str]) -> None:
        self._keys = keys

    def __aiter__(self) -> _Unsuspending:
        return self

    async def __anext__(self) -> str:
        try:
            return next(self._keys)
        except StopIteration:
            raise StopAsyncIteration from None


def iterate(keys: AsyncKeys) -> AsyncIterator[str]:
    """Goes through keys, whichever kind of iterable they are.

    Raises:
        TypeError: For a text, whose characters nobody means as keys.
    """
    if isinstance(keys, (str, bytes, bytearray)):
        raise TypeError("keys must be an iterable of keys: for one key, write [key]")
    if isinstance(keys, AsyncIterable):
        return aiter(keys)
    return _Unsuspending(iter(keys))


def encode(key: str, position: int) -> bytes:
    """A key as a line of a body. Raises without saying the key, which is personal data."""
    if not isinstance(key, str):
        raise TypeError(f"key {position} is a {type(key).__name__}, not a str")
    try:
        # Escapes line feeds, so that a line is a key.
        return json.dumps(key, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        raise ValueError(f"key {position} has half a surrogate pair in it, which no text in UTF-8 has") from None


@dataclass(slots=True)
class Part:
    """Keys that go in one request."""

    keys: int = 0
    lines: bytearray = field(default_factory=bytearray, repr=False)

    def as_ndjson(self) -> bytes:
        """A key a line."""
        return bytes(self.lines)

    def take_ndjson(self) -> bytes:
        """The same, and gives the memory free whoever else has the part."""
        body = bytes(self.lines)
        self.lines.clear()
        return body

    def as_json(self) -> bytes:
        """A list of keys. Line feeds stand between lines only: within texts they are escaped."""
        return b"[" + self.lines[:-1].replace(b"\n", b",") + b"]"


class Splitter:
    """Cuts keys into parts, in the order in which they come; holds one part, and the key that did not fit into it."""

    def __init__(
        self, keys: AsyncKeys, *, keys_max: int = REQUEST_KEYS_MAX, bytes_max: int = REQUEST_BYTES_MAX
    ) -> None:
        self._keys = iterate(keys)
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        self._position = 0
        self._left_over = b""
        self.has_ended = False
        """There are no more keys than those that were given out."""

    async def next(self) -> Part:
        """The next part; one without keys at the end.

        Raises:
            ValueError: For a key that fits into no request, or is no text.
        """
        part = Part()
        if self._left_over:
            part.lines += self._left_over
            part.keys, self._left_over = 1, b""
        async for key in self._keys:
            line = encode(key, self._position)
            if len(line) > self._bytes_max:
                raise ValueError(f"key {self._position} is longer than a request may be")
            self._position += 1
            if part.keys == self._keys_max or len(part.lines) + len(line) > self._bytes_max:
                self._left_over = line
                return part
            part.lines += line
            part.keys += 1
        self.has_ended = True
        return part
