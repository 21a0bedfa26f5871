"""The command: submits, watches, cancels. What it prints for people goes to stderr, what scripts read to stdout."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from ._client import Client
from ._errors import ApiError, ConnectionFailed, Error, WaitTimeout
from ._http import __version__
from ._models import Deletion, State

OK, FAILED, USAGE, CANCELLED, TIMEOUT, REFUSED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

_EPILOG = """\
The producer's URL and the token come from R2_DELETION_URL and R2_DELETION_TOKEN.

exit codes:
  0  done as asked                       4  not over within --timeout; it goes on
  1  the deletion ended with failed keys 5  the service refused the request
  2  wrong arguments or input            6  the service cannot be reached or cannot do it now: try again
  3  the deletion was cancelled
"""
_BAR_WIDTH = 30


def main(arguments: Sequence[str] | None = None, client: Callable[[], Client] = Client) -> int:
    """Runs the command, and returns its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        with client() as connected:
            code: int = asked.run(connected, asked)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # Whoever read has read enough. Nothing is left to be flushed at the end, where it would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    except (OSError, ValueError, Error) as error:
        _say(f"r2-deletion-queue: {error}")
        for note in getattr(error, "__notes__", ()):
            _say(note)
        return _code_of(error)


def _code_of(error: Exception) -> int:
    if isinstance(error, WaitTimeout):
        return TIMEOUT
    if isinstance(error, (ApiError, ConnectionFailed)):
        return UNAVAILABLE if error.retryable else REFUSED
    return REFUSED if isinstance(error, Error) else USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="r2-deletion-queue",
        description="Deletes objects from Cloudflare R2 by r2-deletion-queue.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Client, argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print what the service answers, as JSON")
        return command

    submit = add("submit", _submit, "ask for a deletion, and print its id")
    submit.add_argument("file", metavar="FILE", nargs="?", help="a key a line; - for stdin")
    _add_what(submit)
    submit.add_argument("--delay", type=int, default=0, metavar="SECONDS", help="an undo window")
    submit.add_argument("--fence", choices=["auto", "always", "off"], default="auto")
    submit.add_argument("--verify", action="store_true", help="keep a digest of the keys for the receipt")
    submit.add_argument("--plan", metavar="ID", help="delete what this plan has counted")
    submit.add_argument("--wait", action="store_true", help="until it is over, as watch does")
    submit.add_argument("--timeout", type=float, metavar="SECONDS")
    plan = add("plan", _plan, "count what would be deleted, and delete nothing")
    plan.add_argument("file", metavar="FILE", nargs="?", help="a key a line; - for stdin")
    _add_what(plan)
    plan.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS")
    watch = add("watch", _watch, "wait until a deletion is over")
    watch.add_argument("id", metavar="ID")
    watch.add_argument("--timeout", type=float, metavar="SECONDS")
    failures = add("failures", _failures, "print the keys that failed: code and key, with a tab between them")
    failures.add_argument("id", metavar="ID")
    for name, run, about in (
        ("cancel", _cancel, "cancel what of a deletion is not in flight"),
        ("redrive", _redrive, "send the failed keys of a deletion again"),
        ("receipt", _receipt, "print what has become of a deletion, as JSON to be kept"),
    ):
        add(name, run, about).add_argument("id", metavar="ID")
    return parser


def _add_what(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ndjson", action="store_true", help="the lines of FILE are JSON strings")
    command.add_argument("--prefix", action="append", metavar="PREFIX", help="and all keys that begin so")
    command.add_argument("--project", metavar="ID", help="and all keys of this project")
    command.add_argument("--max-objects", type=int, metavar="N", help="delete nothing by prefix if there are more")
    command.add_argument("--label", action="append", default=[], type=_label, metavar="NAME=VALUE")
    command.add_argument("--idempotency-key", metavar="KEY", help="with the same one it is the same deletion")


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def _what(asked: argparse.Namespace) -> dict[str, Any]:
    return {
        "prefixes": asked.prefix,
        "project": asked.project,
        "max_objects": asked.max_objects,
        "labels": dict(asked.label),
        "idempotency_key": asked.idempotency_key,
    }


def _submit(client: Client, asked: argparse.Namespace) -> int:
    with ExitStack() as files:
        deletion = client.create(
            _keys(asked, files),
            delay_seconds=asked.delay,
            fence=asked.fence,
            verify=asked.verify,
            plan=asked.plan,
            **_what(asked),
        )
    if asked.wait:
        _say(deletion.id)
        return _end(_waited(client, deletion.id, asked.timeout), asked)
    print(json.dumps(deletion.raw) if asked.json else deletion.id)
    return OK


def _plan(client: Client, asked: argparse.Namespace) -> int:
    with ExitStack() as files:
        planned = client.plan(_keys(asked, files), timeout=asked.timeout, **_what(asked))
    plan = planned.plan
    if asked.json or plan is None:
        return _end(planned, asked)
    _say(f"{plan.objects} objects of {plan.bytes} bytes, and {plan.keys} keys that were named; nothing was deleted")
    if plan.oldest_uploaded_at is not None and plan.newest_uploaded_at is not None:
        _say(f"uploaded from {plan.oldest_uploaded_at:%Y-%m-%d %H:%M} to {plan.newest_uploaded_at:%Y-%m-%d %H:%M} UTC")
    _say(f"To delete them: r2-deletion-queue submit --plan {planned.id}")
    print(planned.id)
    return OK


def _watch(client: Client, asked: argparse.Namespace) -> int:
    return _end(_waited(client, asked.id, asked.timeout), asked)


def _failures(client: Client, asked: argparse.Namespace) -> int:
    for failure in client.failures(asked.id):
        print(json.dumps(failure.raw) if asked.json else f"{failure.code}\t{failure.key}")
    return OK


def _cancel(client: Client, asked: argparse.Namespace) -> int:
    deletion = client.cancel(asked.id)
    _show(deletion, asked)
    # What was over before could not be cancelled.
    return OK if deletion.state in (State.CANCELLED, State.CANCELLING) else FAILED


def _redrive(client: Client, asked: argparse.Namespace) -> int:
    _show(client.redrive(asked.id), asked)
    return OK


def _receipt(client: Client, asked: argparse.Namespace) -> int:
    print(json.dumps(client.receipt(asked.id).raw, indent=2))
    return OK


def _keys(asked: argparse.Namespace, files: ExitStack) -> Iterable[str]:
    """The keys of the file, read as they are needed."""
    if asked.file is None:
        return ()
    file: BinaryIO = sys.stdin.buffer
    if asked.file != "-":
        file = files.enter_context(Path(asked.file).open("rb"))  # noqa: SIM115 - the stack closes it
    return _lines(file, is_json=asked.ndjson)


def _lines(lines: Iterable[bytes], *, is_json: bool) -> Iterator[str]:
    """Keys are taken as they are: only the end of the line is no part of one, and an empty line is none."""
    for number, line in enumerate(lines, 1):
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        if not bare:
            continue
        try:
            key = json.loads(bare) if is_json else bare.decode()
        except ValueError:
            raise ValueError(f"line {number} is no {'JSON' if is_json else 'UTF-8'}") from None
        if not isinstance(key, str):
            raise ValueError(f"line {number} is no JSON string")  # noqa: TRY004 - wrong input, not a wrong call
        yield key


def _waited(client: Client, name: str, timeout: float | None) -> Deletion:
    progress = _Progress()
    try:
        return client.wait(name, timeout=timeout, on_progress=progress)
    finally:
        progress.end()


class _Progress:
    """A bar on a terminal; elsewhere a line whenever something has changed."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last = ""

    def __call__(self, deletion: Deletion) -> None:
        line = _progress_line(deletion, bar=self._is_terminal)
        if line == self._last:
            return
        if self._is_terminal:
            # Erases what a longer line before has left.
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            _say(line)
        self._last = line

    def end(self) -> None:
        if self._is_terminal and self._last:
            _say("")


def _progress_line(deletion: Deletion, *, bar: bool) -> str:
    counts = deletion.counts
    done = counts.total - counts.pending
    parts = [f"{done} of {counts.total}"]
    parts += [f"{number} {name}" for name, number in (("skipped", counts.skipped), ("failed", counts.failed)) if number]
    text = f"{deletion.state}: {', '.join(parts)}"
    if not bar:
        return text
    filled = _BAR_WIDTH * done // counts.total if counts.total else 0
    return f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {text}"


def _show(deletion: Deletion, asked: argparse.Namespace) -> None:
    if asked.json:
        print(json.dumps(deletion.raw))
        return
    counts = deletion.counts
    ends = [f"{number} {name}" for name, number in _ends(deletion) if number] or ["nothing to do"]
    print(f"{deletion.id} {deletion.state}: {', '.join(ends)} of {counts.total}")


def _ends(deletion: Deletion) -> Iterator[tuple[str, int]]:
    for name in ("deleted", "skipped", "failed", "cancelled", "pending"):
        yield name, getattr(deletion.counts, name)


def _end(deletion: Deletion, asked: argparse.Namespace) -> int:
    _show(deletion, asked)
    codes: dict[str, int] = {State.FAILED: FAILED, State.CANCELLED: CANCELLED}
    return codes.get(deletion.state, OK)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
