"""``dettriton train`` and ``dettriton zoo`` with recipes by name."""

import json
import subprocess
import sys

import pytest
import tiny_training as tiny
from click.testing import CliRunner

from dettriton import zoo
from dettriton.cli import main
from dettriton.train import recipe as spec
from dettriton.zoo import _manifest

NAME = "tiny.made"


@pytest.fixture
def recipes(monkeypatch, tmp_path):
    """A folder of recipes: one, without a release."""
    tiny.install(monkeypatch.setattr)
    monkeypatch.setattr(_manifest, "ROOT", tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "zoo" / "recipes"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.toml").write_text(tiny.recipe_text(train={"epochs": 2}))
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def require_told(result, *told):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dettriton: ") and result.stderr.count("\n") == 1
    for part in told:
        assert part in result.stderr


def test_verify_a_recipe_is_trained_by_its_name_and_resumed(recipes, tmp_path):
    first = run("train", NAME, "--out", tmp_path / "by_name", "--json")
    assert first.exit_code == 0, first.output
    (tmp_path / NAME).mkdir()
    again = run("train", NAME, "--out", tmp_path / "by_name", "--resume", "--json")
    assert json.loads(again.stdout)["weights_digest"] == json.loads(first.stdout)["weights_digest"]
    by_path = run("train", recipes / f"{NAME}.toml", "--out", tmp_path / "by_path", "--json")
    assert json.loads(by_path.stdout)["weights_digest"] == json.loads(first.stdout)["weights_digest"]


def test_verify_a_file_of_that_name_wins(recipes, tmp_path):
    (tmp_path / NAME).write_text(tiny.recipe_text(train={"epochs": 3}))
    result = run("train", NAME, "--out", tmp_path / "run", "--json")
    assert json.loads(result.stdout)["recipe_digest"] == tiny.recipe().digest() != zoo.recipe(NAME).digest()


def test_verify_an_unknown_name_is_told_before_anything_is_made(recipes, tmp_path):
    require_told(
        run("train", "nosuch", "--out", tmp_path / "run"), "cannot read the recipe nosuch", "`dettriton zoo recipes`"
    )
    require_told(run("train", "tiny.mad", "--out", tmp_path / "run"), "did you mean tiny.made?")
    assert not (tmp_path / "run").exists()


def test_verify_the_recipes_are_listed(monkeypatch, tmp_path):
    tiny.release(monkeypatch.setattr, tmp_path)
    (tmp_path / "zoo" / "recipes" / "other.made.toml").write_text(tiny.recipe_text())
    lines = [line.split(None, 1) for line in run("zoo", "recipes").stdout.splitlines()]
    assert lines == [["other.made", "no released hash yet"], [NAME, "released"]]
    listed = json.loads(run("zoo", "recipes", "--json").stdout)
    assert listed == [{"name": "other.made", "released": False}, {"name": NAME, "released": True}]


def test_verify_an_unreleased_recipe_is_shown(recipes):
    shown = run("zoo", "show", NAME)
    assert shown.exit_code == 0, shown.output
    assert "no released hash yet" in shown.stdout and "[optimizer]" in shown.stdout
    content = json.loads(run("zoo", "show", NAME, "--json").stdout)
    assert content["entry"] is None and spec.parse_recipe(content["recipe"]) == zoo.recipe(NAME)


@pytest.mark.parametrize("name", ["ecg_conformer.ptbxl_rhythm", "med_resnet18.pathmnist"])
def test_verify_missing_data_say_how_to_get_them(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DETTRITON_DATA", raising=False)
    require_told(run("train", name, "--out", tmp_path / "run"), "--download", "--data-dir", "https://")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [["train", "nosuch", "--out", "x"], ["zoo", "recipes"]])
def test_verify_names_are_read_without_torch(arguments, tmp_path):
    script = (
        "import sys; from dettriton.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('TORCH', 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("TORCH False\n")
    assert list(tmp_path.iterdir()) == []
