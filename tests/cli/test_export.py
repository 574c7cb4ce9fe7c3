"""``dettriton export``: files that other runtimes read, with the released logits, and nothing in case of doubt."""

import io
import json
import sys
from pathlib import Path

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner

from dettriton import BITSPEC, data, zoo
from dettriton.cli import main
from dettriton.data.dataset import SCALES, to_float
from dettriton.digest import file_sha256
from dettriton.files import load_safetensors, save_safetensors
from dettriton.train import train
from dettriton.zoo import _export, _manifest
from dettriton.zoo._formats import METADATA_FILE
from dettriton.zoo._golden import golden_input
from dettriton.zoo._plain import TOLERANCE, largest_difference

NAME = "med_cnn.digits"

# torch 2.11's loader warns of its own buffers
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")


def run(*arguments):
    return CliRunner().invoke(main, ["export", *(str(a) for a in arguments)])


def require_refusal(told, *arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dettriton: ") and result.stderr.count("\n") == 1
    assert told in result.stderr
    assert result.stdout == ""


def exact_logits(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = golden_input(data.describe(zoo.recipe(name).data.name))[1]
    return inputs, load_safetensors(_manifest.golden_path(name))[0]["logits"]


def require_onnx(path: Path, name: str) -> dict[str, str]:
    import onnx
    import onnxruntime

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""} and len(model.functions) == 0
    (taken,), (given,) = model.graph.input, model.graph.output
    inputs, exact = exact_logits(name)
    sizes = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
    assert sizes == ["batch", *inputs.shape[1:]] and given.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert (taken.name, given.name) == ("images" if inputs.dim() == 4 else "signals", "logits")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 5):
        (logits,) = session.run(["logits"], {taken.name: inputs[:n].numpy()})
        assert largest_difference(torch.from_numpy(logits), exact[:n]) <= TOLERANCE["high"]
    return {entry.key: entry.value for entry in model.metadata_props}


def require_program(path: Path, name: str) -> dict[str, str]:
    extra = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    inputs, exact = exact_logits(name)
    for n in (1, 5):
        with torch.no_grad():
            assert largest_difference(program.module()(inputs[:n]), exact[:n]) <= TOLERANCE["high"]
    assert "dettriton" not in str(program.graph)
    return json.loads(extra[METADATA_FILE])


def require_both(folder: Path, name: str) -> dict[str, str]:
    onnx, program = folder / "model.onnx", folder / "model.pt2"
    result = run(name, "--onnx", onnx, "--torch-export", program, "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [file["format"] for file in shown] == ["ONNX", "torch.export"]
    for file, path in zip(shown, (onnx, program), strict=True):
        assert file["path"] == str(path) and file["size"] == path.stat().st_size
        assert file["file_sha256"] == file_sha256(path)
        assert 0 < file["largest_difference"] <= file["tolerance"] == TOLERANCE["high"]
        for folder_here in (Path(torch.__file__).parent, Path(_export.__file__).parent):
            assert str(folder_here).encode() not in path.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.pt2"]
    metadata = require_onnx(onnx, name)
    assert metadata == require_program(program, name)
    row, info = zoo.entry(name), data.describe(zoo.recipe(name).data.name)
    assert metadata["dettriton.name"] == name and metadata["dettriton.weights_digest"] == row.weights_digest
    assert metadata["dettriton.bitspec"] == str(BITSPEC)
    assert json.loads(metadata["dettriton.classes"]) == list(info.classes)
    assert metadata["dettriton.data_licence"] == row.data_licence
    return metadata


def test_validate_both_files_of_a_release(tmp_path):
    metadata = require_both(tmp_path, NAME)
    assert json.loads(metadata["dettriton.input"]) == {"formula": "v / 8 - 1", "pixels": "uint8", "shape": [1, 8, 8]}
    assert metadata["dettriton.probabilities"] == "softmax"


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in zoo.names() if name != NAME])
def test_validate_both_files_of_every_other_release(tmp_path, name):
    metadata = require_both(tmp_path, name)
    if name.startswith("ecg"):
        told = json.loads(metadata["dettriton.input"])
        _, kept = load_safetensors(_manifest.weights_path(name))
        assert told.items() >= kept["normalisation"].items() and len(told["leads"]) == 12
        assert told["formula"] == "((raw / gain) - mean) / std"


def test_formulas_are_those_of_the_pixels():
    assert _export.PIXEL_FORMULAS.keys() == SCALES.keys()
    pixels = torch.arange(256, dtype=torch.uint8)
    for kind, formula in _export.PIXEL_FORMULAS.items():
        assert torch.equal(eval(formula, {"v": pixels.to(torch.float32)}), to_float(pixels, kind))


@pytest.fixture
def finished(monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    train(tiny.recipe(), tmp_path / "run", progress=False)
    return tmp_path / "run"


def test_validate_a_run_and_its_refusals(finished, tmp_path, monkeypatch):
    target = tmp_path / "tiny.pt2"
    result = run(finished, "--torch-export", target)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        f"torch.export {target}, {target.stat().st_size} bytes: images (any number x 1 x 4 x 4)"
    )
    assert "(1e-04 is allowed)" in result.stdout
    extra = {METADATA_FILE: ""}
    torch.export.load(io.BytesIO(target.read_bytes()), extra_files=extra)
    told = json.loads(extra[METADATA_FILE])
    digest = json.loads((finished / "result.json").read_text())["weights_digest"]
    assert (told["dettriton.name"], told["dettriton.weights_digest"]) == ("run", digest)
    before = target.read_bytes()

    require_refusal(
        f"{target} exists; choose another name, or replace it (--force)", finished, "--torch-export", target
    )

    def slightly_wrong(model):
        plain = stock(model)
        plain.head.bias.data[0] += 1e-3
        return plain

    stock = _export.as_plain
    monkeypatch.setattr(_export, "as_plain", slightly_wrong)
    told = "the torch.export model of run gives other logits than its golden vectors: they differ by 0.000"
    require_refusal(told, finished, "--torch-export", target, "--force")
    assert target.read_bytes() == before and len(list(tmp_path.iterdir())) == 2

    (finished / "weights.safetensors").write_bytes(b"\0" * 64)
    require_refusal("not a dettriton weights file", finished, "--torch-export", target, "--force")


def test_golden_vectors_that_were_changed_are_refused(monkeypatch, tmp_path):
    root = tiny.release(monkeypatch.setattr, tmp_path)
    path = root / "weights/tiny.made.golden.safetensors"
    tensors, metadata = load_safetensors(path)
    tensors["logits"][0, 0] += 1.0
    save_safetensors(path, tensors, metadata)
    require_refusal("is not the released file; reinstall", "tiny.made", "--torch-export", tmp_path / "x.pt2")
    assert not (tmp_path / "x.pt2").exists()


def test_places_are_checked_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(_export, "find_trained", lambda name: pytest.fail("the model was opened"))
    require_refusal("say what to write: an ONNX file (--onnx FILE), a torch.export file", NAME)
    require_refusal(f"the directory {tmp_path / 'no'} of m.onnx does not exist", NAME, "--onnx", tmp_path / "no/m.onnx")
    require_refusal(f"{tmp_path} is a directory; name a file in it", NAME, "--onnx", tmp_path, "--force")
    same = tmp_path / "m"
    require_refusal(
        f"both files would be {same}; give two", NAME, "--onnx", same, "--torch-export", tmp_path / "." / "m"
    )


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    told = f'ONNX needs {package}, which is not installed: pip install "dettriton[export]"'
    require_refusal(told, NAME, "--onnx", tmp_path / "m.onnx")


def test_an_unknown_model_is_refused(tmp_path):
    told = "there is no released model 'med_cnn.cats'; the names are: ecg_conformer_tiny.ptbxl488, "
    require_refusal(told, "med_cnn.cats", "--torch-export", tmp_path / "m.pt2")
    require_refusal("--out directory of a finished training", "med_cnn.cats", "--torch-export", tmp_path / "m.pt2")
    require_refusal("Name the --out directory of a training", tmp_path, "--torch-export", tmp_path / "m.pt2")
