"""The report of a model: the figures of the metrics, from one pass, whatever the order of the samples."""

import dataclasses
import json
from fractions import Fraction

import pytest
import tiny_training as tiny
import torch

from dettriton import metrics, ops
from dettriton.data.dataset import BINARY_CLASS, MULTI_CLASS, MULTI_LABEL, ORDINAL
from dettriton.errors import InputError, NonFiniteError
from dettriton.exact.elementary import sigmoid
from dettriton.init import initialize
from dettriton.train import evaluate
from dettriton.train.report import make_report

NAMES = ("a", "b", "c")


@pytest.fixture
def model():
    return initialize(tiny.Tiny(8), "kaiming", 0)


def dataset(task: str):
    made = tiny.splits()["train"]
    if task == MULTI_LABEL:
        labels = (made.labels[:, None] >= torch.arange(tiny.CLASSES)).float()
        labels[0] = torch.tensor([0.0, 1.0, 0.0])
        return dataclasses.replace(made, labels=labels, task=task)
    if task == BINARY_CLASS:
        return dataclasses.replace(made, labels=made.labels % 2, num_classes=2, task=task)
    return dataclasses.replace(made, task=task)


def network(task: str):
    return initialize(tiny.Tiny(8, 2 if task == BINARY_CLASS else tiny.CLASSES), "kaiming", 0)


@pytest.mark.parametrize("task", [MULTI_CLASS, ORDINAL, BINARY_CLASS, MULTI_LABEL])
def test_validate_figures(task):
    data, net = dataset(task), network(task)
    names = NAMES[: data.num_classes]
    found = make_report(net, data, names)
    logits = evaluate.predict(net, data)
    scores = sigmoid(logits) if task == MULTI_LABEL else ops.softmax(logits, dim=1)
    assert found.samples == 26
    assert found.auc == metrics.auc(scores, data.labels, task).value
    assert found.accuracy == metrics.accuracy(scores, data.labels, task)
    assert found.f1 == metrics.macro_f1(scores, data.labels, task).value
    assert found.calibration_error == metrics.calibration_error(scores, data.labels, task)
    assert evaluate.score(net, data) == evaluate.Scores(found.auc, found.accuracy)
    shown = {BINARY_CLASS: ("b",)}.get(task, names)
    counts = data.labels.sum(0) if task == MULTI_LABEL else torch.bincount(data.labels)[-len(shown) :]
    assert [row.name for row in found.classes] == [*shown]
    assert [row.positives for row in found.classes] == counts.tolist()
    assert tuple(row.auc for row in found.classes) == metrics.class_aucs(scores, data.labels, task)
    assert tuple(row.f1 for row in found.classes) == metrics.class_f1s(scores, data.labels, task)


@pytest.mark.parametrize("task", [MULTI_CLASS, BINARY_CLASS, MULTI_LABEL])
def test_verify_the_order_of_samples_does_not_matter(task):
    data, net = dataset(task), network(task)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    shuffled = dataclasses.replace(data, images=data.images[order], labels=data.labels[order])
    names = NAMES[: data.num_classes]
    assert make_report(net, shuffled, names) == make_report(net, data, names)
    assert make_report(net, dataclasses.replace(data, labels=data.labels[order]), names) != make_report(
        net, data, names
    )


def test_verify_one_pass_over_the_data(model, monkeypatch):
    whole, passes = evaluate.predict, []
    monkeypatch.setattr(evaluate, "predict", lambda *a: passes.append(a) or whole(*a))
    make_report(model, dataset(MULTI_CLASS), NAMES)
    assert len(passes) == 1


def test_validate_a_model_of_excluding_classes_on_several_labels(model):
    data = dataset(MULTI_LABEL)
    found = make_report(model, data, NAMES, trained_task=MULTI_CLASS)
    scores = ops.softmax(evaluate.predict(model, data), dim=1)
    assert tuple(row.auc for row in found.classes) == metrics.class_aucs(scores, data.labels, MULTI_LABEL)
    assert found != make_report(model, data, NAMES)


def test_validate_unknown_labels_are_left_out_of_every_figure(model):
    data = dataset(MULTI_LABEL)
    found = make_report(model, data, NAMES, unknown=("b",))
    scores, labels = sigmoid(evaluate.predict(model, data))[:, [0, 2]], data.labels[:, [0, 2]]
    assert [(row.name, row.positives) for row in found.classes] == [("a", 25), ("b", None), ("c", 8)]
    assert found.classes[1].auc is None and found.classes[1].f1 is None
    assert found.auc == metrics.auc(scores, labels, MULTI_LABEL).value
    assert found.accuracy == metrics.accuracy(scores, labels, MULTI_LABEL)
    assert found.f1 == metrics.macro_f1(scores, labels, MULTI_LABEL).value
    assert found.calibration_error == metrics.calibration_error(scores, labels, MULTI_LABEL)
    # what the data says of an unknown label changes nothing
    other = data.labels.clone()
    other[:, 1] = 1 - other[:, 1]
    assert make_report(model, dataclasses.replace(data, labels=other), NAMES, unknown=("b",)) == found


def test_validate_undefined_classes_are_rows_and_no_errors(model):
    data = dataset(MULTI_LABEL)
    labels = data.labels.clone()
    labels[:, 0], labels[:, 1] = 1, 0
    found = make_report(model, dataclasses.replace(data, labels=labels), NAMES)
    assert [row.positives for row in found.classes] == [26, 0, 8]
    assert found.classes[0].auc is None and found.classes[1].auc is None
    assert found.auc == found.classes[2].auc
    shown = json.loads(json.dumps(found.to_dict()))
    assert shown["classes"][1]["auc"] is None
    assert shown["classes"][2] == {
        "name": "c",
        "positives": 8,
        "auc": float(found.classes[2].auc),
        "f1": float(found.classes[2].f1),
    }
    assert (shown["samples"], shown["acc"]) == (26, float(found.accuracy))
    labels[:, 2] = 0
    with pytest.raises(InputError, match="no AUC"):
        make_report(model, dataclasses.replace(data, labels=labels), NAMES)


def test_validate_the_figures_are_rounded_once(model):
    found = make_report(model, dataset(MULTI_CLASS), NAMES)
    shown = found.to_dict()
    assert isinstance(found.f1, Fraction)
    assert (shown["auc"], shown["f1"], shown["ece"]) == tuple(
        map(float, (found.auc, found.f1, found.calibration_error))
    )


@pytest.mark.parametrize(
    ("task", "names", "unknown", "told"),
    [
        (MULTI_CLASS, ("a", "b"), (), "3 classes and 2 names"),
        (MULTI_CLASS, NAMES, ("a",), "none can be unknown"),
        (MULTI_LABEL, NAMES, ("d",), "'d' is not one of the classes a, b, c"),
        (MULTI_LABEL, NAMES, NAMES, "says nothing about any"),
    ],
)
def test_refusals(model, task, names, unknown, told):
    with pytest.raises(InputError, match=told):
        make_report(model, dataset(task), names, unknown=unknown)


def test_non_finite_logits_stop(model):
    with torch.no_grad():
        model.head.bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match="sample 0 of made train"):
        make_report(model, dataset(MULTI_CLASS), NAMES)
