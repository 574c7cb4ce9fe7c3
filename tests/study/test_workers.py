"""Runs in processes of their own: the same results, stopped by one Ctrl-C, and no mistake that goes unsaid."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dettriton import zoo
from dettriton.errors import EngineError, InputError
from dettriton.study import _workers, make_plan, run_study
from dettriton.study._directory import open_study
from dettriton.study._single import Task
from dettriton.study._workers import in_workers
from dettriton.train import load_recipe

DIGITS = Path(zoo.__file__).parent / "recipes" / "med_cnn.digits.toml"
_WAIT = 120


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "digits.toml"
    path.write_text(DIGITS.read_text().replace("warmup_epochs = 1", "warmup_epochs = 0"))
    return path


@pytest.fixture
def plan(recipe_file):
    return make_plan(load_recipe(recipe_file), ("dct", "kaiming"), seeds=1, epochs=1)


def runs_of(folder):
    return json.dumps(json.loads((folder / "results.json").read_bytes())["runs"])


def wait_for(condition):
    end = time.monotonic() + _WAIT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.heavy
def test_verify_jobs_and_ctrl_c_do_not_change_the_results(plan, recipe_file, tmp_path):
    run_study(plan, tmp_path / "one", progress=False, threads=1)
    arguments = ["--init", "dct", "--init", "kaiming", "--seeds", "1", "--epochs", "1", "--jobs", "2", "--threads", "1"]
    command = [sys.executable, "-c", "from dettriton.cli import main; main()", "study", str(recipe_file), *arguments]
    process = subprocess.Popen([*command, "--out", str(tmp_path / "two")], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len([*(tmp_path / "two/runs").glob("*/trace.jsonl")]) == 2)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=_WAIT)[1]
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "dettriton: interrupted; the same command goes on from here"
    assert len([*(tmp_path / "two/runs").glob("*/checkpoint*")]) == 2
    run_study(plan, tmp_path / "two", progress=False, jobs=2)
    assert runs_of(tmp_path / "two") == runs_of(tmp_path / "one")
    names = {path.name for path in (tmp_path / "two/runs").glob("*/*")}
    assert names == {"recipe.json", "result.json", "trace.jsonl"}


@pytest.mark.heavy
def test_a_worker_whose_study_was_killed_stops_with_a_checkpoint_and_frees_the_directory(plan, tmp_path):
    script = (
        "import sys, json\n"
        "from dettriton.study import make_plan, run_study\n"
        "from dettriton.train.recipe import parse_recipe\n"
        "recipe = parse_recipe(json.loads(sys.argv[1])).with_epochs(50)\n"
        "run_study(make_plan(recipe, ('dct', 'kaiming'), seeds=1), sys.argv[2], jobs=2, progress=False)\n"
    )
    recipe = json.dumps(plan.recipe.to_dict())
    process = subprocess.Popen([sys.executable, "-c", script, recipe, str(tmp_path / "s")])
    wait_for(lambda: len([*(tmp_path / "s/runs").glob("*/trace.jsonl")]) == 2)
    process.kill()
    process.wait()

    def is_free():
        try:
            with open_study(tmp_path / "s"):
                return True
        except InputError:
            return False

    wait_for(is_free)
    assert len([*(tmp_path / "s/runs").glob("*/checkpoint*")]) >= 2
    assert "stopped after step" in (tmp_path / "s/runs/dct-golden-0/log.txt").read_text()


def tasks(plan, tmp_path, **changes):
    for run in plan.runs():
        settings = {"device": "cpu", "data_dir": None, "threads": 1, **changes}
        yield run, Task(plan.recipe_of(run).to_dict(), str(tmp_path / run.folder), **settings)


@pytest.fixture
def lock(tmp_path):
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_what_a_worker_cannot_do_ends_the_study_with_its_message(plan, lock, tmp_path):
    outcomes = in_workers([*tasks(plan, tmp_path, device="abacus")], 1, lock)
    with closing(outcomes), pytest.raises(InputError, match=r"dct/golden/0: .*abacus"):
        next(outcomes)
    assert not (tmp_path / "kaiming-golden-0").exists()


def test_a_worker_that_dies_is_named_with_its_log(plan, lock, monkeypatch, tmp_path):
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho 'out of memory' >&2\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(_workers.sys, "executable", str(dying))
    outcomes = in_workers([*tasks(plan, tmp_path)], 2, lock)
    with closing(outcomes), pytest.raises(EngineError, match=r"broke off \(exit status -9\): out of memory.*log\.txt"):
        next(outcomes)


def test_workers_get_their_threads(plan, lock, monkeypatch, tmp_path):
    telling = tmp_path / "telling"
    telling.write_text("#!/bin/sh\necho $OMP_NUM_THREADS $MKL_NUM_THREADS\n")
    telling.chmod(0o755)
    monkeypatch.setattr(_workers.sys, "executable", str(telling))
    outcomes = in_workers([*tasks(plan, tmp_path, threads=3)], 1, lock)
    with closing(outcomes), pytest.raises(EngineError, match=r"exit status 0\): 3 3"):
        next(outcomes)
