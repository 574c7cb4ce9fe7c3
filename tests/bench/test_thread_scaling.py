import json

import pytest
import thread_scaling
import torch
from made_benchmarks import FakeClock

ENTRY = ("--entry", "med_cnn.digits", "--repeats", "3")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "threads.json"


def test_times_by_threads_and_their_ratios(out, capsys):
    # ours with 1 and 2 threads, then stock's: once to warm up, then in turns that begin one later each time
    class Steady(FakeClock):
        def seconds(self, run):
            before = torch.get_num_threads()
            took = super().seconds(run)
            assert torch.get_num_threads() == before
            return took

    assert thread_scaling.main([*ENTRY, "--threads", "2", "1", "--out", str(out)], Steady(0.004)) == 0
    content = json.loads(out.read_text())
    (row,) = content["rows"]
    assert content["benchmark"] == "threads" and content["threads"] == [1, 2]
    assert row["high"]["1"]["median_ms"] == row["stock"]["2"]["median_ms"] == 4.0
    assert "| `med_cnn.digits`, batch 64 | 4.0 to 4.0 | 4.0 to 4.0 | 1.00 | 1.00 |" in capsys.readouterr().out


def test_bits_that_depend_on_threads_are_refused(out, capsys, monkeypatch):
    right = thread_scaling._digest
    monkeypatch.setattr(thread_scaling, "_digest", lambda work, count: right(work, 1)[count:])
    assert thread_scaling.main([*ENTRY, "--threads", "1", "2", "--out", str(out)]) == 1
    assert "depend on the number of threads" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("arguments", [["--threads", "2"], ["--threads", "0", "2"], ["--repeats", "1"]])
def test_bad_arguments(arguments, out, capsys):
    assert thread_scaling.main([*arguments, "--out", str(out)]) == 2
    assert "numbers of threads" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("given", "asked", "begins"), [
    (None, (), "PASSIVE"), ("ACTIVE", (), "PASSIVE"), ("PASSIVE", (), "stays"),
    ("PASSIVE", ("--waiting", "default"), None), (None, ("--waiting", "default"), "stays"),
])  # fmt: skip
def test_it_begins_again_with_threads_that_wait_as_asked(given, asked, begins, monkeypatch):
    begun = []
    monkeypatch.setattr(thread_scaling.sys, "argv", ["thread_scaling.py", *asked])
    monkeypatch.setattr(
        thread_scaling.os, "execve", lambda _, arguments, variables: begun.append((arguments, variables))
    )
    monkeypatch.delenv(thread_scaling.WAITING, raising=False)
    if given:
        monkeypatch.setenv(thread_scaling.WAITING, given)
    thread_scaling._wait_as_asked()
    assert [variables.get(thread_scaling.WAITING) for _, variables in begun] == ([] if begins == "stays" else [begins])
    assert all(arguments[1:] == ["thread_scaling.py", *asked] for arguments, _ in begun)
