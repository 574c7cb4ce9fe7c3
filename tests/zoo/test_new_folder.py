"""What killed processes leave beside a folder is removed by the next one; what is being written is not."""

import logging
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from dettriton.errors import InputError
from dettriton.zoo import _new_folder
from dettriton.zoo._new_folder import new_folder

WRITER = """
import sys, time
from pathlib import Path
from dettriton.zoo._new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("x")
    print(folder.name, flush=True)
    time.sleep(300)
"""

pytestmark = pytest.mark.skipif(_new_folder.fcntl is None, reason="needs locks")


@contextmanager
def writer(out):
    """Another process that is writing ``out``, and the name of its hidden folder; it is killed at the end."""
    command = [sys.executable, "-c", WRITER, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def write(out):
    with new_folder(out) as folder:
        (folder / "whole").write_text("x")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_verify_a_live_writer_is_let_be_and_a_killed_one_cleared(tmp_path, caplog):
    out = tmp_path / "out"
    with writer(out) as (process, partial):
        write(out)
        assert names(tmp_path) == [partial, "out"]
        assert names(tmp_path / partial) == ["part"] and names(out) == ["whole"]
        assert caplog.messages == []
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert names(tmp_path / partial) == ["part"]
        shutil.rmtree(out)
        write(out)
    assert names(tmp_path) == ["out"]
    assert caplog.record_tuples == [
        (_new_folder.__name__, logging.WARNING, f"removed what killed processes had left beside {out}: {partial}")
    ]


def test_verify_many_are_told_in_one_line(tmp_path, caplog):
    left = [f".out.{digit * 16}.partial" for digit in "0a"]
    for name in left:
        (tmp_path / name / ".cache").mkdir(parents=True)
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith(", ".join(left))
    assert "\n" not in caplog.messages[0]


def test_verify_nothing_else_is_removed(tmp_path, caplog):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    (tmp_path / f".out.{'1' * 16}.partial").symlink_to(tmp_path / "mine")
    (tmp_path / f".out.{'2' * 16}.partial").write_text("x")
    for name in (".out.0123.partial", f".other.{'3' * 16}.partial", f".out.x.{'4' * 16}.partial", f".out.{'5' * 16}"):
        (tmp_path / name).mkdir()
    (tmp_path / f".out.{'G' * 16}.partial").mkdir()
    before = names(tmp_path)
    write(tmp_path / "out")
    assert names(tmp_path) == sorted([*before, "out"])
    assert names(tmp_path / "mine") == ["file"]
    assert caplog.messages == []


def test_verify_one_that_is_taken_before_it_is_locked_is_made_anew(tmp_path, monkeypatch):
    whole, taken = _new_folder._lock, []

    def late(folder):
        if len(taken) < 3:
            taken.append(folder)
            if len(taken) == 1:
                folder.rmdir()
            elif len(taken) == 2:
                raise BlockingIOError
            else:
                lock = whole(folder)
                folder.rmdir()
                return lock
        return whole(folder)

    monkeypatch.setattr(_new_folder, "_lock", late)
    write(tmp_path / "out")
    assert len(taken) == 3
    assert names(tmp_path / "out") == ["whole"]


@pytest.mark.parametrize("broken", ["no module", "no locks here"])
def test_verify_without_locks_nothing_is_removed(tmp_path, monkeypatch, broken):
    left = tmp_path / f".out.{'0' * 16}.partial"
    left.mkdir()
    if broken == "no module":
        monkeypatch.setattr(_new_folder, "fcntl", None)
    else:
        monkeypatch.setattr(_new_folder.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    write(tmp_path / "out")
    assert names(tmp_path) == [left.name, "out"]


def test_verify_an_error_leaves_nothing_and_frees_the_lock(tmp_path):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), new_folder(tmp_path / "out"):
            raise error
    with pytest.raises(InputError, match="cannot write"), new_folder(tmp_path / "out"):
        (tmp_path / "out/mine").mkdir(parents=True)
    assert names(tmp_path) == ["out"]
