"""Signals, clocks and locks: a training stops as it is told, and nothing about time or other processes changes a bit."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_training as tiny
from click.testing import CliRunner
from tiny_training import files

import dettriton
from dettriton import _lock
from dettriton._lock import locked_directory
from dettriton.cli import main
from dettriton.errors import InputError
from dettriton.train import _run, trainer
from dettriton.train._interrupt import Interrupt, Terminated
from dettriton.train.checkpoint import checkpoint_paths


def signalled(monkeypatch, at, *numbers):
    """The process gets signals at the begin of a step."""
    whole = _run.Run.step

    def step(self, number):
        if number == at:
            for signal_number in numbers:
                os.kill(os.getpid(), signal_number)
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    return lambda: monkeypatch.setattr(_run.Run, "step", whole)


def test_verify_sigterm_stops_with_a_checkpoint(go, tmp_path, monkeypatch):
    go(out="whole")
    before = signal.getsignal(signal.SIGTERM)
    undo = signalled(monkeypatch, 5, signal.SIGTERM)
    with pytest.raises(Terminated):
        go()
    assert checkpoint_paths(tmp_path / "run")[0].name == "checkpoint-0000000006.safetensors"
    assert signal.getsignal(signal.SIGTERM) is before
    undo()
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_verify_a_second_signal_stops_at_once(go, tmp_path, monkeypatch, numbers):
    go(out="whole")
    undo = signalled(monkeypatch, 5, *numbers)
    with pytest.raises(KeyboardInterrupt) as raised:
        go()
    assert isinstance(raised.value, Terminated) == (numbers[-1] == signal.SIGTERM)
    assert [p.name for p in checkpoint_paths(tmp_path / "run")] == ["checkpoint-0000000004.safetensors"]
    undo()
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_during_the_first_batch_is_raised_after_it(go, tmp_path, monkeypatch, number, error):
    """Inside of a compiler, which the first batch may call, an exception that a signal raises can be lost."""
    probe, finished = _run._require_fitting_output, []

    def signalled_probe(*given):
        signal.raise_signal(number)
        probe(*given)
        finished.append(True)

    monkeypatch.setattr(_run, "_require_fitting_output", signalled_probe)
    with pytest.raises(error):
        go()
    assert finished == [True]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_verify_exit_codes(made_data, monkeypatch, tmp_path, number, code):
    (tmp_path / "r.toml").write_text(tiny.recipe_text())
    signalled(monkeypatch, 2, number)
    result = CliRunner().invoke(main, ["train", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")])
    assert result.exit_code == code, result.output
    assert "--resume goes on from here" in result.stderr


def test_verify_handlers_that_python_did_not_set_become_the_default(monkeypatch):
    restored = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: restored.append((number, handler)))
    with Interrupt() as interrupt:
        assert not interrupt.requested
    assert restored[2:] == [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL)]


@pytest.mark.heavy
def test_verify_sigterm_to_a_process(tmp_path):
    """A real process, from the shell's point of view."""
    (tmp_path / "r.toml").write_text(tiny.recipe_text(train={"epochs": 2000}))
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(tiny.__file__)!r})\n"
        "import tiny_training as tiny; tiny.install(setattr)\n"
        "from dettriton.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "train", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not [*tmp_path.glob("run/checkpoint-*.safetensors")]:
        time.sleep(0.05)
    process.terminate()
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 143, told
    assert told.splitlines()[-1] == "dettriton: interrupted; the same command with --resume goes on from here"


def test_verify_a_jumping_wall_clock_changes_nothing(go, tmp_path, monkeypatch):
    go(out="whole")
    jumps = random.Random(1)
    wall = lambda: jumps.uniform(-1e9, 4e9)  # noqa: E731 one line
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(time, "time_ns", lambda: int(wall() * 1e9))
    undo = tiny.stop_after(monkeypatch, 6, RuntimeError)
    with pytest.raises(RuntimeError):
        go(checkpoint_steps=1)
    undo()
    # the older file looks newer, and all look as if they came from the future
    for age, path in enumerate(checkpoint_paths(tmp_path / "run")):
        os.utime(path, (4e9 + age, 4e9 + age))
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


def test_verify_checkpoints_by_seconds_follow_the_steady_clock(go, monkeypatch):
    seconds = iter(range(10**6))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(seconds)))
    saved = []
    whole = trainer.save_checkpoint
    monkeypatch.setattr(trainer, "save_checkpoint", lambda d, c: (saved.append(c.step), whole(d, c)))
    go(checkpoint_seconds=2.0)
    assert saved == [2, 4, 6, 8, 10, 12]


WALL_CLOCK = re.compile(
    r"\btime\.(?:time|time_ns|localtime|gmtime|ctime)\b|^\s*(?:from|import) datetime\b", re.MULTILINE
)


def test_verify_no_wall_clock_in_the_package():
    sources = {path.name: path.read_text("utf-8") for path in Path(dettriton.__file__).parent.rglob("*.py")}
    assert len(sources) > 150
    # certificates are valid until a date
    assert {name for name, source in sources.items() if WALL_CLOCK.search(source)} <= {"_keys.py"}
    assert (
        len(WALL_CLOCK.findall("import time\nprint(time.time())\nfrom datetime import datetime\ntime.monotonic()")) == 2
    )


HOLDER = """
import sys, time
from pathlib import Path
from dettriton._lock import locked_directory
with locked_directory(Path(sys.argv[1]), "a directory", "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_verify_a_lock_goes_with_its_process(go, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="another training is using"):
                go(resume=resume)
    finally:
        process.kill()
        process.communicate()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"lock"}
    assert go().steps == 12


def test_verify_a_lock_that_is_a_link_is_refused(go, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot use"):
        go()
    assert not (tmp_path / "elsewhere").exists()


def test_verify_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(_lock.fcntl, "flock", fail)
    with (
        pytest.raises(InputError, match=r"cannot lock .*file system that has locks"),
        locked_directory(tmp_path, "", ""),
    ):
        pass
