"""Exit codes, messages and output of the command line."""

import json
import subprocess
import sys

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner

from dettriton.cli import main
from dettriton.train import _run

NAME = "tiny.made"


@pytest.fixture
def root(monkeypatch, tmp_path):
    return tiny.release(monkeypatch.setattr, tmp_path)


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def require_one_paragraph(result, code, told):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("dettriton: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert told in result.stderr


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_verify_match_exits_0(root):
    result = run("verify", NAME)
    assert result.exit_code == 0, result.output
    assert "MATCH tiny.made" in result.stdout
    assert result.stdout.count(json.loads((root / "manifest.json").read_text())["entries"][NAME]["weights_digest"]) == 3
    assert "threads" in result.stdout
    assert result.stderr.count("epoch") >= 3


def test_verify_match_as_json(root):
    result = run("verify", NAME, "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["match"] is True
    assert outcome["digests"]["weights"]["expected"] == outcome["digests"]["weights"]["got"]


def test_verify_mismatch_exits_1_with_both_digests_and_the_tensor(root, monkeypatch):
    whole = _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == 11:
            with torch.no_grad():
                self.model.head.bias.neg_()
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    result = run("verify", NAME)
    assert result.exit_code == 1, result.output
    assert "MISMATCH" in result.stdout
    assert "first differing tensor: head.bias" in result.stdout
    assert result.stdout.count("expected ") == result.stdout.count("got ") == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_verify_flipped_weight_byte_exits_1(root, options):
    flip(root / f"weights/{NAME}.safetensors")
    result = run("verify", NAME, *options)
    require_one_paragraph(result, 1, "not the released one")
    if options:
        assert json.loads(result.stdout)["match"] is False


def test_verify_unknown_name_exits_2(root):
    require_one_paragraph(run("verify", "nobody"), 2, "'nobody'")


def test_verify_default_without_a_release_exits_2(root):
    require_one_paragraph(run("verify"), 2, "ecg_resnet18_tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_verify_missing_gpu_exits_2(root):
    require_one_paragraph(run("verify", NAME, "--device", "cuda"), 2, "no GPU")


def test_verify_missing_data_directory_exits_2(monkeypatch, tmp_path):
    (tmp_path / "r.toml").write_text(tiny.recipe_text(data={"name": "breastmnist"}))
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run", "--data-dir", tmp_path / "nowhere")
    require_one_paragraph(result, 2, "nowhere")
    assert not (tmp_path / "run").exists()


def test_verify_train_and_resume(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    (tmp_path / "r.toml").write_text(tiny.recipe_text())
    first = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert first.exit_code == 0, first.output
    digest = first.stdout.split()[1]
    require_one_paragraph(run("train", tmp_path / "r.toml", "--out", tmp_path / "run"), 2, "--resume")
    again = run("train", tmp_path / "r.toml", "--out", tmp_path / "run", "--resume", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["weights_digest"] == digest
    shown = run("zoo", "hash", tmp_path / "run/weights.safetensors")
    assert shown.stdout.splitlines()[0] == f"weights {digest}"


def test_verify_interrupted_training_exits_130(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    tiny.stop_after(monkeypatch, 5)
    (tmp_path / "r.toml").write_text(tiny.recipe_text())
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    require_one_paragraph_at_the_end(result, 130, "--resume")


def test_verify_interrupted_verification_exits_130(root, monkeypatch):
    tiny.stop_after(monkeypatch, 5)
    require_one_paragraph_at_the_end(run("verify", NAME), 130, "interrupted")


def require_one_paragraph_at_the_end(result, code, told):
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1].startswith("dettriton: interrupted")
    assert told in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (tiny.recipe_text(optimizer={"lrr": 1}), "unknown key 'lrr'"),
        ("[model", "not valid TOML"),
        (None, "cannot read the recipe"),
    ],
)
def test_verify_bad_recipes_exit_2(tmp_path, text, told):
    if text is not None:
        (tmp_path / "r.toml").write_text(text)
    require_one_paragraph(run("train", tmp_path / "r.toml", "--out", tmp_path / "run"), 2, told)
    assert not (tmp_path / "run").exists()


def test_verify_non_finite_training_exits_2(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    (tmp_path / "r.toml").write_text(tiny.recipe_text(optimizer={"lr": 1e38}))
    result = run("train", tmp_path / "r.toml", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "step" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, (10**6).to_bytes(8, "little") + b"{}"])
def test_verify_lying_files_exit_2(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    require_one_paragraph(run("zoo", "hash", tmp_path / "w.safetensors"), 2, "w.safetensors")


def test_verify_zoo_lists_and_shows(root):
    assert run("zoo", "list").stdout.startswith(NAME)
    assert [row["name"] for row in json.loads(run("zoo", "list", "--json").stdout)] == [NAME]
    shown = run("zoo", "show", NAME)
    assert "weights_digest" in shown.stdout
    assert "[optimizer]" in shown.stdout
    assert json.loads(run("zoo", "show", NAME, "--json").stdout)["recipe"]["model"]["name"] == "tiny"
    require_one_paragraph(run("zoo", "show", "nobody"), 2, "'nobody'")


def test_verify_zoo_check(root):
    assert run("zoo", "check").exit_code == 0
    flip(root / f"weights/{NAME}.golden.safetensors")
    assert run("zoo", "check", NAME).exit_code == 1
    assert json.loads(run("zoo", "check", "--json").stdout)[NAME]["ok"] is False
    require_one_paragraph(run("zoo", "check", "nobody"), 2, "'nobody'")


def test_verify_zoo_release(root, tmp_path):
    result = run("zoo", "release", tmp_path / "tiny.made.toml", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "reproduced in 1 environments" in result.stdout


def test_verify_doctor():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "torch (CPU)            works" in result.stdout
    assert "triton (interpreted)   works" in result.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts["keeps_subnormals"] is True
    assert (
        facts["packages"]["torch"] == torch.__version__.partition("+")[0]
        or facts["packages"]["torch"] == torch.__version__
    )


def test_verify_doctor_notices_wrong_bits(monkeypatch):
    from dettriton import ops

    monkeypatch.setattr(ops, "sum", torch.sum)
    result = run("doctor")
    assert result.exit_code == 2
    assert "WRONG BITS" in result.stdout


def test_verify_usage_errors_exit_2():
    assert run("train").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("verify", "--device", "abacus").exit_code == 2


def subprocess_imports(*arguments):
    script = (
        "import sys, runpy; sys.argv = ['dettriton', *sys.argv[1:]]\n"
        "import dettriton.cli\n"
        "try: dettriton.cli.main()\n"
        "except SystemExit as exit: print('CODE', exit.code, 'TORCH', 'torch' in sys.modules)\n"
    )
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["zoo", "list"]])
def test_verify_light_commands_do_not_import_torch(arguments):
    assert "CODE 0 TORCH False" in subprocess_imports(*arguments).stdout


@pytest.mark.parametrize("command", [["-c", "from dettriton.cli import main; main()"], ["-m", "dettriton"]])
def test_verify_commands_fail_without_a_traceback(tmp_path, command):
    arguments = [*command, "train", "missing.toml", "--out", str(tmp_path)]
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert process.stderr.startswith("dettriton: cannot read the recipe missing.toml")
