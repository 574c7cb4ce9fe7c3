"""Spot checks of an honest training, of tampered states, and of a training that was forged consistently."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest
import tiny_training as tiny
import torch
from click.testing import CliRunner

from dettriton import zoo
from dettriton.cli import main
from dettriton.errors import InputError
from dettriton.files import load_safetensors, save_safetensors
from dettriton.train import _run, train
from dettriton.train._commitment import Commitment, choose
from dettriton.train.segments import load_state, read_index, state_path
from dettriton.zoo import _manifest, _segments
from dettriton.zoo._spot_result import miss_probability

NAME = "tiny.made"
EVERY, COUNT, TAMPERED_STEP = 2, 6, 5
TAMPERED_SEGMENT = TAMPERED_STEP // EVERY


def one_ulp(tensor):
    tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(9.0))


def made(factory, tamper):
    """A zoo whose one release was trained with segments of two steps, honestly or with one ulp added on the way."""
    folder, whole = factory.mktemp("made"), _run.Run.step

    def step(self, number):
        loss = whole(self, number)
        if number == TAMPERED_STEP:
            with torch.no_grad():
                one_ulp(self.model.head.weight)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch.setattr)
        patch.setattr(_manifest, "ROOT", folder / "zoo")
        if tamper:
            patch.setattr(_run.Run, "step", step)
        (folder / f"{NAME}.toml").write_text(tiny.recipe_text())
        train(tiny.recipe(), folder / "run", progress=False, segments=EVERY)
        zoo.release(folder / f"{NAME}.toml", folder / "run")
    return folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return made(tmp_path_factory, tamper=False)


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    return made(tmp_path_factory, tamper=True)


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Make a copy of such a folder the zoo."""

    def copy(folder):
        tiny.install(monkeypatch.setattr)
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        monkeypatch.setattr(_manifest, "ROOT", tmp_path / "zoo")
        return tmp_path

    return copy


@pytest.fixture
def root(honest, use):
    return use(honest)


def spot(count=COUNT, seed="a public text", name=NAME, **options):
    return zoo.spot_check(name, count, seed, progress=False, **options)


def only(index):
    """Check one segment, by a seed that chooses it."""
    root = zoo.entry(NAME).segments.root
    return spot(1, next(seed for seed in map(str, range(200)) if choose(root, seed, COUNT, 1) == (index,)))


def rewrite(folder, step, change):
    """Change a kept state; returns its new digest."""
    path = state_path(folder, step)
    tensors, metadata = load_safetensors(path)
    change(tensors)
    save_safetensors(path, tensors, metadata)
    return _run.digest(tensors, metadata)


def reindex(folder, index, leaf):
    """Make the index agree with a changed state; returns the new commitment."""
    kept = read_index(folder)
    leaves = [*kept.commitment.leaves]
    leaves[index] = leaf
    changed = Commitment.of(EVERY, 12, tuple(leaves))
    replace(kept, commitment=changed).write(folder)
    return changed


def test_verify_release_carries_the_segments_of_its_run(root):
    row = zoo.entry(NAME)
    assert row.segments == read_index(root / "run/segments").commitment
    kept = {p.name: p.read_bytes() for p in (root / f"zoo/weights/{NAME}.segments").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in (root / "run/segments").iterdir()}
    assert zoo.check(NAME).problem is None and zoo.check_folder().problem is None


def test_verify_every_segment_of_an_honest_training_matches(root):
    result = spot()
    assert result.matches and result.weights_tied and result.trace_tied
    assert [(c.begin, c.end) for c in result.checks] == [(n, n + 2) for n in range(0, 12, 2)]
    assert result.chance_of_missing_one == 0
    json.dumps(result.to_dict())


def test_verify_cost_is_that_of_the_chosen_segments(root, monkeypatch):
    computed, whole = [], _run.Run.step

    def step(self, number):
        computed.append(number)
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    result = spot(2, "s")
    chosen = choose(result.root, "s", COUNT, 2)
    assert computed == [n for index in chosen for n in range(index * EVERY, (index + 1) * EVERY)]
    assert [c.index for c in result.checks] == list(chosen)


def test_verify_without_a_seed_it_is_fresh_and_repeatable(root):
    first = zoo.spot_check(NAME, 1, progress=False)
    assert len({first.seed, *(zoo.spot_check(NAME, 1, progress=False).seed for _ in range(2))}) == 3
    assert [c.index for c in first.checks] == list(choose(first.root, first.seed, COUNT, 1))


def test_verify_a_forged_training_is_caught_exactly_where_it_was_forged(forged, use):
    use(forged)
    assert zoo.check(NAME).problem is None
    result = spot()
    assert [c.index for c in result.checks if not c.matches] == [TAMPERED_SEGMENT]
    assert not result.matches
    problem = result.checks[TAMPERED_SEGMENT].problem
    assert problem == "model.head.weight: 1 of 24 elements differ in their bits, by at most 1 ulp"
    assert result.weights_tied and result.trace_tied
    chosen = {seed: choose(zoo.entry(NAME).segments.root, seed, COUNT, 2) for seed in map(str, range(20))}
    for touched in (True, False):
        seed = next(seed for seed, indices in chosen.items() if (TAMPERED_SEGMENT in indices) is touched)
        assert spot(2, seed).matches is not touched


def test_verify_a_changed_state_with_a_consistent_index_breaks_the_root(root):
    folder = root / f"zoo/weights/{NAME}.segments"
    leaf = rewrite(folder, 4, lambda tensors: one_ulp(tensors["model.head.weight"]))
    reindex(folder, 1, leaf)
    assert "commits to other segments" in zoo.check(NAME).problem
    with pytest.raises(zoo.DamagedReleaseError, match="not the released segments"):
        spot(segments=folder)
    (check,) = only(2).checks
    assert not check.matches and "does not hold the state that was committed to" in check.problem


def test_verify_a_committed_state_of_another_form_is_refused(root):
    """Every digest is right; torch would take the doubles and go on to other bits."""
    folder, name = root / f"zoo/weights/{NAME}.segments", "optimizer.0.exp_avg"
    leaf = rewrite(folder, 4, lambda tensors: tensors.update({name: tensors[name].double()}))
    _manifest.write_manifest({NAME: replace(zoo.entry(NAME), segments=reindex(folder, 1, leaf))})
    told = "the optimizer's 0.exp_avg is float64 of shape [8, 16] and has to be float32"
    assert told in zoo.check(NAME).problem
    assert f"the state after 4 steps does not fit the recipe's model and optimizer: {told}" in only(2).checks[0].problem
    shutil.copytree(folder, root / "run/segments", dirs_exist_ok=True)
    with pytest.raises(zoo.DamagedReleaseError, match=r"0\.exp_avg is float64"):
        zoo.release(root / f"{NAME}.toml", root / "run")


def test_verify_a_changed_state_alone_is_found(root):
    rewrite(root / f"zoo/weights/{NAME}.segments", 4, lambda tensors: one_ulp(tensors["model.head.weight"]))
    assert "does not hold the state" in zoo.check(NAME).problem
    assert only(3).matches and only(1).matches and not only(2).matches


def test_verify_changed_leaves_or_root_in_the_manifest_are_found(root):
    row = zoo.entry(NAME)
    for changed in ({"root": "0" * 64}, {"leaves": ("0" * 64, *row.segments.leaves[1:])}):
        _manifest.write_manifest({NAME: replace(row, segments=replace(row.segments, **changed))})
        assert "root of their leaves" in zoo.check(NAME).problem
        with pytest.raises(zoo.DamagedReleaseError, match="root of their leaves"):
            spot()


def test_verify_weights_of_another_training_are_not_tied(honest, forged, use, tmp_path):
    root = use(honest)
    others = forged / f"zoo/weights/{NAME}.segments"
    row = zoo.entry(NAME)
    _manifest.write_manifest({NAME: replace(row, segments=read_index(others).commitment)})
    shutil.copytree(others, root / f"zoo/weights/{NAME}.segments", dirs_exist_ok=True)
    result = only(0)
    assert all(c.matches for c in result.checks)
    assert result.weights_tied is False and result.trace_tied is False and not result.matches
    assert zoo.check(NAME).problem is not None


def test_verify_a_run_of_ones_own_and_a_release_without_segments(root):
    row = zoo.entry(NAME)
    _manifest.write_manifest({NAME: replace(row, segments=None)})
    shutil.rmtree(root / f"zoo/weights/{NAME}.segments")
    with pytest.raises(InputError, match=r"carries no segments.*--segments N"):
        spot()
    assert spot(1, segments=root / "run/segments").matches
    assert spot(1, name=str(root / "run")).matches
    with pytest.raises(InputError, match="holds no segments"):
        spot(segments=root)
    with pytest.raises(InputError, match="no released model 'nobody'"):
        spot(name="nobody")


def test_verify_a_run_with_other_weights_or_of_another_recipe_is_told(root):
    tables = {**tiny.TABLES, "train": {**tiny.TABLES["train"], "epochs": 2}}
    train(tiny.parse_recipe(tables), root / "other", progress=False, segments=EVERY)
    with pytest.raises(zoo.DamagedReleaseError, match="are of recipe"):
        spot(1, segments=root / "other")
    shutil.copyfile(root / "other/weights.safetensors", root / "run/weights.safetensors")
    with pytest.raises(zoo.DamagedReleaseError, match="not what its training wrote"):
        spot(1, name=str(root / "run"))


def test_verify_digests_alone_check_what_starts_from_the_recipe(root):
    shutil.rmtree(root / f"zoo/weights/{NAME}.segments")
    assert zoo.check(NAME).problem is None
    first = only(0)
    assert first.matches and first.weights_tied is None and first.trace_tied is None
    with pytest.raises(InputError, match=r"the state after 4 steps of tiny.made is not here"):
        only(2)
    assert spot(1, segments=root / "run").weights_tied


def test_verify_large_states_stay_out_of_a_release(root, monkeypatch):
    monkeypatch.setattr(_segments, "LARGEST", 10_000)
    zoo.release(root / f"{NAME}.toml", root / "run")
    assert not (root / f"zoo/weights/{NAME}.segments").exists()
    assert zoo.entry(NAME).segments.count == COUNT


def test_verify_releasing_a_run_without_segments_keeps_those_that_are_there(root):
    before = zoo.entry(NAME)
    shutil.rmtree(root / "run/segments")
    assert zoo.release(root / f"{NAME}.toml", root / "run").segments == before.segments
    assert zoo.check(NAME).problem is None


def test_verify_other_data_are_a_mismatch(root, monkeypatch):
    whole = tiny.splits()
    whole["test"].labels[0] = 1 - whole["test"].labels[0]
    monkeypatch.setattr("dettriton.data.load", lambda *a, **k: whole)
    result = spot(1)
    assert not result.matches and result.digests["data"][0] != result.digests["data"][1]


def test_verify_wrong_numbers_and_seeds_are_told(root):
    with pytest.raises(InputError, match="1 to 6 of them, not 7"):
        spot(7)
    with pytest.raises(InputError, match="is a text, not int"):
        spot(1, 5)


def test_verify_chance_of_missing_is_what_counting_says():
    for segments, tampered, checked in [(6, 1, 2), (6, 2, 3), (7, 3, 5), (5, 5, 1), (4, 0, 2)]:
        choices = list(combinations(range(segments), checked))
        missed = [c for c in choices if all(index >= tampered for index in c)]
        assert miss_probability(segments, tampered, checked) == Fraction(len(missed), len(choices))
    assert miss_probability(8, 1, 3) == 1 - Fraction(3, 8)


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_verify_command_says_what_it_shows(root):
    result = run(NAME, "--spot", 2, "--seed", "s")
    assert result.exit_code == 0, result.output
    root_digest = zoo.entry(NAME).segments.root
    for told in (root_digest, "seed s", "probability 1 - 2/6 = 0.667", "C(6-t, 2) / C(6, 2)", f"MATCH {NAME}"):
        assert told in result.stdout
    assert f"repeat   dettriton verify {NAME} --spot 2 --seed s" in result.stdout
    assert result.stdout.count(" MATCH\n") == result.stderr.count(" match\n") == 2
    elsewhere = root / "run/segments"
    told = run(NAME, "--spot", 1, "--seed", "a b", "--segments", elsewhere).stdout
    assert f"--spot 1 --seed 'a b' --segments {elsewhere}" in told
    outcome = json.loads(run(NAME, "--spot", 2, "--seed", "s", "--json").stdout)
    assert outcome["match"] is True and outcome["root"] == root_digest
    assert [c["segment"] for c in outcome["checked"]] == list(choose(root_digest, "s", 6, 2))
    assert outcome["chance_of_missing_one"] == pytest.approx(2 / 3)


def test_verify_command_exits_1_on_a_mismatch(forged, use):
    use(forged)
    seed = next(s for s in map(str, range(99)) if 2 in choose(zoo.entry(NAME).segments.root, s, COUNT, 2))
    result = run(NAME, "--spot", 2, "--seed", seed)
    assert result.exit_code == 1, result.output
    assert "MISMATCH tiny.made" in result.stdout and "model.head.weight: 1 of 24" in result.stdout
    assert result.stdout.count("MISMATCH") == 2
    _manifest.write_manifest({NAME: replace(zoo.entry(NAME), segments=Commitment(2, 12, ("0" * 64,) * 6, "1" * 64))})
    damaged = run(NAME, "--spot", 1, "--json")
    assert damaged.exit_code == 1 and json.loads(damaged.stdout)["match"] is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((NAME, "--spot", 7), "1 to 6 of them"),
        ((NAME, "--spot", 0), "0"),
        ((NAME, "--spot", 1, "--segments", "nowhere"), "holds no segments"),
        ((NAME, "--seed", "s"), "add --spot K"),
        ((NAME, "--segments", "s"), "add --spot K"),
    ],
)
def test_verify_command_exits_2_where_it_cannot_run(root, arguments, told):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


def test_verify_states_are_the_whole_state(root):
    """What a state leaves out could be changed unseen."""
    folder = root / f"zoo/weights/{NAME}.segments"
    leaf = read_index(folder).commitment.leaves[0]
    state = load_state(folder, 2, leaf)
    model = _run.build_model(tiny.recipe())
    assert state.model.keys() == model.state_dict().keys()
    count = len(list(model.parameters()))
    assert state.optimizer.keys() == {f"{i}.{key}" for i in range(count) for key in ("exp_avg", "exp_avg_sq")}
    assert state.optimizer_scalars == {f"{i}.step": 2 for i in range(count)}
