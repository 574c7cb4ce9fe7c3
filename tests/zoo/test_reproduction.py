"""The promise itself: released models retrained to their hashes, by processes of their own."""

import random
import subprocess
import sys

import pytest
from cpu_matrix import ENVIRONMENTS, MORE_ENVIRONMENTS, OF_COMPILED_LOOPS, RESUMED, runs_here
from environments import COMPARED, Job, run_job

from dettriton import zoo

PLACES = (*filter(runs_here, ENVIRONMENTS), *MORE_ENVIRONMENTS[-1:], *OF_COMPILED_LOOPS, RESUMED)
EMBEDDED = ("med_cnn.digits", *(name for name in zoo.names() if name.endswith(".rhythm_sim")))
ON_FILES = sorted(set(zoo.names()) - set(EMBEDDED))
ONE_THREAD = next(place for place in PLACES if place.name == "1 thread")


def retrain(name, place, data_dir, expected_seconds):
    result = run_job(Job(name, place, {}), data_dir, expected_seconds, random.Random(0))
    released = zoo.entry(name).to_dict()
    assert {k: result.get(k, result) for k in COMPARED} == {k: released[k] for k in COMPARED}


@pytest.mark.heavy
@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.name)
def test_verify_the_smallest_entry_under_every_environment(place):
    retrain("med_cnn.digits", place, None, expected_seconds=8.0)


@pytest.mark.heavy
@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.name)
@pytest.mark.parametrize("name", EMBEDDED[1:])
def test_verify_simulated_entries_under_every_environment(name, place):
    retrain(name, place, None, expected_seconds=60.0)


@pytest.mark.heavy
@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.name)
@pytest.mark.parametrize("name", ON_FILES)
def test_verify_entries_on_official_data_under_every_environment(name, place, data_dir):
    retrain(name, place, str(data_dir), expected_seconds=30.0)


def test_verify_the_main_command_as_a_user_runs_it_with_one_thread(tmp_path):
    command = [sys.executable, "-c", "from dettriton.cli import main; main()", "verify"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ONE_THREAD.process_variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(zoo.entry(zoo.DEFAULT).weights_digest) == 3
    assert f"MATCH {zoo.DEFAULT}" in done.stdout
    assert list(tmp_path.iterdir()) == []
