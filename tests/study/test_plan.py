"""What a plan holds, and what it refuses."""

import pytest
import tiny_training as tiny

from dettriton.errors import InputError
from dettriton.study import Arm, make_plan
from dettriton.train.recipe import parse_recipe


def keys(plan):
    return [run.key for run in plan.runs()]


def test_every_combination_seed_by_seed():
    plan = make_plan(tiny.recipe(), ("dct", "kaiming"), ("golden", "shuffle"), seeds=2)
    arms = ["dct/golden", "kaiming/golden", "dct/shuffle", "kaiming/shuffle"]
    assert keys(plan) == [f"{arm}/{seed}" for seed in range(2) for arm in arms]
    assert {run.folder for run in plan.runs()} == {key.replace("/", "-") for key in keys(plan)}


def test_defaults_are_the_recipes_own_arm_and_the_papers_number_of_runs():
    plan = make_plan(tiny.recipe(order={"kind": "rotation"}))
    assert plan.arms == (Arm("kaiming", "rotation"),)
    assert len(keys(plan)) == 20


def test_repeated_names_count_once():
    assert keys(make_plan(tiny.recipe(), ("dct", "dct"), seeds=1)) == ["dct/golden/0"]


def test_a_run_changes_the_initialisation_the_order_and_the_seeds_only():
    recipe = tiny.recipe()
    plan = make_plan(recipe, ("dct",), ("shuffle",), seeds=8)
    made = plan.recipe_of([*plan.runs()][7]).to_dict()
    assert made["init"] == {"scheme": "dct", "seed": 7}
    assert made["order"] == {"kind": "shuffle", "seed": 7}
    assert made["train"] == {**recipe.to_dict()["train"], "seed": 7}
    same = set(made) - {"init", "order", "train"}
    assert same == {"model", "data", "optimizer", "schedule", "augment"}
    assert all(made[section] == recipe.to_dict()[section] for section in same)


def test_every_run_is_another_recipe():
    plan = make_plan(tiny.recipe(), ("dct", "kaiming"), ("golden", "shuffle"), seeds=3)
    assert len({plan.recipe_of(run).digest() for run in plan.runs()}) == 12


def test_what_runs_share_is_blind_to_what_a_study_varies():
    shared = make_plan(tiny.recipe()).shared_recipe()
    varied = tiny.recipe(init={"scheme": "dct", "seed": 9}, order={"kind": "shuffle", "seed": 9}, train={"seed": 9})
    assert make_plan(varied).shared_recipe() == shared
    for other in ({"train": {"batch_size": 4}}, {"optimizer": {"lr": 0.02}}, {"model": {"args": {"hidden": 4}}}):
        assert make_plan(tiny.recipe(**other)).shared_recipe() != shared


def test_epochs_replace_the_recipes_and_are_checked_against_it():
    plan = make_plan(tiny.recipe(), epochs=2)
    assert plan.recipe == tiny.recipe(train={"epochs": 2})
    assert parse_recipe(plan.recipe.to_dict()) == plan.recipe
    with pytest.raises(InputError, match=r"the recipe with epochs = 1.*'warmup_epochs'"):
        make_plan(tiny.recipe(), epochs=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"inits": ("dct", "dtc")}, "no initialisation 'dtc'; choose among dct, "),
        ({"orders": ("gold",)}, "no order 'gold'; choose among golden, "),
        ({"seeds": 0}, "at least one seed, got 0"),
        ({"epochs": 0}, "at least one epoch, got 0"),
    ],
)
def test_refusals(arguments, told):
    with pytest.raises(InputError, match=told):
        make_plan(tiny.recipe(), **arguments)
