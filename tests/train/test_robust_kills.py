"""A training killed at random moments, while it writes a checkpoint too, ends with the bits of one that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_training
import pytest

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="trainings are forks of one process"),
]

KILLS, AT_LEAST_IN_WRITES = 120, 20


def kill(folder: Path, kills: int, *options: str) -> dict:
    command = [sys.executable, killed_training.__file__, str(folder), str(kills), "7", *options]
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(killed_training.__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_verify_random_kills_do_not_change_a_bit(tmp_path, capsys):
    outcome = kill(tmp_path, KILLS)
    with capsys.disabled():
        print(f"\n{outcome}")
    assert outcome["different"] == []
    assert outcome["kills"] == KILLS
    assert outcome["during_writes"] >= AT_LEAST_IN_WRITES


def test_control_a_resume_that_forgets_the_optimizer_is_found(tmp_path):
    assert kill(tmp_path, 8, "--forget-optimizer")["different"]
