"""A study gives one results file, whatever interrupts it and in whatever order its runs end."""

import json
import signal
import threading
from fractions import Fraction

import pytest
import tiny_training as tiny

from dettriton import data, metrics
from dettriton.errors import InputError, NonFiniteError
from dettriton.files import load_safetensors
from dettriton.study import _runner, load_results, make_plan, run_study
from dettriton.study._directory import open_study
from dettriton.train import _run, train
from dettriton.train.evaluate import probabilities


@pytest.fixture(autouse=True)
def made_data(monkeypatch):
    tiny.install(monkeypatch.setattr)


@pytest.fixture
def trained(monkeypatch):
    """The recipes of the trainings that were begun."""
    whole, recipes = _run.build_model, []
    monkeypatch.setattr(_run, "build_model", lambda recipe: (recipes.append(recipe), whole(recipe))[1])
    return recipes


def plan(inits=("dct", "kaiming"), seeds=2, **changes):
    return make_plan(tiny.recipe(**changes), inits, seeds=seeds)


def study(folder, of=None, **options):
    return run_study(of or plan(), folder, **{"progress": False, **options})


def same_everywhere(folder):
    """The results file without the times."""
    content = json.loads((folder / "results.json").read_bytes())
    assert content.pop("circumstances").keys() == content["runs"].keys()
    return json.dumps(content)


def test_verify_runs_are_those_of_the_trainer(tmp_path):
    results = study(tmp_path / "s")
    assert [*results.runs] == ["dct/golden/0", "kaiming/golden/0", "dct/golden/1", "kaiming/golden/1"]
    run = [*plan().runs()][3]
    alone = train(plan().recipe_of(run), tmp_path / "alone", progress=False).to_dict()
    kept = results.runs["kaiming/golden/1"]
    for name in ("weights_digest", "init_digest", "recipe_digest", "trace", "best_epoch", "validation", "steps"):
        assert kept[name] == alone[name]
    assert {name: kept["test"][name] for name in ("auc", "acc")} == alone["test"]
    assert results.study["dataset_sha256"] == alone["dataset_sha256"]
    assert results.study["classes"] == ["a", "b", "c"]


def test_verify_class_figures_are_those_of_the_released_weights(tmp_path):
    kept = study(tmp_path / "s", plan(("dct",), 1)).runs["dct/golden/0"]["test"]
    train(plan(("dct",), 1).recipe_of(next(plan(("dct",), 1).runs())), tmp_path / "alone", progress=False)
    model = tiny.Tiny(hidden=8)
    model.load_state_dict(load_safetensors(tmp_path / "alone/weights.safetensors")[0])
    split = tiny.splits()["test"]
    scores = probabilities(model, split)
    # three samples of each class make 3 x 6 pairs, each counted twice for the sake of ties
    areas = [
        Fraction(sum(_wins(p, n) for p in scores[split.labels == k, k] for n in scores[split.labels != k, k]), 36)
        for k in range(tiny.CLASSES)
    ]
    assert kept["class_auc"] == [float(area) for area in areas]
    assert kept["auc"] == float(sum(areas) / 3)
    assert kept["f1"] == float(metrics.macro_f1(scores, split.labels, split.task).value)


def _wins(positive, negative):
    return 2 if positive > negative else int(positive == negative)


@pytest.mark.parametrize("steps", [2, 15])
def test_verify_interrupted_in_the_middle_of_a_run_ends_the_same(monkeypatch, tmp_path, steps):
    study(tmp_path / "whole", plan(seeds=1))
    go_on = tiny.stop_after(monkeypatch, steps)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "s", plan(seeds=1))
    assert len(load_results(tmp_path / "s").runs) == steps // 12
    go_on()
    study(tmp_path / "s", plan(seeds=1))
    assert same_everywhere(tmp_path / "s") == same_everywhere(tmp_path / "whole")


def test_verify_ctrl_c_leaves_a_checkpoint_and_the_run_goes_on_from_it(monkeypatch, tmp_path):
    study(tmp_path / "whole", plan(seeds=1))
    whole, steps = _run.Run.step, []

    def step(self, number):
        steps.append(number)
        if len(steps) == 15:
            signal.raise_signal(signal.SIGINT)
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "s", plan(seeds=1))
    assert [*(tmp_path / "s/runs/kaiming-golden-0").glob("checkpoint*")]
    study(tmp_path / "s", plan(seeds=1))
    assert steps == [*range(12), *range(12)], "the run began anew"
    assert same_everywhere(tmp_path / "s") == same_everywhere(tmp_path / "whole")


def test_verify_extended_with_arms_and_seeds_is_the_same_as_at_once(trained, tmp_path):
    study(tmp_path / "s", plan(("kaiming",), 1))
    assert len(trained) == 1
    study(tmp_path / "s", plan(("kaiming", "dct"), 2))
    assert len(trained) == 4
    study(tmp_path / "s")
    study(tmp_path / "s", plan(("dct",), 1))
    assert len(trained) == 4
    study(tmp_path / "whole")
    assert same_everywhere(tmp_path / "s") == same_everywhere(tmp_path / "whole")


def test_verify_order_of_finishing_leaves_no_trace(monkeypatch, tmp_path):
    study(tmp_path / "s")
    in_turn = _runner._in_this_process
    monkeypatch.setattr(_runner, "_in_this_process", lambda tasks: in_turn(tasks[::-1]))
    study(tmp_path / "backwards")
    assert same_everywhere(tmp_path / "s") == same_everywhere(tmp_path / "backwards")


def test_another_recipe_is_refused_by_name(tmp_path):
    study(tmp_path / "s", plan(seeds=1))
    before = (tmp_path / "s/results.json").read_bytes()
    with pytest.raises(InputError, match=r"something else \(recipe optimizer lr was 0.01 and is 0.02\)"):
        study(tmp_path / "s", plan(optimizer={"lr": 0.02}))
    assert (tmp_path / "s/results.json").read_bytes() == before
    varied = plan(init={"scheme": "zero", "seed": 8}, order={"seed": 8}, train={"seed": 8}, seeds=1)
    study(tmp_path / "s", varied)


def test_other_data_or_another_contract_is_refused(monkeypatch, tmp_path):
    study(tmp_path / "s", plan(seeds=1))
    with monkeypatch.context() as other:
        other.setattr(_runner, "BITSPEC", 0)
        with pytest.raises(InputError, match="bitspec was 1 and is 0"):
            study(tmp_path / "s")
    splits = tiny.splits()
    splits["val"].images[0, 0, 0, 0] ^= 1
    monkeypatch.setattr(data, "load", lambda *_, **__: splits)
    with pytest.raises(InputError, match="dataset_sha256 was"):
        study(tmp_path / "s")


def test_verify_a_run_that_diverges_is_kept_as_a_problem_and_the_study_goes_on(monkeypatch, trained, tmp_path):
    whole = _run.Run.step

    def step(self, number):
        if self.recipe.init.scheme == "dct" and self.recipe.train.seed == 0 and number == 7:
            raise NonFiniteError("the loss is nan")
        return whole(self, number)

    monkeypatch.setattr(_run.Run, "step", step)
    results = study(tmp_path / "s")
    assert results.runs["dct/golden/0"] == {"problem": "the loss is nan"}
    assert {arm.init: [*runs] for arm, runs in results.finished().items()} == {"dct": [1], "kaiming": [0, 1]}
    assert {str(arm): of for arm, of in results.problems().items()} == {"dct/golden": {0: "the loss is nan"}}
    study(tmp_path / "s")
    assert len(trained) == 4, "a run that diverged was repeated"


def test_a_real_divergence_names_its_step(tmp_path):
    results = study(tmp_path / "s", plan(seeds=1, optimizer={"lr": 1e38}))
    assert all("step" in run["problem"] for run in results.runs.values())
    assert not results.finished()


def test_another_failure_ends_the_study_and_is_not_kept(monkeypatch, tmp_path):
    go_on = tiny.stop_after(monkeypatch, 14, InputError("no space"))
    with pytest.raises(InputError, match="no space"):
        study(tmp_path / "s")
    assert [*load_results(tmp_path / "s").runs] == ["dct/golden/0"]
    go_on()
    assert len(study(tmp_path / "s").runs) == 4


def test_what_is_large_is_cleared_away(tmp_path):
    study(tmp_path / "s", plan(("dct",), 1))
    folder = tmp_path / "s/runs/dct-golden-0"
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "result.json", "trace.jsonl"}
    study(tmp_path / "s", plan(("kaiming",), 1), keep_weights=True)
    kept = tmp_path / "s/runs/kaiming-golden-0"
    assert {path.name for path in kept.iterdir()} == {*tiny.MADE_OF}
    (folder / "checkpoint-a").write_bytes(b"left by a kill")
    study(tmp_path / "s", plan(seeds=1))
    assert not (folder / "checkpoint-a").exists()
    assert (kept / "weights.safetensors").exists()


def test_two_studies_in_one_directory_are_refused(tmp_path):
    with open_study(tmp_path / "s"), pytest.raises(InputError, match="another study is using"):
        study(tmp_path / "s")
    study(tmp_path / "s", plan(seeds=1))


def test_a_directory_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "s").write_text("a file")
    with pytest.raises(InputError, match=r"cannot use .* choose another --out"):
        study(tmp_path / "s")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"study": {}, "runs": {}, "circumstances": {}}',
        '{"study": {"classes": []}, "runs": {"a": {}}, "circumstances": {}}',
        '{"study": {"classes": ["a"]}, "runs": {"dct/golden/0": {"test": {"auc": 1}}}, "circumstances": {}}',
        '{"study": {"classes": ["a"]}, "runs": {"dct/golden/0": {"test": {"auc": 1, "acc": 1, "f1": 1, "class_auc": 1}}},'
        ' "circumstances": {}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_results_file_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json is .*Move it away"):
        study(tmp_path)
    assert (tmp_path / "results.json").read_text() == content


def test_missing_results_say_what_to_run(tmp_path):
    with pytest.raises(InputError, match=r"holds no results of a study.*dettriton study RECIPE"):
        load_results(tmp_path)


@pytest.mark.parametrize("options", [{"jobs": 0}, {"threads": 0}])
def test_numbers_below_one_are_refused(tmp_path, options):
    with pytest.raises(InputError, match="count from 1"):
        study(tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_each_run_is_told_with_the_number_done(capsys, tmp_path):
    study(tmp_path / "s", plan(seeds=1), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["dct/golden/0", "kaiming/golden/0"]
    assert "(1 of 2, about " in lines[0] and lines[1].endswith("(2 of 2)")
    study(tmp_path / "s", progress=True)
    assert capsys.readouterr().err.splitlines()[0] == "2 of 4 runs are there already"


def test_a_study_can_run_in_another_thread(tmp_path):
    thread = threading.Thread(target=study, args=(tmp_path / "s", plan(seeds=1)))
    thread.start()
    thread.join()
    assert len(load_results(tmp_path / "s").runs) == 2
