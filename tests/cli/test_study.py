"""``dettriton study``: exit codes, messages and output."""

import json
import subprocess
import sys

import pytest
import tiny_training as tiny
from click.testing import CliRunner

from dettriton.cli import main

PICTURES = {"class_ranges.png", "class_ranges.svg", "runs.png", "runs.svg"}
REPORT = {"report.md", "report.json"}


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    path = tmp_path / "tiny.toml"
    path.write_text(tiny.recipe_text())
    return path


def run(*arguments):
    return CliRunner().invoke(main, ["study", *map(str, arguments)])


def require_one_paragraph(result, code, told):
    assert result.exit_code == code, result.output
    assert result.stderr.splitlines()[-1].startswith("dettriton: ")
    assert "Traceback" not in result.stderr
    assert told in result.stderr.splitlines()[-1]


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_a_study_is_trained_reported_and_drawn(recipe, tmp_path):
    out = tmp_path / "s"
    result = run(recipe, "--out", out, "--init", "dct", "--init", "kaiming", "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("test AUC") == 4
    assert "tiny on made, 3 epochs: 4 runs, 0 diverged runs" in result.stdout
    assert "dct - kaiming (golden)" in result.stdout
    assert str(out / "runs.png") in result.stdout
    assert files(out) == {"results.json", "runs", "lock"} | REPORT | PICTURES


def test_report_only_says_the_same_and_trains_nothing(recipe, monkeypatch, tmp_path):
    first = run(recipe, "--out", tmp_path / "s", "--seeds", 2)
    tiny.stop_after(monkeypatch, 0, AssertionError("it trained"))
    again = run("--out", tmp_path / "s", "--report-only")
    assert (again.exit_code, again.stdout, again.stderr) == (0, first.stdout, "")
    assert run(recipe, "--out", tmp_path / "s", "--report-only", "--seeds", 9).stdout == first.stdout
    other = tmp_path / "other.toml"
    other.write_text(tiny.recipe_text(optimizer={"lr": 0.5}))
    require_one_paragraph(run(other, "--out", tmp_path / "s", "--report-only"), 2, "lr was 0.01 and is 0.5")


def test_pictures_can_be_left_out_and_the_margin_chosen(recipe, tmp_path):
    result = run(recipe, "--out", tmp_path / "s", "--seeds", 1, "--no-plots", "--margin", 0.03, "--json")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "s") == {"results.json", "runs", "lock"} | REPORT
    told = json.loads(result.stdout)
    assert told["margin"] == 0.03
    assert [*told["arms"]] == ["kaiming/golden"]


def test_epochs_and_weights_can_be_chosen(recipe, tmp_path):
    run(recipe, "--out", tmp_path / "s", "--seeds", 1, "--epochs", 2, "--keep-weights", "--no-plots")
    assert json.loads((tmp_path / "s/results.json").read_text())["runs"]["kaiming/golden/0"]["steps"] == 8
    assert (tmp_path / "s/runs/kaiming-golden-0/weights.safetensors").exists()


def test_an_interrupted_study_exits_130_and_goes_on(recipe, monkeypatch, tmp_path):
    go_on = tiny.stop_after(monkeypatch, 17)
    arguments = (recipe, "--out", tmp_path / "s", "--seeds", 2, "--no-plots")
    require_one_paragraph(run(*arguments), 130, "interrupted; the same command goes on from here")
    go_on()
    result = run(*arguments)
    assert result.exit_code == 0 and "1 of 2 runs are there already" in result.stderr


def test_a_study_of_which_every_run_diverges_is_told(recipe, tmp_path):
    recipe.write_text(tiny.recipe_text(optimizer={"lr": 1e38}))
    result = run(recipe, "--out", tmp_path / "s", "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert "0 runs, 2 diverged runs" in result.stdout
    assert not files(tmp_path / "s") & PICTURES


def test_mistakes_exit_2(recipe, tmp_path):
    out = tmp_path / "s"
    require_one_paragraph(run("--out", out, "--report-only"), 2, "holds no results of a study")
    require_one_paragraph(run(tmp_path / "none.toml", "--out", out), 2, "cannot read the recipe")
    require_one_paragraph(run(recipe, "--out", recipe / "s"), 2, "choose another --out")
    require_one_paragraph(run(recipe, "--out", out, "--epochs", 1), 2, "'warmup_epochs'")
    for usage in (
        [recipe],
        ["--out", out],
        [recipe, "--out", out, "--init", "dtc"],
        [recipe, "--out", out, "--margin", 0],
    ):
        assert run(*usage).exit_code == 2
    assert not out.exists()


def test_another_recipe_in_the_same_directory_exits_2(recipe, tmp_path):
    run(recipe, "--out", tmp_path / "s", "--seeds", 1, "--no-plots")
    require_one_paragraph(run(recipe, "--out", tmp_path / "s", "--epochs", 2), 2, "epochs was 3 and is 2")


@pytest.mark.parametrize("arguments", [["--help"], ["none.toml", "--out", "s"]])
def test_help_and_mistakes_come_without_torch(arguments, tmp_path):
    script = (
        "import sys\nfrom dettriton.cli import main\n"
        "try: main(['study', *sys.argv[1:]])\n"
        "except SystemExit: print('HEAVY', sorted({'torch', 'scipy', 'matplotlib', 'rich'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
