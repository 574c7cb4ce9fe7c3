"""Checkpoints and run files that were cut, flipped or forged: passed over or refused in words, never a crash."""

import dataclasses
import json
from fractions import Fraction

import pytest
import tiny_training as tiny
import torch

from dettriton.digest import digest
from dettriton.errors import DettritonError, InputError, IntegrityError
from dettriton.files import load_safetensors, save_safetensors
from dettriton.train.checkpoint import (
    Checkpoint,
    EpochScores,
    checkpoint_paths,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from dettriton.train.trace import Position


def made(step):
    return Checkpoint(
        recipe_digest="r",
        init_digest="i",
        step=step,
        trace=Position("t", 12),
        traced=True,
        tensor_interval=None,
        scores=(EpochScores(0, Fraction(1, 3), Fraction(2, 7)),),
        model={"a.weight": torch.ones(2, 2)},
        optimizer={"0.exp_avg": torch.ones(4)},
        optimizer_scalars={"0.step": 7},
        best={"a.weight": torch.zeros(2, 2)},
    )


def header_end(content):
    return 8 + int.from_bytes(content[:8], "little")


CUTS = {
    "nothing left": lambda content: b"",
    "inside the header's length": lambda content: content[:5],
    "after the header's length": lambda content: content[:8],
    "inside the header": lambda content: content[: header_end(content) // 2],
    "after the header": lambda content: content[: header_end(content)],
    "inside the payload": lambda content: content[: header_end(content) + 9],
    "the last byte": lambda content: content[:-1],
    "a byte too many": lambda content: content + b"\0",
    "all zeros": lambda content: bytes(len(content)),
    "a page of zeros at the end": lambda content: content[:-16] + bytes(16),
    "another checkpoint's end": lambda content: content[:-8] + b"\0\0\0\x40\0\0\0\x40",
    "text": lambda content: b"not a checkpoint\n",
}


@pytest.mark.parametrize("kind", CUTS)
def test_verify_a_cut_checkpoint_falls_back_and_says_so(tmp_path, kind):
    save_checkpoint(tmp_path, made(10))
    path = save_checkpoint(tmp_path, made(11))
    whole = path.read_bytes()
    path.write_bytes(CUTS[kind](whole))
    assert path.read_bytes() != whole
    told = []
    assert load_newest(tmp_path, told.append).step == 10
    assert len(told) == 1
    assert told[0].startswith("checkpoint-0000000011.safetensors cannot be used, going back to the one before it: ")


def test_verify_every_flipped_byte_is_found_or_harmless(tmp_path):
    path = save_checkpoint(tmp_path, made(10))
    whole = path.read_bytes()
    expected = load_safetensors(path)
    harmless = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            load_checkpoint(path)
        except DettritonError:
            continue
        harmless += 1
        found = load_safetensors(path)
        assert digest(found[0], found[1]) == digest(*expected), f"byte {place}"
    assert harmless < 3


def test_verify_a_directory_in_a_checkpoints_place(tmp_path):
    save_checkpoint(tmp_path, made(10))
    (tmp_path / "checkpoint-0000000011.safetensors").mkdir()
    told = []
    assert load_newest(tmp_path, told.append).step == 10
    assert len(told) == 1


def test_verify_a_damaged_checkpoint_does_not_count_as_kept(tmp_path):
    save_checkpoint(tmp_path, made(10))
    damaged = save_checkpoint(tmp_path, made(20))
    damaged.write_bytes(b"")
    for step in (11, 12, 13):
        save_checkpoint(tmp_path, made(step))
    assert [int(p.name[11:21]) for p in checkpoint_paths(tmp_path)] == [20, 13, 12]
    save_checkpoint(tmp_path, made(20))
    assert [load_checkpoint(p).step for p in checkpoint_paths(tmp_path)] == [20, 13]


FORGED = {
    "no recipe": lambda m: m.pop("recipe"),
    "a step of text": lambda m: m.update(step="7"),
    "a step that is true": lambda m: m.update(step=True),
    "a negative step": lambda m: m.update(step=-1),
    "a trace without a size": lambda m: m["trace"].pop("size"),
    "a trace that is a list": lambda m: m.update(trace=[]),
    "no scores": lambda m: m.pop("scores"),
    "scores of one number": lambda m: m["scores"][0].update(auc=["1"]),
    "a division by zero": lambda m: m["scores"][0].update(auc=["1", "0"]),
    "scores of text": lambda m: m["scores"][0].update(accuracy=["one", "2"]),
    "epochs out of order": lambda m: m["scores"][0].update(epoch=3),
    "an interval of zero": lambda m: m.update(tensor_interval=0),
    "traced in words": lambda m: m.update(traced="yes"),
    "an optimizer of text": lambda m: m["optimizer"].update({"0.step": "7"}),
    "a state of nothing": lambda m: m["optimizer"].update({"step": 7}),
    "an optimizer that is a list": lambda m: m.update(optimizer=["0.step"]),
    "a detail of other keys": lambda m: m.update(detail={"level": "step"}),
    "a detail of text": lambda m: m.update(detail={"level": "step", "interval": "1", "size": 0}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_verify_a_forged_checkpoint_is_refused(tmp_path, kind):
    """Its digest is right, so only what it says can tell."""
    path = save_checkpoint(tmp_path, made(10))
    tensors, metadata = load_safetensors(path)
    metadata.pop("content")
    FORGED[kind](metadata)
    save_safetensors(path, tensors, metadata | {"content": digest(tensors, metadata)})
    with pytest.raises(InputError, match="not a checkpoint of this version") as raised:
        load_checkpoint(path)
    assert len(str(raised.value)) < 1000
    with pytest.raises(IntegrityError, match="no checkpoint"):
        load_newest(tmp_path, lambda message: None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": 13}, "does not lead to"),
        ({"scores": ()}, "does not lead to"),
        ({"model": {"other": torch.zeros(1)}}, "does not fit its recipe"),
    ],
)
def test_verify_a_checkpoint_that_does_not_fit_is_refused(go, tmp_path, changes, told):
    go(tiny.recipe())
    newest, older = checkpoint_paths(tmp_path / "run")
    older.unlink()
    save_checkpoint(tmp_path / "run", dataclasses.replace(load_checkpoint(newest), **{"step": 12} | changes))
    with pytest.raises(InputError, match=told):
        go(resume=True)


RUN_FILES = [b"", b"[]", b"{", b"7", b'{"model": 3}', b"[" * 100_000, b"\xff", b'{"model": {"name": "\\ud800"}}']


def test_verify_a_damaged_recipe_of_a_run_is_told(go, tmp_path):
    with pytest.raises(RuntimeError), pytest.MonkeyPatch.context() as patch:
        tiny.stop_after(patch, 1, RuntimeError)
        go()
    for content in RUN_FILES:
        (tmp_path / "run/recipe.json").write_bytes(content)
        with pytest.raises(InputError, match=r"recipe\.json|another recipe"):
            go(resume=True)


@pytest.mark.parametrize("content", [*RUN_FILES, json.dumps({"bitspec": "1"}).encode()])
def test_verify_a_damaged_result_is_told(tmp_path, content):
    from dettriton.train._directory import read_result

    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(InputError, match="holds no finished training"):
        read_result(tmp_path)
