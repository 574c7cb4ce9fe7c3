"""The detailed trace: what it holds, that it changes nothing, and that a resumed run writes the same one."""

import shutil

import pytest
import tiny_training as tiny
import torch
from bits import same_bits
from click.testing import CliRunner
from tiny_training import files

from dettriton import nn
from dettriton.cli import main
from dettriton.compare import ObservedRun
from dettriton.digest import digest, tensor_digest
from dettriton.errors import InputError, IntegrityError
from dettriton.files import load_safetensors
from dettriton.train import train
from dettriton.train._detail import PROBE_SAMPLES, probe_outputs
from dettriton.train.checkpoint import checkpoint_paths, load_checkpoint
from dettriton.train.trace import read_trace

FILE = "trace-detail.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Undisturbed runs of the tiny recipe by detail."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch.setattr)
        for level in ("step", "gradients", "activations"):
            tiny_train(folder / level, trace_detail=level)
    return folder


def tiny_train(out, **options):
    return train(tiny.recipe(), out, progress=False, **options)


def test_verify_no_detail_changes_a_bit_of_the_run(made):
    for level in ("gradients", "activations"):
        assert files(made / level) == files(made / "step")
    assert not (made / "step" / FILE).exists()


def test_verify_lines_are_those_of_the_trace_with_details_added(made):
    plain = read_trace(made / "step/trace.jsonl")
    for level, added in (("gradients", {"samples", "gradients"}), ("activations", {"samples", "gradients", "outputs"})):
        for step, (x, y) in enumerate(zip(plain, read_trace(made / level / FILE), strict=True)):
            assert y.keys() - x.keys() - {"tensors", "optimizer"} == added | ({"initial"} if step == 0 else set())
            assert "optimizer" in y and "optimizer" not in x
            assert y.items() >= x.items() and "tensors" in y


def test_verify_digests_are_those_of_the_step(made, monkeypatch):
    tiny.install(monkeypatch.setattr)
    run = ObservedRun(tiny.recipe(), tiny.splits(), "cpu")
    records = read_trace(made / "activations" / FILE)
    assert records[0]["initial"] == run.tensor_digests()
    probe = tiny.splits()["train"].inputs(slice(0, PROBE_SAMPLES))
    for step, record in enumerate(records[:6]):
        run.model.eval()
        with torch.no_grad():
            first = run.model.first(run.model.flatten(probe))
            whole = digest({"0": run.model(probe)})
        run.model.train()
        named = dict(record["outputs"])
        assert [*named] == ["flatten", "first", "norm", "relu", "drop", "head", ""]
        assert named["first"] == digest({"0": first}) and named[""] == named["head"] == whole
        seen = run.observe(step)
        assert dict(record["gradients"]) == {name: tensor_digest(name, t) for name, t in seen.gradients.items()}
        batch = {"order": seen.chosen, "inputs": seen.inputs, "labels": seen.labels}
        assert record["samples"] == {name: tensor_digest("", t) for name, t in batch.items()}
        assert record["tensors"] == run.tensor_digests()
        states = [(name, run.optimizer.state[p]) for name, p in run.model.named_parameters()]
        kept = {f"{name}: {key}": value for name, state in states for key, value in state.items()}
        count = torch.tensor(step + 1, dtype=torch.float64)
        expected = {name: count if name.endswith(": step") else value for name, value in kept.items()}
        assert len(expected) == 3 * len(states)
        assert record["optimizer"] == {name: tensor_digest(name, value) for name, value in expected.items()}


def test_verify_interval(go, tmp_path):
    go(trace_detail="gradients", trace_interval=5)
    records = read_trace(tmp_path / "run" / FILE)
    assert [r["step"] for r in records if "gradients" in r] == [0, 5, 10]
    assert [r["step"] for r in records if "tensors" in r] == [0, 3, 5, 7, 10, 11]
    assert all(("optimizer" in r) == ("tensors" in r) for r in records)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_verify_an_interrupted_run_writes_the_same_file(go, made, tmp_path, monkeypatch, elsewhere):
    options = {"trace_detail": "activations", "checkpoint_steps": 3}
    file = tmp_path / "run" / FILE
    if elsewhere:
        file = options["trace_file"] = tmp_path / "close.jsonl"
    go_on = tiny.stop_after(monkeypatch, 7)
    with pytest.raises(KeyboardInterrupt):
        go(**options)
    go_on()
    whole = (made / "activations" / FILE).read_bytes()
    assert whole.startswith(file.read_bytes()) and file.stat().st_size < len(whole)
    with open(file, "ab") as stream:
        stream.write(b'{"chain":"0')
    go(resume=True, **options)
    assert file.read_bytes() == whole
    assert files(tmp_path / "run") == files(made / "step")
    assert (tmp_path / "run" / FILE).exists() is not elsewhere


def test_verify_killed_before_the_first_checkpoint(go, made, tmp_path, monkeypatch):
    options = {"trace_detail": "activations", "trace_file": str(tmp_path / "close.jsonl")}
    go_on = tiny.stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        go(**options)
    go_on()
    assert not checkpoint_paths(tmp_path / "run")
    go(resume=True, **options)
    assert (tmp_path / "close.jsonl").read_bytes() == (made / "activations" / FILE).read_bytes()


def test_verify_step_detail_elsewhere_is_a_copy_of_the_trace(go, tmp_path):
    go(trace_file=tmp_path / "run" / "copy.jsonl")
    assert (tmp_path / "run/copy.jsonl").read_bytes() == (tmp_path / "run/trace.jsonl").read_bytes()


def test_verify_another_detail_is_refused(go, made, tmp_path):
    shutil.copytree(made / "gradients", tmp_path / "run")
    for other in (
        {},
        {"trace_detail": "activations"},
        {"trace_detail": "gradients", "trace_interval": 2},
        {"trace_file": tmp_path / "x"},
    ):
        with pytest.raises(InputError, match="resume with the same"):
            go(resume=True, **other)
    assert not (tmp_path / "x").exists()


def test_verify_checkpoints_without_details_say_nothing_of_them(made, go, tmp_path):
    newest = checkpoint_paths(made / "step")[0]
    assert "detail" not in load_safetensors(newest)[1] and load_checkpoint(newest).detail is None
    shutil.copytree(made / "step", tmp_path / "run")
    with pytest.raises(InputError, match="was begun with no detailed trace and is resumed with a detailed trace"):
        go(resume=True, trace_detail="gradients")


@pytest.mark.parametrize("damage", ["missing", "short", "edited"])
def test_verify_a_damaged_file_is_refused(go, made, tmp_path, damage):
    shutil.copytree(made / "gradients", tmp_path / "run")
    path = tmp_path / "run" / FILE
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        link = read_trace(path)[-1]["chain"].encode()
        path.write_bytes(content[:-5] if damage == "short" else content.replace(link, b"0" * 64))
    with pytest.raises(IntegrityError, match=r"trace-detail\.jsonl does not lead to the checkpoint"):
        go(resume=True, trace_detail="gradients")


def test_verify_no_other_file_is_harmed(go, tmp_path, monkeypatch):
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"precious": 1}\n')
    (tmp_path / "link").symlink_to(tmp_path / "run/weights.safetensors")
    for options, told in [
        ({"trace_file": mine}, "exists and is not written over"),
        ({"trace_file": mine, "resume": True}, "exists and is not written over"),
        ({"trace_file": tmp_path / "run/trace.jsonl"}, "a file of the run itself"),
        ({"trace_file": tmp_path / "run/../run/result.json", "resume": True}, "a file of the run itself"),
        ({"trace_file": tmp_path / "link"}, "a file of the run itself"),
        ({"trace_file": tmp_path / "nowhere/x.jsonl"}, "there is no directory"),
        ({"trace_file": tmp_path / "x", "trace": False}, "no detailed trace without a trace"),
        ({"trace_detail": "gradients", "trace": False}, "no detailed trace without a trace"),
        ({"trace_detail": "all"}, "choose one of step, gradients, activations"),
        ({"trace_detail": "gradients", "trace_interval": 0}, "counts steps from 1"),
    ]:
        with pytest.raises(InputError, match=told):
            go(**options)
        assert not (tmp_path / "run").exists()
    assert mine.read_text() == '{"precious": 1}\n'


class Noisy(torch.nn.Module):
    """Modules that keep statistics or draw numbers, a module that is called twice, and a pair as output."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.pool = nn.FractionalMaxPool2d(2, output_size=4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.pool(self.drop(self.norm(x)))), x


def test_verify_the_probe_moves_nothing():
    model = Noisy().train()
    nn.set_random_state(model, 1, 5)
    model(torch.randn(3, 2, 9, 9))
    probe = torch.randn(3, 2, 9, 9)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    seen = probe_outputs(model, probe, seed=1, step=6)
    assert [name for name, _ in seen] == ["norm", "drop", "pool", "drop", ""]
    assert all(same_bits(t, before[name]) for name, t in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not model.norm._forward_hooks
    nn.set_random_state(model, 9, 77)
    assert probe_outputs(model, probe, seed=1, step=6) == seen, "whatever was drawn before"
    assert probe_outputs(model, probe, seed=1, step=7) != seen, "the pool's windows are those of the step"


def test_verify_the_command(made, monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    (tmp_path / "made.toml").write_text(tiny.recipe_text())
    run = [str(tmp_path / "made.toml"), "--out", str(tmp_path / "run"), "--trace-detail", "gradients"]
    file = tmp_path / "close.jsonl"
    result = CliRunner().invoke(main, ["train", *run, "--trace-interval", "1", "--trace", str(file)])
    assert result.exit_code == 0, result.output
    assert file.read_bytes() == (made / "gradients" / FILE).read_bytes()
    assert files(tmp_path / "run") == files(made / "step")
    again = CliRunner().invoke(main, ["train", *run, "--resume"])
    assert again.exit_code == 2, again.output
    assert "it is not where the run wrote it (--trace)" in again.stderr
