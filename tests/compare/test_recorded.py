"""What two trainings recorded, side by side; damaged records are refused by name."""

import itertools
import json
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from dettriton.compare import compare, open_side
from dettriton.digest import all_differences, first_difference
from dettriton.errors import InputError, IntegrityError
from dettriton.train import parse_recipe
from dettriton.train.checkpoint import checkpoint_paths
from dettriton.train.trace import float_of_bits


def diff(a, b):
    return compare(open_side(str(a)), open_side(str(b)))


def edit(path, line, old, new):
    lines = Path(path).read_text().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    Path(path).write_text("".join(lines))


def test_verify_identical_runs(go):
    found = diff(go("a"), go("b", tensor_interval=2))
    assert found.same and found.first_step is None
    assert (found.same_recipe, found.same_data, found.same_init) == (True, True, True)
    assert found.checkpoints.compared == (8, 12) and found.checkpoints.last_equal == 12
    assert found.trace.last_equal_tensors == 11
    assert json.loads(json.dumps(found.to_dict()))["same"] is True


def test_verify_one_ulp_is_seen_in_tensors_before_the_loss(go, one_ulp):
    a = go("a", tensor_interval=1)
    undo = one_ulp(5)
    b = go("b", tensor_interval=1)
    undo()
    found = diff(a, b)
    assert not found.same and found.same_recipe
    assert found.trace.tensors.step == 5 and found.trace.tensors.names == ("first.weight",)
    assert found.trace.last_equal_tensors == 4
    assert found.first_step == 5
    assert found.trace.loss is None or found.trace.loss.step > 5
    assert found.checkpoints.different == 8


def test_verify_first_differing_loss(go):
    a, b = go("a"), go("b", tiny.recipe(optimizer={"lr": 0.02}))
    found = diff(a, b)
    assert [(s.section, s.key, s.a, s.b) for s in found.settings] == [("optimizer", "lr", 0.01, 0.02)]
    assert found.same_recipe is False and found.same_init and found.same_data
    losses = [[json.loads(line)["loss"] for line in Path(x, "trace.jsonl").read_text().splitlines()] for x in (a, b)]
    first = next(i for i in range(12) if losses[0][i] != losses[1][i])
    assert (found.trace.loss.step, found.trace.loss.a, found.trace.loss.b) == (
        first,
        losses[0][first],
        losses[1][first],
    )
    assert found.trace.to_dict()["loss"]["a"]["value"] == float_of_bits(losses[0][first])
    assert found.trace.last_equal_tensors is None
    assert found.trace.tensors.step == 3


def test_verify_other_optimizer_and_seeds_are_named(go):
    a = go("a")
    found = diff(a, go("b", tiny.recipe(init={"seed": 4}, order={"seed": 1})))
    assert {(s.section, s.key) for s in found.settings} == {("init", "seed"), ("order", "seed")}
    assert found.same_init is False and found.first_step == 0
    sgd = {s: {**t} for s, t in tiny.TABLES.items()} | {"optimizer": {"name": "sgd", "lr": 0.01}}
    settings = {s.key: (s.a, s.b) for s in diff(a, go("c", parse_recipe(sgd))).settings}
    assert settings["eps"] == (1e-8, "not set") and settings["momentum"] == ("not set", 0.0)


def test_verify_checkpoints_are_split_into_groups(go, one_ulp):
    a = go("a")
    undo = one_ulp(7)
    b = go("b")
    undo()
    found = diff(a, b)
    groups = found.checkpoints.groups
    assert found.checkpoints.different == 8 and set(groups) == {"parameters"}
    (only,) = groups["parameters"]
    assert (only.name, only.differing, only.elements, only.max_ulp) == ("first.weight", 1, 128, 1)
    later = diff(checkpoint_paths(Path(a))[0], checkpoint_paths(Path(b))[0])
    assert later.trace is None and later.checkpoints.different == 12
    assert set(later.checkpoints.groups) == {"parameters", "buffers", "optimizer state"}
    assert any(d.name == "first.weight: exp_avg" for d in later.checkpoints.groups["optimizer state"])
    assert {d.name for d in later.checkpoints.groups["buffers"]} <= {"norm.running_mean", "norm.running_var"}


def test_verify_traces_alone(go):
    a, b = go("a"), go("b", tiny.recipe(optimizer={"lr": 0.02}))
    found = diff(f"{a}/trace.jsonl", f"{b}/trace.jsonl")
    assert found.same_recipe is None and found.trace.same_origin is False and found.trace.loss.step > 0
    assert diff(f"{a}/trace.jsonl", a).same


def test_verify_weights_and_released_name(go, monkeypatch, tmp_path):
    a, b = go("a"), go("b", tiny.recipe(init={"seed": 4}))
    assert diff(f"{a}/weights.safetensors", a).same
    found = diff(f"{a}/weights.safetensors", f"{b}/weights.safetensors")
    assert not found.same and found.weights.groups["parameters"]
    assert found.settings[0].key == "seed" and found.same_init is False
    (tmp_path / "zoo").mkdir()
    tiny.release(monkeypatch.setattr, tmp_path)
    assert diff("tiny.made", a).same
    assert not diff("tiny.made", b).same


def test_verify_truncated_trace_of_an_unfinished_run(go, monkeypatch, tmp_path):
    a = go("a")
    go_on = tiny.stop_after(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        go("b")
    go_on()
    path = tmp_path / "b" / "trace.jsonl"
    found = diff(a, tmp_path / "b")
    assert found.same and found.trace.steps_b == 6
    path.write_bytes(path.read_bytes()[:-5])
    found = diff(a, tmp_path / "b")
    assert found.same and found.trace.steps_b == 5
    assert "cut within line 6" in found.b.notes[0]


def test_verify_cut_trace_of_a_finished_run_is_refused(go):
    a, b = go("a"), go("b")
    lines = Path(b, "trace.jsonl").read_text().splitlines(keepends=True)
    Path(b, "trace.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(IntegrityError, match=r"b/trace\.jsonl is damaged: it does not end"):
        diff(a, b)


def test_verify_broken_chain_is_refused(go):
    a = go("a")
    path = Path(a, "trace.jsonl")
    whole = path.read_bytes()
    for line, what in itertools.product((0, 5, 11), ("loss", "chain")):
        path.write_bytes(whole)
        old = json.loads(whole.splitlines()[line])[what]
        edit(path, line, old, ("0" if old[0] != "0" else "1") + old[1:])
        with pytest.raises(IntegrityError, match=rf"a/trace\.jsonl is damaged: its chain breaks at line {line + 1} "):
            open_side(a)


def test_verify_edited_tensor_digest_breaks_the_chain(go):
    a, b = go("a"), go("b")
    digest = json.loads(Path(b, "trace.jsonl").read_text().splitlines()[7])["tensors"]["head.bias"]
    edit(f"{b}/trace.jsonl", 7, digest, "0" * 64)
    with pytest.raises(IntegrityError, match="breaks at line 8"):
        diff(a, b)


def test_verify_left_out_line_breaks_the_chain(go):
    a = go("a")
    path = Path(a, "trace.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4] + lines[5:]))
    with pytest.raises(IntegrityError, match="breaks at line 5"):
        open_side(str(path))


@pytest.mark.parametrize("content", ["[1]\n", '{"step":0}\n', '{"step":0,"loss":"xyz","chain":"0"}\n'])
def test_verify_what_is_no_trace_is_refused(tmp_path, content):
    (tmp_path / "trace.jsonl").write_text(content)
    with pytest.raises(InputError, match="line 1 is not a trace record"):
        open_side(str(tmp_path / "trace.jsonl"))


def test_verify_damaged_files(go, tmp_path):
    a, b = go("a"), go("b")
    newest = checkpoint_paths(Path(b))[0]
    flip(newest)
    found = diff(a, b)
    assert found.same and found.checkpoints.compared == (8,)
    assert "is left out" in found.b.notes[0]
    with pytest.raises(IntegrityError, match="damaged"):
        open_side(str(newest))
    flip(Path(b, "weights.safetensors"))
    with pytest.raises(IntegrityError, match=r"weights\.safetensors are damaged"):
        open_side(b)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_verify_missing_and_empty_sides(go, tmp_path):
    with pytest.raises(InputError, match="there is no"):
        open_side(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no readable recipe\.json"):
        open_side(str(tmp_path / "empty"))
    a = go("a")
    with pytest.raises(InputError, match=r"nothing to compare: .* holds a trace; .* holds weights"):
        diff(f"{a}/trace.jsonl", f"{a}/weights.safetensors")


def test_verify_a_checkpoint_whose_model_is_not_known(go, one_ulp, tmp_path):
    a = go("a")
    undo = one_ulp(7)
    b = go("b")
    undo()
    alone = tmp_path / "alone.safetensors"
    checkpoint_paths(Path(a))[0].rename(alone)
    found = diff(alone, b)
    assert found.same_recipe is True and not found.settings
    assert set(found.checkpoints.groups) == {"weights", "optimizer state"}
    assert found.checkpoints.groups["optimizer state"][0].name.startswith("parameter 0: ")


def test_verify_all_differences_are_listed_in_order():
    a = {"é": torch.zeros(2), "b": torch.ones(3), "a": torch.zeros(1), "same": torch.ones(1)}
    b = {
        "é": torch.zeros(2, 1),
        "b": torch.tensor([1.0, 1.0, 1.0 + 2**-22]),
        "c": torch.zeros(1),
        "same": torch.ones(1),
    }
    found = all_differences(a, b)
    assert [(d.name, d.kind) for d in found] == [("a", "missing"), ("b", "bits"), ("c", "missing"), ("é", "shape")]
    assert (found[1].differing, found[1].max_ulp) == (1, 2)
    assert found[0] == first_difference(a, b) and all_differences(a, a) == []
