"""The command, as scripts and people use it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r2_deletion_queue._cli import main
from r2_deletion_queue.testing import FakeServer


class Shell:
    """Runs the command against a fake, and returns what it said."""

    def __init__(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self._capsys = capsys

    def __call__(self, *arguments: str, **client: Any) -> tuple[int, str, str]:
        code = main(arguments, lambda: self.server.client(**client))
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(FakeServer(objects=["exports/1", "exports/2"]), capsys)


def test_a_file_of_keys_is_submitted_as_it_is(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b" a b \nschl\xc3\xbcssel\r\n\nlast")
    code, out, err = shell("submit", str(file), "--label", "project=42=x", "--delay", "60")
    assert (code, out, err) == (0, f"del_{1:026d}\n", "")
    asked = json.loads(shell.server.requests[0].content)
    fields = {"labels": {"project": "42=x"}, "delay_seconds": 60}
    assert asked == {"objectKeys": [" a b ", "schlüssel", "last"], **fields}


def test_keys_come_from_stdin_as_json_lines_too(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"a\\nb"\n"c"\n')))
    assert shell("submit", "-", "--ndjson")[0] == 0
    assert json.loads(shell.server.requests[0].content)["objectKeys"] == ["a\nb", "c"]


def test_submit_and_wait_tells_of_its_progress_and_its_end(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("a\nb\n")
    shell.server.fail("b")
    code, out, err = shell("submit", str(file), "--wait")
    name = f"del_{1:026d}"
    assert (code, out) == (1, f"{name} failed: 1 deleted, 1 failed of 2\n")
    assert err.splitlines() == [name, "running: 0 of 2", "failed: 2 of 2, 1 failed"]
    assert shell("failures", name)[:2] == (0, "object_locked\tb\n")
    assert json.loads(shell("failures", name, "--json")[1])["key"] == "b"
    shell.server.fail("b", code="deleted")
    assert shell("redrive", name)[0] == 0
    code, out, _ = shell("watch", name, "--json")
    assert (code, json.loads(out)["state"]) == (0, "succeeded")
    assert json.loads(shell("receipt", name)[1])["deletion"]["id"] == name


def test_a_terminal_has_a_bar(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = [shell("submit", "--prefix", "exports/")[1].strip() for _ in range(2)]
    assert shell("watch", submitted[0])[2] == "running: 0 of 0\nsucceeded: 2 of 2\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shell.server.objects.add("exports/3")
    bars = shell("watch", submitted[1])[2]
    assert bars == f"\r[{'.' * 30}] running: 0 of 0\x1b[K\r[{'#' * 30}] succeeded: 1 of 1\x1b[K\n"


def test_a_plan_is_made_and_carried_out(shell: Shell) -> None:
    code, out, err = shell("plan", "--prefix", "exports/")
    assert (code, out.strip()) == (0, f"del_{1:026d}")
    assert "2 objects of 0 bytes" in err
    assert shell("submit", "--plan", out.strip(), "--wait")[0] == 0
    assert shell.server.objects == set()


def test_exit_codes_say_what_a_script_has_to_know(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("a\n")
    submitted = shell("submit", str(file), "--delay", "60")[1].strip()
    assert shell("watch", submitted, "--timeout", "0")[0] == 4
    assert shell("cancel", submitted)[0] == 0
    assert shell("watch", submitted)[0] == 3
    done = shell("submit", str(file), "--wait")[1].split()[0]
    assert shell("cancel", done)[0] == 1
    assert shell("watch", "del_0")[0] == 5
    shell.server.refuse(503, "overloaded", times=9_999, retryable=True, retry_after=999)
    code, _, err = shell("watch", done)
    assert code == 6
    assert "overloaded" in err


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"", []),
        (b"\xff", []),
        (b"a", ["--ndjson"]),
        (b'{"a": 1}', ["--ndjson"]),
        (b'"\xff"', ["--ndjson"]),
        (b"a", ["--idempotency-key", "x\n"]),
    ],
)
def test_wrong_input_is_refused_before_anything_is_asked(
    shell: Shell, tmp_path: Path, content: bytes, arguments: list[str]
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    code, out, err = shell("submit", str(file), *arguments)
    assert (code, out, shell.server.requests) == (2, "", [])
    assert err.startswith("r2-deletion-queue: ")
    assert shell("submit", str(tmp_path / "missing"))[0] == 2


def test_without_keys_and_prefixes_nothing_is_asked(shell: Shell) -> None:
    assert shell("submit")[0] == 2


def test_it_runs_as_a_module_and_says_what_is_missing() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "r2_deletion_queue", "watch", "del_0"],
        env={"PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("r2-deletion-queue: expected the producer's URL")
    assert "Traceback" not in run.stderr
