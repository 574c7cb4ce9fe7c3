"""``dettriton diff``: exit codes and what it prints."""

import json
import subprocess
import sys

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner

from dettriton.cli import main
from dettriton.train import _run, train


@pytest.fixture
def go(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)

    def run(out, **changes):
        train(tiny.recipe(**changes), tmp_path / out, progress=False)
        return str(tmp_path / out)

    return run


@pytest.fixture
def other_machine(go, monkeypatch):
    """A run whose machine negates a bias after step 5."""
    whole = _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == 5:
            with torch.no_grad():
                self.model.head.bias.neg_()
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    made = go("bad")
    monkeypatch.setattr(_run.Run, "step", whole)
    return made


def diff(*arguments):
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


def test_verify_same_exits_0(go):
    result = diff(go("a"), go("b"), "--rerun")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("SAME\n") and "DIFFERENT" not in result.stdout
    assert "not needed" in result.stdout


def test_verify_different_settings_exit_1(go):
    result = diff(go("a"), go("b", optimizer={"lr": 0.02}), "--rerun")
    assert result.exit_code == 1, result.output
    assert "[optimizer] lr: 0.01 in A, 0.02 in B" in result.stdout
    assert "first differing loss: step 1\n" in result.stdout
    assert "step 0, optimizer update of first.bias" in result.stdout
    assert result.stdout.endswith("DIFFERENT\n")
    assert "running steps 0 to 1 of both recipes again" in result.stderr


def test_verify_the_wrong_machine_is_named(go, other_machine):
    result = diff(other_machine, go("good"), "--rerun")
    assert result.exit_code == 1, result.output
    assert "first differing loss: step 6\n" in result.stdout
    assert "A is the run that is wrong" in result.stdout


def test_verify_json(go, other_machine):
    result = diff(go("good"), other_machine, "--rerun", "--json")
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert found["same"] is False and found["trace"]["loss"]["step"] == 6
    assert found["rerun"]["wrong"] == "b" and found["rerun"]["found"] is None
    assert found["rerun"]["b"]["step"] == 6
    assert found["checkpoints"]["different"] == 8 and found["checkpoints"]["groups"]["parameters"]
    same = diff(other_machine, other_machine, "--json")
    assert same.exit_code == 0 and json.loads(same.stdout)["rerun"] is None


def test_verify_what_cannot_be_compared_exits_2(go, tmp_path):
    a = go("a")
    for arguments, told in [
        ((a, tmp_path / "nowhere"), "there is no"),
        ((a, f"{a}/weights.safetensors", "--rerun"), "two run directories"),
        ((f"{a}/trace.jsonl", f"{a}/weights.safetensors"), "nothing to compare"),
    ]:
        result = diff(*arguments)
        assert result.exit_code == 2 and result.stderr.startswith("dettriton: "), result.output
        assert told in result.stderr and "Traceback" not in result.stderr and not result.stdout
    (tmp_path / "a/trace.jsonl").write_text((tmp_path / "a/trace.jsonl").read_text().replace('"step":4', '"step":5'))
    result = diff(a, a)
    assert result.exit_code == 2 and "its chain breaks at line 5" in result.stderr


def test_verify_help_lists_it():
    result = CliRunner().invoke(main, ["--help"])
    assert result.stdout.index("train ") < result.stdout.index("diff ") < result.stdout.index("evaluate ")


def test_verify_help_does_not_import_torch():
    script = (
        "import sys; sys.argv = ['dettriton', 'diff', '--help']\n"
        "from dettriton.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: print('CODE', exit.code, 'TORCH', 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "CODE 0 TORCH False" in done.stdout
