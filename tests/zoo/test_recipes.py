"""The recipes that come with dettriton: each fits its model to its data, and trains, on made data of its shape."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dettriton import data, zoo
from dettriton.data import ArrayDataset, Dataset, DatasetInfo, SignalDataset
from dettriton.data.dataset import MULTI_LABEL
from dettriton.data.signals import measure
from dettriton.digest import digest
from dettriton.errors import InputError
from dettriton.exact.philox import Stream, random_bits
from dettriton.train import load_recipe, parse_recipe
from dettriton.train._run import Run, make_model
from dettriton.zoo import _manifest

SAMPLES = 4
BATCH = 2
STEPS = 2

PAPER = tuple(
    sorted(
        [f"ecg_{net}.ptbxl_rhythm" for net in ("conformer", "baseline", "resnet18", "xresnet50", "inceptiontime")]
        + [f"ecg_{net}.ptbxl_superclass" for net in ("resnet18", "xresnet50", "inceptiontime")]
        + [f"med_resnet18.{name}mnist" for name in ("blood", "organc", "derma", "breast", "retina", "chest", "path")]
    )
)
"""The recipes with the settings of Shkolnikov (arXiv 2603.28040), at full size."""

UNRELEASED = sorted(set(zoo.list_recipes()) - set(zoo.names()))

TRAINED_ALWAYS = (
    "ecg_baseline.ptbxl_rhythm",
    "med_resnet18.chestmnist",
)
"""Each about 3 s on a core; the others take as long, the Conformer 6, xresnet50 10."""


def made_split(info, samples: int = SAMPLES) -> Dataset:
    """Noise of a dataset's shape; sample i has class, or the one label, ``i mod classes``."""
    images = isinstance(info, DatasetInfo)
    shape = (samples, *(info.image_shape if images else info.signal_shape))
    words = random_bits(Stream(3, 0), math.prod(shape)).view(shape)
    labels = torch.arange(samples) % info.num_classes
    if info.task == MULTI_LABEL:
        labels = (labels[:, None] == torch.arange(info.num_classes)).float()
    what = {"labels": labels, "num_classes": info.num_classes, "task": info.task}
    if images:
        return ArrayDataset(info.name, "train", (words & 0xFF).to(torch.uint8), **what, scale=info.scale)
    signals = ((words & 0xFFF) - 2048).to(torch.int16)
    scale = measure(signals, [1000.0] * len(info.leads))
    names = tuple(map(str, range(samples)))
    return SignalDataset(info.name, "train", signals, **what, normalisation=scale, records=names)


def first_steps(name: str) -> tuple[Run, list[float]]:
    """A recipe's run after two steps of two samples, and their losses."""
    tables = zoo.recipe(name).to_dict()
    recipe = parse_recipe({**tables, "train": tables["train"] | {"batch_size": BATCH}})
    run = Run(recipe, {"train": made_split(data.describe(recipe.data.name))}, "cpu")
    return run, [run.step(step) for step in range(STEPS)]


def test_the_recipes_of_the_paper_are_here():
    assert set(PAPER) <= set(zoo.list_recipes())
    assert set(zoo.names()) <= set(zoo.list_recipes()) == {*zoo.names(), *UNRELEASED}


@pytest.mark.parametrize("name", UNRELEASED)
def test_verify_a_recipe_fits_its_model_to_its_data(name):
    recipe = zoo.recipe(name)
    info = data.describe(recipe.data.name)
    shape = info.image_shape if isinstance(info, DatasetInfo) else info.signal_shape
    assert name.endswith(f".{info.name}") and name.startswith(recipe.model.name.partition("_")[0])
    layers = [m for m in make_model(recipe).modules() if hasattr(m, "in_channels") or hasattr(m, "out_features")]
    assert layers[0].in_channels == shape[0]
    assert layers[-1].out_features == recipe.model.args["num_classes"] == info.num_classes
    expected = "binary_cross_entropy_with_logits" if info.task == MULTI_LABEL else "cross_entropy"
    assert recipe.train.loss == expected


@pytest.mark.parametrize("name", PAPER)
def test_validate_the_settings_are_the_papers(name):
    recipe = load_recipe(_manifest.recipe_path(name))
    assert (recipe.init.scheme, recipe.order.kind, recipe.train.batch_size) == ("dct", "golden", 128)
    assert (recipe.schedule.name, recipe.schedule.min_lr, recipe.schedule.warmup_epochs) == ("cosine", 0.0, 0)
    optimizer, train, augment = recipe.optimizer, recipe.train, recipe.augment
    if name.startswith("ecg_"):
        assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-3, 0.0)
        assert (train.epochs, train.pos_weight) == (85, "sqrt")
        assert not augment.hflip and augment.crop_padding == 0
    else:
        assert (optimizer.name, optimizer.lr) == ("sgd", 0.1)
        assert (optimizer.momentum, optimizer.weight_decay, optimizer.nesterov) == (0.9, 5e-4, False)
        assert (train.epochs, train.pos_weight) == (200, "none")
        assert augment.hflip and augment.crop_padding == 2


@pytest.mark.parametrize(
    "name",
    [n if n in TRAINED_ALWAYS or n not in PAPER else pytest.param(n, marks=pytest.mark.heavy) for n in UNRELEASED],
)
def test_verify_a_recipe_trains_on_made_data(name):
    run, losses = first_steps(name)
    assert run.total_steps == STEPS * run.recipe.train.epochs and len({*losses}) == STEPS
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert digest(run.model) != run.init_digest
    assert all(p.isfinite().all() for p in run.model.parameters())


@pytest.mark.heavy
def test_verify_a_full_size_network_has_the_same_bits_under_other_threads():
    name, here = "ecg_inceptiontime.ptbxl_superclass", torch.get_num_threads()
    run, losses = first_steps(name)
    there = 2 if here == 1 else 1
    script = (
        "import json, sys, torch; sys.path.insert(0, sys.argv[1]); import test_recipes\n"
        "run, losses = test_recipes.first_steps(sys.argv[2])\n"
        "print(json.dumps([torch.get_num_threads(), test_recipes.digest(run.model), losses]))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), name]
    # waiting threads that sleep, for spinning ones starve each other where the cores are shared
    threads = {"OMP_NUM_THREADS": str(there), "MKL_NUM_THREADS": str(there), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [there, digest(run.model), losses]
    assert digest(run.model) != run.init_digest and all(map(math.isfinite, losses))


def test_verify_a_recipe_is_found_by_name_or_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "med_resnet18.breastmnist"
    packaged = zoo.find_recipe(name)
    assert packaged == zoo.recipe(name) == zoo.find_recipe(_manifest.recipe_path(name))
    (tmp_path / name).mkdir()
    assert zoo.find_recipe(name) == packaged, "the run's folder is not in the way"
    (tmp_path / name).rmdir()
    changed = _manifest.recipe_path(name).read_text().replace("epochs = 200", "epochs = 3")
    (tmp_path / name).write_text(changed)
    assert zoo.find_recipe(name) == packaged.with_epochs(3) != packaged, "a file wins"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nosuch", r"cannot read the recipe nosuch.*no such file.*`dettriton zoo recipes`"),
        ("resnet18.breastmnist", r"did you mean .*med_resnet18\.breastmnist"),
        ("med_resnet18.bloodmnist.toml", r"did you mean .*med_resnet18\.bloodmnist"),
        ("../recipes/med_cnn.digits", r"no such file"),
        (".", r"cannot read the recipe \."),
    ],
)
def test_verify_an_unknown_recipe_is_told(name, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        zoo.find_recipe(name)


@pytest.mark.parametrize("name", [n for n in UNRELEASED if n in PAPER][:1])
def test_verify_what_is_not_released_says_so(name):
    for function in (zoo.entry, zoo.verify, zoo.load):
        with pytest.raises(InputError, match=r"its recipe is here without a released hash yet; the names .*digits"):
            function(name)
    assert "No released hash yet." in _manifest.recipe_path(name).read_text()


def test_verify_a_changed_released_recipe_is_refused(monkeypatch):
    rows = _manifest.read_manifest()
    other = rows["med_cnn.bloodmnist"]
    monkeypatch.setattr(_manifest, "read_manifest", lambda: rows | {"med_cnn.digits": other})
    with pytest.raises(zoo.DamagedReleaseError, match="was changed since its release"):
        zoo.find_recipe("med_cnn.digits")
