import hashlib
import inspect
import json
from dataclasses import dataclass

import pytest
from tiny_training import TABLES, recipe

from dettriton import data, init, optim, zoo
from dettriton.errors import InputError
from dettriton.nn._precision import PRECISIONS
from dettriton.train import load_recipe, parse_recipe
from dettriton.train import recipe as spec
from dettriton.train._fields import choice, integer, read_section, setting, to_table
from dettriton.zoo import _manifest

MINIMAL = """
[model]
name = "tiny"
[data]
name = "made"
[optimizer]
name = "adam"
lr = 1
[train]
epochs = 2
batch_size = 4
"""

SPELLED_OUT = """# the same recipe
[train]
batch_size = 4
epochs = 2
precision = "high"
loss = "cross_entropy"
label_smoothing = 0
seed = 0
[optimizer]
lr = 1.0
name = "adam"
betas = [0.9, 0.999]
eps = 1e-8
weight_decay = 0
[schedule]
name = "constant"
warmup_epochs = 0
[data]
name = "made"
[model]
name = "tiny"
args = {}
[order]
kind = "golden"
seed = 0
[init]
scheme = "dct"
seed = 0
[augment]
hflip = false
crop_padding = 0
"""


def from_text(folder, text):
    path = folder / "recipe.toml"
    path.write_text(text)
    return load_recipe(path)


def test_verify_digest_ignores_what_cannot_change_bits(tmp_path):
    assert from_text(tmp_path, MINIMAL).digest() == from_text(tmp_path, SPELLED_OUT).digest()


def test_verify_digest_is_that_of_the_canonical_text(tmp_path):
    text = (
        '{"augment":{"crop_padding":0,"hflip":false},"data":{"name":"made"},"init":{"scheme":"dct","seed":0},'
        '"model":{"args":{},"name":"tiny"},"optimizer":{"betas":[0.9,0.999],"eps":1e-08,"lr":1.0,"name":"adam",'
        '"weight_decay":0.0},"order":{"kind":"golden","seed":0},"schedule":{"name":"constant","warmup_epochs":0},'
        '"train":{"batch_size":4,"epochs":2,"label_smoothing":0.0,"loss":"cross_entropy","precision":"high","seed":0}}'
    )
    assert from_text(tmp_path, MINIMAL).digest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"args": {"hidden": 9}}},
        {"data": {"name": "other"}},
        {"init": {"seed": 4}},
        {"init": {"scheme": "dct"}},
        {"order": {"kind": "shuffle"}},
        {"optimizer": {"lr": 0.02}},
        {"optimizer": {"betas": [0.9, 0.99]}},
        {"schedule": {"min_lr": 0.001}},
        {"train": {"precision": "medium"}},
        {"train": {"loss": "binary_cross_entropy_with_logits", "label_smoothing": 0, "pos_weight": "sqrt"}},
        {"augment": {"hflip": False}},
    ],
    ids=str,
)
def test_verify_digest_sees_every_setting(changes):
    assert recipe(**changes).digest() != recipe().digest()


def test_verify_recipe_survives_its_tables():
    plain = json.loads(json.dumps(recipe().to_dict()))
    assert parse_recipe(plain) == recipe()


@pytest.mark.parametrize("name", zoo.names())
def test_verify_released_recipes_keep_their_digests(name):
    assert load_recipe(_manifest.recipe_path(name)).digest() == zoo.entry(name).recipe_digest


@dataclass(frozen=True)
class Grown:
    """A section that was released with ``size`` only."""

    size: int = setting(integer(0, 9), 1)
    kind: str = setting(choice("plain", "new"), "plain", omitted_at_default=True)


@pytest.mark.parametrize(
    ("table", "written"),
    [
        ({}, {"size": 1}),
        ({"size": 1, "kind": "plain"}, {"size": 1}),
        ({"kind": "new"}, {"size": 1, "kind": "new"}),
    ],
)
def test_verify_younger_settings_are_written_where_they_are_used(table, written):
    section = read_section(Grown, table, "here")
    assert to_table(section) == written
    assert read_section(Grown, to_table(section), "here") == section


@pytest.mark.parametrize(
    ("section", "table", "told"),
    [
        ("optimiser", {}, ["unknown section 'optimiser'", "optimizer"]),
        ("optimizer", {"lrr": 1}, ["unknown key 'lrr'", "[optimizer]", "lr", "betas", "weight_decay"]),
        ("optimizer", {"momentum": 0.9}, ["unknown key 'momentum'", "[optimizer]"]),
        ("optimizer", {"name": "rmsprop"}, ["[optimizer]", "'name'", '"sgd"', "'rmsprop'"]),
        ("optimizer", {"lr": 0}, ["'lr'", "above 0", "got 0"]),
        ("optimizer", {"lr": float("inf")}, ["'lr'", "finite"]),
        ("optimizer", {"lr": "fast"}, ["'lr'", "'fast'"]),
        ("optimizer", {"betas": [0.9]}, ["'betas'", "pair"]),
        ("optimizer", {"betas": [0.9, 1.0]}, ["'betas'", "below 1"]),
        ("schedule", {"warmup_epochs": 3}, ["[schedule]", "'warmup_epochs'", "less than"]),
        ("schedule", {"gamma": 0.1}, ["unknown key 'gamma'", "[schedule]"]),
        ("train", {"epochs": 0}, ["'epochs'", "from 1"]),
        ("train", {"epochs": 1.0}, ["'epochs'", "integer", "1.0"]),
        ("train", {"epochs": True}, ["'epochs'", "True"]),
        ("train", {"seed": 2**32}, ["'seed'", "4294967295"]),
        ("train", {"precision": "low"}, ["'precision'", '"medium"']),
        ("train", {"pos_weight": "balanced"}, ["'pos_weight'", '"none" or "sqrt"', "'balanced'"]),
        ("train", {"pos_weight": "sqrt"}, ["'pos_weight'", "binary_cross_entropy_with_logits", "leave it out"]),
        ("train", {"loss": "binary_cross_entropy_with_logits"}, ["label_smoothing"]),
        ("init", {"scheme": "svd"}, ["'scheme'", '"dct"']),
        ("order", {"kind": "random"}, ["'kind'", '"golden"']),
        ("model", {"name": ""}, ["'name'", "non-empty"]),
        ("model", {"args": {"hidden": None}}, ["'args'"]),
        ("augment", {"hflip": 1}, ["'hflip'", "true or false"]),
        ("augment", {"crop_padding": -1}, ["'crop_padding'", "from 0"]),
    ],
)
def test_verify_mistakes_are_named(section, table, told):
    with pytest.raises(InputError) as raised:
        recipe(**{section: table})
    for part in told:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 1, "nesterov": True},
        {"name": "sgd", "lr": 1, "momentum": 0.9, "dampening": 0.1, "nesterov": True},
    ],
)
def test_verify_nesterov_needs_momentum(optimizer):
    with pytest.raises(InputError, match="nesterov"):
        parse_recipe({**TABLES, "optimizer": optimizer})


@pytest.mark.parametrize("section", ["model", "data", "optimizer", "train"])
def test_verify_required_sections(section):
    with pytest.raises(InputError, match=rf"\[{section}\].*'(name|epochs)'"):
        parse_recipe({s: t for s, t in TABLES.items() if s != section})


def test_verify_section_must_be_a_table():
    with pytest.raises(InputError, match=r"\[train\] must be a table"):
        parse_recipe({**TABLES, "train": 3})


@pytest.mark.parametrize(
    ("content", "told"), [(b"[model", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (None, "cannot read")]
)
def test_verify_unreadable_files(tmp_path, content, told):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=told) as raised:
        load_recipe(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[" * 5000, "not valid TOML"),
        ("9" * 5000, "not valid TOML"),
        ("0x" + "f" * 5000, "an integer of 20000 bits"),
        (f"1{'0' * 400}", "must be a finite number above 0, got 1000"),
        ("inf", "must be a finite number above 0, got inf"),
        ('"' + "x" * 10**6 + '"', "must be a finite number above 0, got 'xxx"),
        ("[[1, 2], [3]]", "must be a finite number above 0"),
        ("1979-05-27", "must be a finite number above 0"),
        ("9223372036854775808", "must be a finite number above 0"),
    ],
    ids=lambda value: value[:20],
)
def test_verify_values_beyond_measure_are_told(tmp_path, value, told):
    (tmp_path / "r.toml").write_text(MINIMAL.replace("lr = 1", f"lr = {value}"))
    with pytest.raises(InputError, match=told) as raised:
        load_recipe(tmp_path / "r.toml")
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "value", ["[" * 9 + "1" + "]" * 9, "9223372036854775808", "0x" + "f" * 5000, "nan", "07:32:00"]
)
def test_verify_arguments_beyond_measure_are_told(tmp_path, value):
    (tmp_path / "r.toml").write_text(MINIMAL.replace('name = "tiny"', f'name = "tiny"\nargs = {{ hidden = {value} }}'))
    with pytest.raises(InputError, match="'args' must be a table of numbers"):
        load_recipe(tmp_path / "r.toml")


def test_verify_a_recipe_that_is_no_table():
    for tables in ([], "model", 3, None):
        with pytest.raises(InputError, match="recipe must be a table"):
            parse_recipe(tables)


def test_corroborate_choices_are_those_of_the_packages():
    assert set(spec.INIT_SCHEMES) == set(init.SCHEMES)
    assert set(spec.ORDER_KINDS) == set(data.ORDERS)
    assert set(spec.PRECISIONS) == set(PRECISIONS)


@pytest.mark.parametrize(("name", "cls"), [("sgd", optim.SGD), ("adam", optim.Adam), ("adamw", optim.AdamW)])
def test_corroborate_optimizer_settings_and_defaults(name, cls):
    settings = parse_recipe({**TABLES, "optimizer": {"name": name, "lr": 0.5}}).to_dict()["optimizer"]
    parameters = inspect.signature(cls).parameters
    for key, value in settings.items():
        if key not in ("name", "lr"):
            assert parameters[key].default == value
