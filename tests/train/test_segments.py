"""Segment checkpoints: the same whatever stops and traces a run, and enough to go on from."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from hashlib import sha256

import pytest
import tiny_training as tiny

from dettriton.errors import InputError, IntegrityError
from dettriton.train import _commitment, _run, segments, train, trainer
from dettriton.train._commitment import Commitment, choose
from dettriton.train.segments import load_state, read_index, replay, state_path


def kept(folder):
    return {path.name: path.read_bytes() for path in (folder / "segments").iterdir()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with segments of 5 steps; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch.setattr)
        folder = tmp_path_factory.mktemp("trained") / "run"
        train(tiny.recipe(), folder, progress=False, segments=5)
    return folder


@pytest.fixture
def run(trained, made_data, tmp_path):
    """A copy of that run."""
    return shutil.copytree(trained, tmp_path / "run")


def test_verify_index_and_states_are_those_of_the_run(run):
    commitment = read_index(run / "segments").commitment
    assert [commitment.bounds(i) for i in range(commitment.count)] == [(0, 5), (5, 10), (10, 12)]
    assert sorted(kept(run)) == [f"segment-{n:010d}.safetensors" for n in (5, 10, 12)] + ["segments.json"]
    states = [load_state(run / "segments", end, leaf) for end, leaf in zip((5, 10, 12), commitment.leaves, strict=True)]
    assert [state.digest() for state in states] == list(commitment.leaves)
    result = json.loads((run / "result.json").read_text())
    records = [json.loads(line)["chain"] for line in (run / "trace.jsonl").read_text().splitlines()]
    assert [state.link for state in states] == [records[4], records[9], result["trace"]]


def test_verify_segments_change_nothing_else(run, go, tmp_path):
    go(out="plain")
    assert tiny.files(run) == tiny.files(tmp_path / "plain")
    assert not (tmp_path / "plain/segments").exists()


def test_verify_segments_do_not_depend_on_tracing_and_checkpoints(run, go, tmp_path):
    go(out="untraced", segments=5, trace=False)
    go(out="closely", segments=5, tensor_interval=1, checkpoint_steps=1, trace_detail="gradients")
    assert kept(tmp_path / "untraced") == kept(tmp_path / "closely") == kept(run)


@pytest.mark.parametrize("stopped", [[5], [11], [4, 3, 2]], ids=str)
def test_verify_resumed_runs_keep_the_same_segments(run, go, tmp_path, monkeypatch, stopped):
    for steps in stopped:
        again = tiny.stop_after(monkeypatch, steps)
        with pytest.raises(KeyboardInterrupt):
            go(out="other", segments=5, resume=True, checkpoint_steps=3)
        again()
    go(out="other", segments=5, resume=True)
    assert kept(tmp_path / "other") == kept(run)


def test_verify_a_crash_between_segment_and_checkpoint(run, go, tmp_path, monkeypatch):
    whole = trainer.save_checkpoint
    monkeypatch.setattr(trainer, "save_checkpoint", lambda *a: pytest.fail("disk") if a[1].step == 12 else whole(*a))
    with pytest.raises(pytest.fail.Exception):
        go(out="other", segments=5)
    assert read_index(tmp_path / "other/segments").commitment.count == 3
    monkeypatch.setattr(trainer, "save_checkpoint", whole)
    (tmp_path / "other/segments/.segment-0000000012.safetensors.0123456789abcdef.partial").write_bytes(b"half")
    go(out="other", segments=5, resume=True)
    assert kept(tmp_path / "other") == kept(run)


@pytest.mark.parametrize(("begun", "resumed"), [(5, None), (5, 4), (None, 5)])
def test_verify_a_run_keeps_its_segments_for_its_whole_life(run, go, begun, resumed):
    if begun is None:
        shutil.rmtree(run / "segments")
    with pytest.raises(InputError, match=r"begun with.* and is now asked for with"):
        go(segments=resumed, resume=True)


def test_verify_zero_steps_are_no_segment(go):
    with pytest.raises(InputError, match="segments counts steps from 1"):
        go(segments=0)


def fresh(recipe=None):
    return _run.Run(recipe or tiny.recipe(), tiny.splits(), "cpu")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_verify_each_segment_leads_to_the_next_state(trained, go, tmp_path, optimizer):
    recipe, folder, start = tiny.recipe(), trained / "segments", None
    if optimizer == "sgd":
        tables = {**tiny.TABLES, "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}}
        recipe, folder = tiny.parse_recipe(tables), tmp_path / "run/segments"
        go(recipe, segments=5)
    for end, leaf in zip((5, 10, 12), read_index(folder).commitment.leaves, strict=True):
        done, begin = [], 0 if start is None else start.step
        assert replay(fresh(recipe), start, end, done.append).digest() == leaf
        assert done == [*range(begin + 1, end + 1)]
        start = load_state(folder, end, leaf)


def test_verify_another_state_or_a_damaged_one_is_refused(run):
    folder = run / "segments"
    first, second, _ = read_index(folder).commitment.leaves
    with pytest.raises(IntegrityError, match="committed to"):
        load_state(folder, 5, second)
    state_path(folder, 10).write_bytes(state_path(folder, 5).read_bytes())
    with pytest.raises(IntegrityError, match="after 10 steps"):
        load_state(folder, 10, first)
    state_path(folder, 10).unlink()
    with pytest.raises(InputError, match="cannot read"):
        load_state(folder, 10, second)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.model.pop("head.bias"),
        lambda state: state.model.update({"head.bias": state.model["head.weight"]}),
        lambda state: state.optimizer.update({"99.exp_avg": state.optimizer["0.exp_avg"]}),
        lambda state: state.optimizer.update({"x.exp_avg": state.optimizer["0.exp_avg"]}),
        lambda state: state.optimizer.update({"0.exp_avg": state.optimizer["1.exp_avg"]}),
        lambda state: state.optimizer.update({"0.exp_avg": state.optimizer["0.exp_avg"].double()}),
        lambda state: state.model.update({"head.bias": state.model["head.bias"].double()}),
        lambda state: state.optimizer.pop("0.exp_avg"),
        lambda state: state.optimizer_scalars.pop("0.step"),
        lambda state: state.optimizer_scalars.update({"0.step": 10**15}),
        lambda state: state.optimizer.update({"0.step": state.optimizer["0.exp_avg"]}),
    ],
)
def test_verify_states_that_fit_no_model_are_told(run, change):
    state = load_state(run / "segments", 5, read_index(run / "segments").commitment.leaves[0])
    change(state)
    with pytest.raises(IntegrityError, match="does not fit"):
        replay(fresh(), state, 6)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("{", InputError, "no index"),
        ("[" * 100_000, InputError, "no index"),
        ("[]", InputError, "lacks"),
        ('{"bitspec":1,"recipe":"r","init":"i","segments":{}}', InputError, "digests"),
        (None, InputError, "No such file"),
    ],
    ids=["cut", "deep", "list", "form", "missing"],
)
def test_verify_a_damaged_index_is_told(tmp_path, text, error, told):
    if text is not None:
        (tmp_path / segments.INDEX).write_text(text)
    with pytest.raises(error, match=told):
        read_index(tmp_path)


def test_verify_an_unfinished_or_contradicting_index_is_refused(run):
    path = run / "segments/segments.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "segments": Commitment.of(5, 12, ()).to_dict()}))
    with pytest.raises(InputError, match=r"3 segments of 5, not 0.*Train to the end"):
        read_index(path.parent)
    assert read_index(path.parent, unfinished=True).commitment.count == 0
    content["segments"]["leaves"][1] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="root of their leaves"):
        read_index(path.parent)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_verify_choices_are_without_replacement_and_reach_everything(count):
    root = "ab" * 32
    for wanted in {1, count // 2 + 1, count}:
        chosen = choose(root, "seed", count, wanted)
        assert len(set(chosen)) == wanted and list(chosen) == sorted(chosen)
        assert set(chosen) <= set(range(count))
    assert {i for n in range(40 * count) for i in choose(root, str(n), count, 1)} == set(range(count))


def spot_words(root, seed):
    prefix = b"dettriton-spot-1" + bytes.fromhex(root) + sha256(seed.encode()).digest()
    for i in range(1000):
        yield int.from_bytes(sha256(prefix + i.to_bytes(8, "little")).digest()[:8], "big")


def test_verify_choice_is_what_its_docstring_says():
    order = list(dict.fromkeys(word % 11 for word in spot_words("cd" * 32, "Würfel")))
    assert choose("cd" * 32, "Würfel", 11, 4) == tuple(sorted(order[:4]))
    assert choose("ce" * 32, "Würfel", 11, 4) != choose("cd" * 32, "Würfel", 11, 4) != choose("cd" * 32, "x", 11, 4)


@pytest.mark.parametrize("wanted", [1, 3])
def test_verify_numbers_that_would_favour_a_segment_are_passed_over(wanted):
    """With so many segments only one multiple of their count is below 2**64, and every other number is above it."""
    count, passed_over = 2**63 + 1, 0
    for seed in map(str, range(40)):
        words = list(itertools.islice(spot_words("ef" * 32, seed), 100))
        passed_over += words[0] >= count
        kept = [word for word in words if word < count]
        assert choose("ef" * 32, seed, count, wanted) == tuple(sorted(kept[:wanted]))
    assert 5 < passed_over < 35, "else the branch was not taken, or always"


def test_verify_the_least_number_that_is_passed_over(monkeypatch):
    """The hash is replaced by one that counts through given numbers: 2**64 - 1 is the largest multiple of 5 in 64 bits."""
    numbers = iter([2**64 - 1, 2**64 - 2])

    class Planted:
        def __init__(self, text):
            self._text = text

        def digest(self):
            return bytes(32) if self._text == b"seed" else next(numbers).to_bytes(8, "big") + bytes(24)

    monkeypatch.setattr(_commitment.hashlib, "sha256", Planted)
    assert choose("ab" * 32, "seed", 5, 1) == ((2**64 - 2) % 5,)
    assert next(numbers, None) is None


def test_corroborate_choices_favour_no_segment():
    counts = [0] * 5
    for n in range(5000):
        counts[choose("ef" * 32, str(n), 5, 1)[0]] += 1
    assert sum((c - 1000) ** 2 / 1000 for c in counts) < 23.5  # chi-square of 4 degrees, p = 0.0001


@pytest.mark.parametrize(
    ("seed", "wanted", "told"),
    [
        (7, 1, "is a text, not int"),
        (None, 1, "is a text, not NoneType"),
        ("\ud800", 1, "no UTF-8 form"),
        ("s", 6, "1 to 5 of them, not 6"),
        ("s", 0, "not 0"),
        ("s", True, "not True"),
    ],
)
def test_verify_impossible_choices_are_told(seed, wanted, told):
    with pytest.raises(InputError, match=told):
        choose("ab" * 32, seed, 5, wanted)


SELF_KILLING = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import tiny_training as tiny
from dettriton.train.trainer import train
whole, calls = os.replace, 0
def counted(*args):
    global calls
    calls += 1
    if calls == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args)
os.replace = counted
tiny.install(setattr)
train(tiny.recipe(), {out!r}, progress=False, resume=True, checkpoint_steps=3, segments=5)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("count", range(1, 14))
def test_verify_killed_at_any_file_keeps_the_same_segments(run, go, tmp_path, count):
    script = SELF_KILLING.format(folder=os.path.dirname(tiny.__file__), count=count, out=str(tmp_path / "other"))
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    go(out="other", segments=5, resume=True)
    assert kept(tmp_path / "other") == kept(run)
