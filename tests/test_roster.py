"""The processes of a run as files: who is alive, who is of another run, and when a folder is free."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from plait.engine.errors import UsageError
from plait.loaders import roster
from plait.loaders.lock import this_process
from plait.loaders.roster import Peer, Report, Reporter, clear_roster, process_file, read_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def somebody() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def report_of(pid: int, number: int = 1, **given: Any) -> Report:
    report = Report("run", number, pid, str(this_process()["host"]), psutil.Process(pid).create_time())
    return replace(report, **given)


def put(folder: Path, report: Report) -> None:
    process_file(folder, report.process).write_text(json.dumps(asdict(report)))


def test_a_reporter_beats_and_has_a_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "BEAT_SECONDS", 0.01)
    peer, other = Peer(tmp_path, "run", 2), Peer(tmp_path, "another", 2)
    assert peer.look() is None
    with Reporter(tmp_path, "run", 2) as reporter:
        first = peer.look()
        assert first is not None
        assert (first.pid, first.state, first.facts) == (os.getpid(), "working", None)
        assert other.look() is None
        assert other.is_replaced
        assert not peer.is_replaced
        reporter.say(facts={"progress": {"seconds": 3}})
        deadline = time.monotonic() + 20
        while (now := peer.look()) is None or now.facts is None:
            assert time.monotonic() < deadline
        assert now.beat > first.beat
        assert not peer.is_gone
        assert reporter.last_word("failed", "no room", 4, may_go_on=False)
    last = peer.look()
    assert last is not None
    assert last.is_last
    assert (last.message, last.exit_code, last.may_go_on) == ("no room", 4, False)
    assert last.facts == {"progress": {"seconds": 3}}
    time.sleep(0.05)
    assert read_report(process_file(tmp_path, 2)) == last
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_room_for_a_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    peer = Peer(tmp_path, "run", 2)
    with Reporter(tmp_path, "run", 2) as reporter:
        reporter.say(facts={"progress": {"seconds": "long" * 100}})
        assert peer.look() is not None

        def no_room(self: Path, data: bytes) -> int:
            self.touch()
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("pathlib.Path.write_bytes", no_room)
        assert reporter.last_word("failed", "shard 3: no room", 4)
    last = peer.look()
    assert last is not None
    assert (last.is_last, last.message, last.exit_code) == (True, "shard 3: no room", 4)
    assert [path.name for path in tmp_path.iterdir()] == [process_file(tmp_path, 2).name]


def test_where_nothing_was_ever_said_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", no_room)
    with Reporter(tmp_path, "run", 2) as reporter:
        assert not reporter.last_word("failed", "no room", 4)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with Reporter(folder, "run", 1) as reporter:
        assert not reporter.last_word("failed", "lost")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', "null"])
def test_a_file_that_is_no_report_says_nothing(tmp_path: Path, text: str) -> None:
    process_file(tmp_path, 1).write_text(text)
    assert Peer(tmp_path, "run", 1).look() is None
    clear_roster(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_that_ends_without_a_word_is_gone(tmp_path: Path, somebody: subprocess.Popen[bytes]) -> None:
    put(tmp_path, report_of(somebody.pid))
    peer = Peer(tmp_path, "run", 1)
    peer.look()
    assert not peer.is_gone
    somebody.kill()
    somebody.wait()
    assert peer.is_gone


def test_a_process_of_another_machine_is_gone_when_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, replace(report_of(os.getpid()), host="elsewhere"))
    peer = Peer(tmp_path, "run", 1)
    peer.look()
    assert not peer.is_gone
    monkeypatch.setattr(roster, "SILENT_SECONDS", 0.01)
    time.sleep(0.02)
    assert peer.is_gone
    put(tmp_path, replace(report_of(os.getpid()), host="elsewhere", beat=5))
    monkeypatch.setattr(roster, "SILENT_SECONDS", 5.0)
    peer.look()
    assert not peer.is_gone


def test_a_folder_with_processes_at_work_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, somebody: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setattr(roster, "_LEAVING_SECONDS", 0.05)
    put(tmp_path, report_of(somebody.pid, 3))
    with pytest.raises(UsageError, match=rf"process 3 of an earlier run, {somebody.pid} on .*, is still at work"):
        clear_roster(tmp_path)
    put(tmp_path, report_of(somebody.pid, 3, state="done"))
    clear_roster(tmp_path)
    assert not list(tmp_path.iterdir())


def test_processes_that_leave_are_waited_for(tmp_path: Path, somebody: subprocess.Popen[bytes]) -> None:
    put(tmp_path, report_of(somebody.pid))
    assert somebody.stdin is not None
    somebody.stdin.close()
    clear_roster(tmp_path)
    assert somebody.poll() is not None or psutil.Process(somebody.pid).status() == psutil.STATUS_ZOMBIE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("beats", [False, True])
def test_processes_of_other_machines_are_watched_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    monkeypatch.setattr(roster, "_WATCHED_SECONDS", 0.2)
    far = replace(report_of(os.getpid()), host="elsewhere")
    put(tmp_path, far)
    real = time.sleep

    def sleep(seconds: float) -> None:
        real(seconds)
        if beats:
            put(tmp_path, replace(far, beat=1))

    monkeypatch.setattr(roster.time, "sleep", sleep)
    if beats:
        with pytest.raises(UsageError, match="on elsewhere, is still at work"):
            clear_roster(tmp_path)
    else:
        clear_roster(tmp_path)
        assert not list(tmp_path.iterdir())
