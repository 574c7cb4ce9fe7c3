"""``dettriton evaluate``: the figures are the report's, digests are checked, and what does not fit is refused."""

import dataclasses
import json
import shutil

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner
from made_wfdb import noise, write_record

from dettriton import BITSPEC, data
from dettriton.cli import main
from dettriton.data._ptbxl_tables import RHYTHM, SUPERCLASS
from dettriton.data.dataset import MULTI_CLASS, MULTI_LABEL, dataset_sha256
from dettriton.data.signals import Normalisation, SignalDataset
from dettriton.data.wfdb_folder import SNOMED_SUPERCLASS, read_wfdb_folder
from dettriton.digest import canonical_json, digest, file_sha256
from dettriton.files import load_safetensors, save_safetensors
from dettriton.train import load_run, make_report, train
from dettriton.train._run import build_model

SCALE = Normalisation(*(torch.full((12,), v) for v in (1000.0, 0.25, 0.5)))
CODES = {
    "a": "164865005,426783006",  # myocardial infarction, sinus rhythm
    "b/c": "164873001, 111975006",  # left ventricular hypertrophy, prolonged qt interval
    "d": "426783006",
    "e": "999",
    "f": "164909002,164889003",  # left bundle branch block, atrial fibrillation
}
POSITIVES = {"NORM": None, "MI": 1, "STTC": 1, "CD": 1, "HYP": 1}


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *(str(a) for a in arguments)])


def shown(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def require_refusal(result, told):
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dettriton: ") and result.stderr.count("\n") == 1
    assert told in result.stderr


def describe_tiny(name, data_dir=None):
    changes = {"letters": {"classes": tuple("xyz")}, "large": {"image_shape": (1, 8, 8)}}
    return dataclasses.replace(tiny.INFO, name=name, **changes.get(name, {}))


@pytest.fixture
def finished(monkeypatch, tmp_path):
    """The directory of a finished training of the tiny model."""
    tiny.install(monkeypatch.setattr)
    monkeypatch.setattr(data, "describe", describe_tiny)
    train(tiny.recipe(), tmp_path / "run", progress=False)
    return tmp_path / "run"


def save_ecg_run(directory, dataset: str, classes: int, task: str):
    """What a training of a small ECG network leaves, here with its first weights."""
    loss = "binary_cross_entropy_with_logits" if task == MULTI_LABEL else "cross_entropy"
    recipe = tiny.recipe(
        model={"name": "ecg_resnet18_tiny", "args": {"num_classes": classes}},
        data={"name": dataset},
        train={"loss": loss, "label_smoothing": 0.0},
        augment={"hflip": False, "crop_padding": 0},
    )
    directory.mkdir()
    state = build_model(recipe).state_dict()
    scale = {f.name: getattr(SCALE, f.name).tolist() for f in dataclasses.fields(SCALE)}
    save_safetensors(directory / "weights.safetensors", state, {"normalisation": scale})
    result = {
        "bitspec": BITSPEC,
        "recipe_digest": recipe.digest(),
        "weights_digest": digest(state),
        "weights_sha256": file_sha256(directory / "weights.safetensors"),
    }
    (directory / "recipe.json").write_bytes(canonical_json(recipe.to_dict()))
    (directory / "result.json").write_bytes(canonical_json(result))
    return directory


@pytest.fixture
def superclass_run(tmp_path):
    return save_ecg_run(tmp_path / "ecg", "ptbxl488", len(SUPERCLASS), MULTI_LABEL)


@pytest.fixture
def records(tmp_path):
    for number, (name, codes) in enumerate(CODES.items()):
        write_record(tmp_path / "records" / name, noise(number), comments=[f"Dx: {codes}"])
    return tmp_path / "records"


def test_verify_figures_of_a_run(finished):
    found = shown(finished)
    expected = make_report(load_run(finished).model, tiny.splits()["test"], tuple("abc"))
    result = json.loads((finished / "result.json").read_text())
    assert found.items() >= expected.to_dict().items()
    assert found["weights_digest"] == result["weights_digest"]
    assert (found["auc"], found["acc"]) == (result["test"]["auc"], result["test"]["acc"])
    assert (found["model"], found["data"], found["split"]) == ("run", "made", "test")
    assert found["data_sha256"] == dataset_sha256({"test": tiny.splits()["test"]})
    assert shown(finished, "--split", "val")["auc"] == result["validation"]["auc"]
    assert shown(finished, "--split", "train")["samples"] == 26
    assert shown(finished, "--data", "twin")["auc"] == found["auc"]


def test_verify_the_printed_table(finished):
    result = run(finished)
    assert result.exit_code == 0, result.output
    facts, lines = shown(finished), result.stdout.splitlines()
    assert lines[0] == "model run, trained on made"
    assert [line.split()[0] for line in lines if line[:2] in ("a ", "b ", "c ")] == ["a", "b", "c"]
    row = facts["classes"][1]
    assert f"b              3{row['auc']:>11.4f}{row['f1']:>11.4f}" in lines
    assert f"mean            {facts['auc']:>11.4f}{facts['f1']:>11.4f}" in lines
    assert f"accuracy {facts['acc']:.4f}  expected calibration error {facts['ece']:.4f}" in lines
    assert lines[-2:] == [f"weights {facts['weights_digest']}", f"data    {facts['data_sha256']}"]


def test_verify_a_released_model(monkeypatch, tmp_path):
    root = tiny.release(monkeypatch.setattr, tmp_path)
    monkeypatch.setattr(data, "describe", describe_tiny)
    found, entry = shown("tiny.made"), json.loads((root / "manifest.json").read_text())["entries"]["tiny.made"]
    assert (found["auc"], found["weights_digest"]) == (entry["test"]["auc"], entry["weights_digest"])
    assert {**found, "model": "run"} == shown(tmp_path / "run")


def test_verify_a_folder(superclass_run, records):
    found = shown(superclass_run, "--wfdb", records)
    assert {row["name"]: row["positives"] for row in found["classes"]} == POSITIVES
    assert (found["samples"], found["records_without_label"], found["labels_without_code"]) == (5, 2, ["NORM"])
    assert found["classes"][0] == {"name": "NORM", "positives": None, "auc": None, "f1": None}
    options = {"classes": SUPERCLASS, "class_of_code": SNOMED_SUPERCLASS}
    expected = read_wfdb_folder(records, normalisation=SCALE, **options).dataset
    report = make_report(load_run(superclass_run).model, expected, SUPERCLASS, unknown=("NORM",))
    assert found.items() >= report.to_dict().items()
    assert found["data_sha256"] == dataset_sha256({"test": expected})
    # the records' own mean and deviation would be other data
    assert found["data_sha256"] != dataset_sha256({"test": read_wfdb_folder(records, **options).dataset})
    text = run(superclass_run, "--wfdb", records).stdout
    assert "NORM     no code          -          -" in text
    assert "2 of 5 records have no known code for any of these labels" in text
    shutil.move(records, records.with_name("moved"))
    assert shown(superclass_run, "--wfdb", records.with_name("moved"))["data_sha256"] == found["data_sha256"]


def test_verify_softmax_on_rhythms_of_a_folder(tmp_path, records):
    directory = save_ecg_run(tmp_path / "sim", "rhythm_sim", len(RHYTHM), MULTI_CLASS)
    found = shown(directory, "--wfdb", records)
    positives = {row["name"]: row["positives"] for row in found["classes"]}
    assert positives == {**dict.fromkeys(RHYTHM, 0), "SR": 2, "AFIB": 1, "SVARR": None}
    dataset = read_wfdb_folder(records, normalisation=SCALE).dataset
    options = {"unknown": ("SVARR",)}
    report = make_report(load_run(directory).model, dataset, RHYTHM, trained_task=MULTI_CLASS, **options)
    assert found.items() >= report.to_dict().items()
    assert report != make_report(load_run(directory).model, dataset, RHYTHM, **options)
    text = run(directory, "--wfdb", records).stdout
    unseen = ", ".join(name for name in RHYTHM if positives[name] == 0)
    assert f"AUC undefined, and left out of its mean: no positives or no negatives of {unseen}\n" in text
    never = [row["name"] for row in found["classes"] if row["positives"] == 0 and row["f1"] is None]
    assert (
        never
        and f"F1 undefined, and left out of its mean: no positives, and none predicted, of {', '.join(never)}\n" in text
    )


def test_verify_other_signals_are_normalised_as_in_the_training(tmp_path, monkeypatch):
    directory = save_ecg_run(tmp_path / "sim", "rhythm_sim", len(RHYTHM), MULTI_CLASS)
    signals = torch.stack([torch.from_numpy(noise(i)) for i in range(24)])
    labels = (torch.arange(24)[:, None] % 12 == torch.arange(12)).float()
    theirs = Normalisation(*(torch.full((12,), v) for v in (200.0, 0.0, 3.0)))
    other = SignalDataset("ptbxl_rhythm", "test", signals, labels, 12, MULTI_LABEL, theirs, tuple("x" * 24))
    monkeypatch.setattr(data, "load", lambda name, data_dir=None, download=False: {"test": other})
    found = shown(directory, "--data", "ptbxl_rhythm")
    scaled = dataclasses.replace(other, normalisation=dataclasses.replace(SCALE, gain=theirs.gain))
    assert found["data_sha256"] == dataset_sha256({"test": scaled}) != dataset_sha256({"test": other})
    report = make_report(load_run(directory).model, scaled, RHYTHM, trained_task=MULTI_CLASS)
    assert found.items() >= report.to_dict().items()


def flip_weights(directory):
    path = directory / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_normalisation(directory):
    tensors, metadata = load_safetensors(directory / "weights.safetensors")
    metadata["normalisation"]["mean"][0] = 0.5
    save_safetensors(directory / "weights.safetensors", tensors, metadata)


def edit(name, old, new):
    def change(directory):
        text = (directory / name).read_text()
        assert old in text
        (directory / name).write_text(text.replace(old, new))

    return change


DAMAGE = {
    "weights": (flip_weights, "its weights_digest is"),
    "normalisation": (change_normalisation, "its weights_sha256 is"),
    "recipe": (edit("recipe.json", '"epochs":3', '"epochs":4'), "is not the one of its result.json"),
    "bitspec": (edit("result.json", f'"bitspec":{BITSPEC}', '"bitspec":0'), "follows bitspec 0, not"),
    "no key": (edit("result.json", '"weights_sha256"', '"sha"'), "holds no finished training"),
    "no result": (lambda d: (d / "result.json").unlink(), "train to the end first"),
    "no JSON": (lambda d: (d / "result.json").write_text("{"), "holds no finished training"),
    "no recipe": (lambda d: (d / "recipe.json").unlink(), "holds no readable recipe.json"),
    "no weights": (lambda d: (d / "weights.safetensors").unlink(), "weights.safetensors"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_a_damaged_run_is_refused(superclass_run, records, kind):
    damage, told = DAMAGE[kind]
    damage(superclass_run)
    require_refusal(run(superclass_run, "--wfdb", records), told)


def test_models_and_data_that_do_not_fit_are_refused(finished, records, tmp_path):
    (tmp_path / "empty").mkdir()
    require_refusal(run("nobody"), "no released model 'nobody'")
    require_refusal(run(tmp_path / "nowhere"), "Nor is it a folder")
    require_refusal(run(tmp_path / "empty"), "holds no readable recipe.json")
    require_refusal(run(finished, "--wfdb", records), "run was trained on the images of made")
    require_refusal(run(finished, "--data", "letters"), "whose classes are a, b, c; letters has others: x, y, z")
    require_refusal(
        run(finished, "--data", "large"), "1 x 4 x 4 images of scale medmnist; those of large are 1 x 8 x 8"
    )


def test_folders_that_do_not_fit_are_refused(superclass_run, records, tmp_path):
    (tmp_path / "empty").mkdir()
    require_refusal(run(superclass_run, "--wfdb", tmp_path / "nowhere"), "there is no folder")
    require_refusal(run(superclass_run, "--wfdb", tmp_path / "empty"), "no WFDB headers")
    require_refusal(run(superclass_run, "--data", "rhythm_sim"), "rhythm_sim has others: SR, AFIB")
    form = save_ecg_run(tmp_path / "form", "ptbxl_form", 19, MULTI_LABEL)
    require_refusal(run(form, "--wfdb", records), "those of form, trained on ptbxl_form, are NDT, NST_")
    write_record(tmp_path / "plain" / "one", noise(1), comments=["Dx: 999"])
    require_refusal(run(superclass_run, "--wfdb", tmp_path / "plain"), "no class has both")


@pytest.mark.parametrize("options", [["--data", "digits"], ["--split", "val"], ["--download"]])
def test_usage_errors(options):
    result = run("med_cnn.digits", "--wfdb", ".", *options)
    assert result.exit_code == 2
    assert "--wfdb takes all records of a folder" in result.stderr
    assert run("med_cnn.digits", "--split", "tests").exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused(finished):
    require_refusal(run(finished, "--device", "cuda"), "no GPU")


@pytest.mark.data
def test_verify_a_model_of_ptbxl_on_records_of_other_hospitals(data_dir, tmp_path):
    recipe = tiny.recipe(
        model={"name": "ecg_resnet18_tiny", "args": {"num_classes": 5}},
        data={"name": "ptbxl488"},
        schedule={"warmup_epochs": 0},
        train={"epochs": 1, "batch_size": 32, "loss": "binary_cross_entropy_with_logits", "label_smoothing": 0.0},
        augment={"hflip": False, "crop_padding": 0},
    )
    result = train(recipe, tmp_path / "run", data_dir=data_dir, progress=False)
    own = shown(tmp_path / "run", "--data-dir", data_dir)
    assert (own["auc"], own["acc"], own["samples"]) == (float(result.test.auc), float(result.test.accuracy), 66)
    assert own["data_sha256"] == dataset_sha256({"test": data.load("ptbxl488", data_dir)["test"]})
    other = shown(tmp_path / "run", "--wfdb", data_dir / "wfdb" / "cinc2021")
    positives = {row["name"]: row["positives"] for row in other["classes"]}
    assert positives == {"NORM": None, "MI": 0, "STTC": 18, "CD": 12, "HYP": 8}
    assert (other["samples"], other["records_without_label"]) == (50, 18)
    assert other["weights_digest"] == own["weights_digest"] == result.weights_digest
