"""Model cards: what they repeat of manifest, recipe and report, and front matter that a YAML parser reads."""

import json
import re
from dataclasses import replace

import pytest
import tiny_training as tiny
from click.testing import CliRunner

from dettriton import data, zoo
from dettriton.cli import main
from dettriton.errors import InputError
from dettriton.zoo import _card
from dettriton.zoo._card import card
from dettriton.zoo._card_texts import ARCHITECTURES, DATA, NOTES
from dettriton.zoo._class_report import ClassFigures, ClassReport, read_report
from dettriton.zoo._facts import gather

NAME = "tiny.made"


@pytest.fixture(scope="module")
def cards():
    return {name: card(name) for name in zoo.names()}


@pytest.fixture
def root(monkeypatch, tmp_path):
    return tiny.release(monkeypatch.setattr, tmp_path)


@pytest.fixture
def report(root, tmp_path):
    """The path of a report, and what is in it."""
    result = CliRunner().invoke(main, ["evaluate", NAME, "--json"])
    assert result.exit_code == 0, result.output
    path = tmp_path / "report.json"
    path.write_text(result.stdout)
    return path, json.loads(result.stdout)


def front_matter(text):
    yaml = pytest.importorskip("yaml")
    _, matter, body = text.split("---\n", 2)
    return yaml.safe_load(matter), body


@pytest.mark.parametrize("name", zoo.names())
def test_verify_card_shows_what_the_manifest_says(cards, name):
    text, entry = cards[name], zoo.entry(name)
    assert all(f"`{d}`" in text for d in (entry.weights_digest, entry.file_sha256, entry.init_digest))
    assert f"| test AUC / ACC | {entry.test['auc']:.4f} / {entry.test['acc']:.4f} |" in text
    assert f"| validation AUC / ACC | {entry.validation['auc']:.4f} / {entry.validation['acc']:.4f} " in text
    assert f"epoch {entry.best_epoch + 1})" in text


@pytest.mark.parametrize("name", zoo.names())
def test_verify_card_describes_its_own_data_and_network(cards, name):
    recipe, info = zoo.recipe(name), data.describe(zoo.recipe(name).data.name)
    assert DATA[info.name].origin in cards[name]
    assert info.licence in cards[name]
    assert all(f"{n:,} " in cards[name] for n in info.samples.values())
    assert ARCHITECTURES[recipe.model.name] in cards[name]
    assert f"lr {recipe.optimizer.lr:g}" in cards[name]
    assert "{" not in DATA[info.name].limits.format(**info.samples)


@pytest.mark.parametrize("name", zoo.names())
def test_verify_card_front_matter_is_yaml(cards, name):
    matter, body = front_matter(cards[name])
    (index,) = matter["model-index"]
    (result,) = index["results"]
    assert (matter["license"], matter["library_name"], index["name"]) == ("apache-2.0", "dettriton", name)
    assert matter["datasets"] == [result["dataset"]["name"]] == [zoo.recipe(name).data.name]
    assert [m["type"] for m in result["metrics"]] == matter["metrics"] == ["roc_auc", "accuracy"]
    assert [m["value"] for m in result["metrics"]] == [zoo.entry(name).test[key] for key in ("auc", "acc")]
    assert body.startswith(f"\n# {name}\n")


def test_verify_card_says_how_to_reproduce(cards):
    assert "Reproduce it: `dettriton verify`.\n" in cards[zoo.DEFAULT]
    assert "Reproduce it: `dettriton verify med_cnn.digits`.\n" in cards["med_cnn.digits"]
    needs_data = "med_cnn.bloodmnist"
    assert f"Reproduce it: `dettriton verify {needs_data} --data-dir DIR` (`--download`" in cards[needs_data]


def test_verify_notes_belong_to_released_models(cards):
    assert set(NOTES) <= set(cards)
    assert all(NOTES[name] in cards[name] for name in NOTES)


def test_verify_card_of_data_without_texts(root):
    text = card(NAME)
    front_matter(text)
    assert (
        "**Data.** `made`: noise. none needed; 26 training, 12 validation, 9 test samples (4x4 grey, 3 classes)."
        in text
    )
    assert "Adam (lr 0.01), cosine schedule after 1 epoch of warm-up, 3 epochs, batch 8" in text
    assert "label smoothing 0.1, horizontal flips, crops after padding by 1" in text
    assert "Class by class" not in text


def test_verify_card_command_prints_the_report(report):
    path, found = report
    result = CliRunner().invoke(main, ["zoo", "card", NAME, "--report", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stdout == card(NAME, path)
    for row in found["classes"]:
        assert f"| {row['name']} | {row['positives']} | {row['auc']:.4f} | {row['f1']:.4f} |" in result.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights_digest": "0" * 64}, "weights_digest"),
        ({"split": "val"}, "'val'"),
        ({"data": "other"}, "'other'"),
        ({"auc": 0.1}, "its auc is 0.1"),
        ({"samples": "many"}, "'many' is not a count"),
        ({"f1": float("nan")}, "NaN is not a number"),
        ({"f1": 1.5}, "1.5 is not a figure"),
        ({"classes": [{"name": "\ud800", "positives": 1, "auc": 1, "f1": 1}]}, "which is not a text"),
        ({"classes": [{"name": 7, "positives": 1, "auc": 1, "f1": 1}]}, "the name 7, which is not a text"),
        ({"classes": [{"name": "a"}]}, "'positives'"),
        ({"classes": 3}, "not iterable"),
    ],
)
def test_verify_other_reports_are_refused(report, change, told):
    path, found = report
    path.write_text(json.dumps(found | change))
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        read_report(path, gather(NAME))
    assert f"dettriton evaluate {NAME} --json" in str(caught.value)


def test_verify_a_report_that_says_a_thing_twice_is_refused(report):
    path, found = report
    path.write_text(json.dumps(found).replace("{", '{"f1": 0.5, ', 1))
    with pytest.raises(InputError, match="the key 'f1' occurs twice"):
        read_report(path, gather(NAME))


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[1]", b"[" * 100_000])
def test_verify_unreadable_reports_are_refused(root, tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    result = CliRunner().invoke(main, ["zoo", "card", NAME, "--report", str(tmp_path / "report.json")])
    assert result.exit_code == 2
    assert "report.json" in result.stderr
    assert result.stderr.count("\n") == 1


def test_verify_card_of_an_unknown_model_exits_2():
    result = CliRunner().invoke(main, ["zoo", "card", "nobody"])
    assert result.exit_code == 2
    assert "'nobody'" in result.stderr


def test_verify_class_names_and_recipes_stay_inside_their_place():
    table = _card._classes(ClassReport(3, 0.5, 0.5, (ClassFigures("a|b\n<img> `c`", None, None, 0.5),)))
    assert r"| a\|b \<img\> \`c\` | – | – | 0.5000 |" in table  # noqa: RUF001 an en dash is what is meant
    assert _card._recipe_block("# ```\n# ````").splitlines()[0] == "`````toml"


def test_verify_front_matter_survives_hostile_names(root):
    hostile = 'a: "b"\n---\n# \t\\ é'
    facts = gather(NAME)
    text = _card.front_matter(replace(facts, entry=replace(facts.entry, name=hostile)))
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(text.removeprefix("---\n").removesuffix("---"))["model-index"][0]["name"] == hostile
