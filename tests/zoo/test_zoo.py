"""Releasing, loading, checking and verifying, on a tiny model in a zoo of its own; and the real zoo's files."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny_training as tiny
import torch
from bits import same_bits

from dettriton import data, zoo
from dettriton.data.dataset import MULTI_LABEL
from dettriton.digest import digest, file_sha256
from dettriton.errors import InputError, IntegrityError
from dettriton.exact.philox import Stream, random_bits
from dettriton.files import load_safetensors
from dettriton.train import _run, train
from dettriton.zoo import _golden, _manifest, _verify
from dettriton.zoo._card import card

NAME = "tiny.made"


@pytest.fixture
def root(monkeypatch, tmp_path):
    return tiny.release(monkeypatch.setattr, tmp_path)


def flip(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_verify_row_holds_the_run(root, tmp_path):
    row, result = zoo.entry(NAME), json.loads((tmp_path / "run/result.json").read_text())
    assert zoo.names() == [NAME]
    for key in ("weights_digest", "init_digest", "recipe_digest", "trace", "dataset_sha256", "best_epoch", "test"):
        assert getattr(row, key) == result[key]
    assert row.file_sha256 == file_sha256(root / f"weights/{NAME}.safetensors") == result["weights_sha256"]
    assert row.golden_file_sha256 == file_sha256(root / f"weights/{NAME}.golden.safetensors")
    assert row.data_licence == "none needed"
    assert len(row.environments) == 1
    assert zoo.recipe(NAME) == tiny.recipe()


def test_verify_manifest_is_the_same_bytes_when_written_again(root):
    before = (root / "manifest.json").read_bytes()
    _manifest.write_manifest(_manifest.read_manifest())
    assert (root / "manifest.json").read_bytes() == before


def test_verify_loaded_model_is_the_released_one(root, tmp_path):
    model = zoo.load(NAME)
    trained, _ = load_safetensors(tmp_path / "run/weights.safetensors")
    assert not model.training
    assert digest(model) == digest(trained) == zoo.entry(NAME).weights_digest


def test_verify_golden_vectors_are_what_the_definition_says(root):
    golden, _ = load_safetensors(root / f"weights/{NAME}.golden.safetensors")
    words = random_bits(Stream(0, _golden.GOLDEN_STREAM), 8 * 16)
    assert golden["input"].flatten().tolist() == [w % 256 for w in words.tolist()]
    model = zoo.load(NAME)
    x = tiny.data.to_float(golden["input"], "medmnist")
    assert same_bits(golden["logits"], model(x).detach())
    assert same_bits(golden["feature"], model.first(x.flatten(1)).detach()[0])
    loss = tiny.nn.CrossEntropyLoss()(model(x), torch.arange(8) % 3)
    loss.backward()
    assert same_bits(golden["gradient"], model.head.weight.grad)
    assert zoo.entry(NAME).golden_digest == digest(golden["logits"])


def test_verify_multi_label_golden_gradient(root):
    model, info = zoo.load(NAME), data.describe(zoo.recipe(NAME).data.name)
    several = _golden.golden_vectors(model, replace(info, task=MULTI_LABEL))
    one = _golden.golden_vectors(model, info)
    assert same_bits(several["logits"], one["logits"])
    assert not same_bits(several["gradient"], one["gradient"])


def test_verify_whole_release_checks_and_matches(root):
    assert zoo.check(NAME).ok
    result = zoo.verify(NAME, progress=False)
    assert result.matches
    assert result.first_difference is None
    assert result.to_dict()["match"] is True
    json.dumps(result.to_dict())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda root: flip(root / f"weights/{NAME}.safetensors"), "safetensors is not the released one"),
        (lambda root: flip(root / f"weights/{NAME}.safetensors", 3), "safetensors is not the released one"),
        (lambda root: flip(root / f"weights/{NAME}.golden.safetensors"), "golden.safetensors is not the released one"),
        (lambda root: (root / f"weights/{NAME}.safetensors").unlink(), "is missing"),
        (lambda root: (root / f"weights/{NAME}.golden.safetensors").unlink(), "is missing"),
        (lambda root: (root / f"recipes/{NAME}.toml").write_text(tiny.recipe_text(train={"seed": 6})), "was changed"),
        (lambda root: (root / f"recipes/{NAME}.toml").unlink(), "cannot read the recipe"),
    ],
)
def test_verify_damage_is_found(root, damage, told):
    damage(root)
    result = zoo.check(NAME)
    assert not result.ok
    assert told in result.problem


@pytest.mark.parametrize(
    "change", [{"weights_digest": "0" * 64}, {"golden_digest": "0" * 64}, {"bitspec": 99}], ids=str
)
def test_verify_wrong_rows_are_found(root, change):
    _manifest.write_manifest({NAME: replace(zoo.entry(NAME), **change)})
    assert not zoo.check(NAME).ok


def test_verify_other_arithmetic_fails_the_golden_vectors(root, monkeypatch):
    monkeypatch.setattr(tiny.nn.Linear, "forward", torch.nn.Linear.forward)
    result = zoo.check(NAME)
    assert not result.ok
    assert "golden vectors" in result.problem


def test_verify_other_bits_are_a_mismatch(root, monkeypatch):
    whole = _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == 11:
            with torch.no_grad():
                self.model.head.weight[0, 0] = torch.nextafter(self.model.head.weight[0, 0], torch.tensor(9.0))
        return loss

    monkeypatch.setattr(_run.Run, "step", step)
    result = zoo.verify(NAME, progress=False)
    assert not result.matches
    assert result.digests["init"][0] == result.digests["init"][1]
    assert result.first_difference == "head.weight: 1 of 24 elements differ in their bits, by at most 1 ulp"


def test_verify_stock_torch_is_a_mismatch(root, monkeypatch):
    monkeypatch.setattr(_run.optim, "Adam", torch.optim.Adam)
    monkeypatch.setattr(_run, "_OPTIMIZERS", {"adam": torch.optim.Adam})
    monkeypatch.setattr(tiny.nn.Linear, "forward", torch.nn.Linear.forward)
    assert not zoo.verify(NAME, progress=False).matches


def test_verify_damaged_weights_stop_a_verification_early(root, monkeypatch):
    flip(root / f"weights/{NAME}.safetensors")
    monkeypatch.setattr(_verify, "train", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(zoo.DamagedReleaseError, match="not the released one"):
        zoo.verify(NAME)


def test_verify_releasing_again(root, tmp_path):
    row = zoo.release(tmp_path / "tiny.made.toml", tmp_path / "run")
    assert len(row.environments) == 1
    moved = dict(row.environments[0], cpu="another")
    _manifest.write_manifest({NAME: replace(row, environments=(moved,))})
    assert len(zoo.release(tmp_path / "tiny.made.toml", tmp_path / "run").environments) == 2
    _manifest.write_manifest({NAME: replace(row, weights_digest="0" * 64)})
    with pytest.raises(InputError, match="--replace"):
        zoo.release(tmp_path / "tiny.made.toml", tmp_path / "run")
    assert zoo.release(tmp_path / "tiny.made.toml", tmp_path / "run", replace_row=True) == row


def test_verify_release_refuses_what_does_not_belong(root, tmp_path):
    (tmp_path / "other.toml").write_text(tiny.recipe_text(train={"seed": 6}))
    with pytest.raises(InputError, match="another recipe"):
        zoo.release(tmp_path / "other.toml", tmp_path / "run")
    with pytest.raises(InputError, match="no finished training"):
        zoo.release(tmp_path / "tiny.made.toml", tmp_path)
    flip(tmp_path / "run/weights.safetensors")
    with pytest.raises(IntegrityError, match="train it again"):
        zoo.release(tmp_path / "tiny.made.toml", tmp_path / "run")


def test_verify_releasing_a_recipe_in_place(root, tmp_path):
    train(tiny.recipe(), tmp_path / "again", progress=False)
    zoo.release(root / f"recipes/{NAME}.toml", tmp_path / "again")
    assert zoo.check(NAME).ok


def test_verify_unknown_names_are_told(root):
    for function in (zoo.entry, zoo.recipe, zoo.load, zoo.verify):
        with pytest.raises(InputError, match=r"'nobody'.*tiny\.made"):
            function("nobody")


@pytest.mark.parametrize("text", ["{", "[]", '{"entries": {"a": {}}}', '{"entries": 3}'])
def test_verify_damaged_manifest_is_told(root, text):
    (root / "manifest.json").write_text(text)
    with pytest.raises(zoo.DamagedReleaseError, match="not a manifest"):
        zoo.names()


def test_verify_no_manifest_is_an_empty_zoo(root):
    (root / "manifest.json").unlink()
    assert zoo.names() == []


def test_verify_folder_cannot_be_imported_under_another_name():
    root = _manifest.__file__.rpartition("/zoo/")[0]
    process = subprocess.run([sys.executable, "-c", "import zoo"], cwd=root, capture_output=True, text=True)
    assert process.returncode == 1
    assert "import dettriton.zoo" in process.stderr


@pytest.mark.parametrize("name", zoo.names())
def test_verify_released_models_are_whole(name):
    assert zoo.check(name).problem is None


def test_verify_released_recipes_and_files_all_have_a_row():
    root = _manifest.ROOT
    recipes = {p.name.removesuffix(".toml") for p in (root / "recipes").glob("*.toml")}
    files = {
        p.name.removesuffix(".safetensors").removesuffix(".golden") for p in (root / "weights").glob("*.safetensors")
    }
    assert files == set(zoo.names()) <= recipes


@pytest.mark.parametrize("name", zoo.names())
def test_verify_cards_show_what_the_manifest_says(name):
    card, entry = (_manifest.ROOT / "cards" / f"{name}.md").read_text(), zoo.entry(name)
    assert all(f"`{d}`" in card for d in (entry.weights_digest, entry.file_sha256, entry.init_digest))
    assert f"{entry.test['auc']:.4f} / {entry.test['acc']:.4f}" in card


@pytest.mark.parametrize("name", zoo.names())
def test_verify_cards_are_the_generated_ones(name):
    kept = (_manifest.ROOT / "cards" / f"{name}.md").read_text(encoding="utf-8")
    assert kept == card(name), "run python bench/write_tables.py"
