"""Cases of the losses, of clipping gradients, and of optimizer steps over many tensors at once."""

from __future__ import annotations

from functools import partial

import torch
from op_case import Case, Made, case, classes, hard_cases, positive

from dettriton import optim
from dettriton.ops.bce import binary_cross_entropy, binary_cross_entropy_with_logits
from dettriton.ops.cross_entropy import cross_entropy
from dettriton.ops.ctc_loss import ctc_loss
from dettriton.ops.kl_div import kl_div
from dettriton.ops.mse_loss import l1_loss, mse_loss
from dettriton.ops.nll_loss import nll_loss
from dettriton.ops.smooth_l1_loss import huber_loss, smooth_l1_loss
from dettriton.ops.softmax import log_softmax

REDUCTIONS = ("mean", "sum", "none")


def numbers(*values: int) -> Made:
    """These integers."""
    return lambda key: torch.tensor(values)


def _of_pairs() -> list[Case]:
    pair = {"input": (33, 12), "target": (33, 12)}
    long = {"input": (3, 5000), "target": (3, 5000)}
    found = []
    for op, fn in {
        "mse_loss": mse_loss,
        "l1_loss": l1_loss,
        "smooth_l1_loss": partial(smooth_l1_loss, beta=0.7),
        "huber_loss": partial(huber_loss, delta=0.7),
        "kl_div": partial(kl_div, log_target=True),
    }.items():
        found += [case(op, r, partial(fn, reduction=r), "input target", **pair) for r in REDUCTIONS]
        found += [case(op, "long", fn, "input target", **long), *hard_cases(op, fn, "input", 60, target=(60,))]
    for op, fn in (("mse_loss", mse_loss), ("l1_loss", l1_loss), ("huber_loss", huber_loss)):
        found.append(case(op, "weights", fn, "input target", **pair, weight=positive(33, 12)))
    to_row = lambda input, target: kl_div(input, target, reduction="batchmean")  # noqa: E731 used twice, below
    return [
        *found,
        case("kl_div", "probabilities, a row", to_row, "input target", input=(33, 12), target=positive(12)),
        *hard_cases("kl_div", to_row, "input", 5, 12, configuration="probabilities, hard", target=positive(5, 12)),
        *hard_cases("kl_div", to_row, "target", 5, 12, configuration="to probabilities, hard", input=(5, 12)),
    ]


def _from_half(input: torch.Tensor, target: torch.Tensor, **options: object) -> torch.Tensor:
    return binary_cross_entropy(input - 0.5, target, **options)


def _of_probabilities() -> list[Case]:
    op, made = "binary_cross_entropy", {"input": positive(33, 12), "target": positive(33, 12)}
    return [
        *(case(op, r, partial(_from_half, reduction=r), "input target", **made) for r in REDUCTIONS),
        case(op, "weights", _from_half, "input target", **made, weight=positive(12)),
        *hard_cases(op, _from_half, "target", 60, input=positive(60)),
    ]


def _of_classes() -> list[Case]:
    rows = {"input": (70, 10), "target": classes(10, 70)}
    ignoring = partial(nll_loss, ignore_index=2)
    composed = lambda input, target: nll_loss(log_softmax(input, 1), target)  # noqa: E731 used once, below
    return [
        *(case("nll_loss", r, partial(nll_loss, reduction=r), "input", **rows) for r in REDUCTIONS),
        case("nll_loss", "weights, ignored", ignoring, "input", **rows, weight=positive(10)),
        case("nll_loss", "map", nll_loss, "input", input=(2, 4, 3, 5), target=classes(4, 2, 3, 5)),
        case("nll_loss", "of log_softmax", composed, "input", **rows),
        *hard_cases("nll_loss", nll_loss, "input", 5, 7, target=classes(7, 5)),
    ]


def _aligned(
    input: torch.Tensor, targets: torch.Tensor, steps: torch.Tensor, sizes: torch.Tensor, **options: object
) -> torch.Tensor:
    """The loss of logits whose last class is the blank."""
    return ctc_loss(log_softmax(input, 2), targets, steps, sizes, blank=input.shape[2] - 1, **options)


def _joined(input: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return _aligned(input, targets, (4, 3, 4), (1, 0, 2), reduction="sum")


def _to_targets() -> list[Case]:
    """The gradients of the two other losses to what they are compared with."""
    cross = partial(cross_entropy, label_smoothing=0.1)
    binary = binary_cross_entropy_with_logits
    made = {"input": (9, 6), "target": positive(9, 6)}
    return [
        case("cross_entropy", "to probabilities, weights", cross, "input target", **made, weight=positive(6)),
        case("binary_cross_entropy_with_logits", "to targets", binary, "input target", **made),
        case(
            "binary_cross_entropy_with_logits", "to targets, weights", binary, "input target",
            **made, weight=positive(9, 1), pos_weight=positive(6),
        ),
    ]  # fmt: skip


def _alignments() -> list[Case]:
    small = {"input": (5, 3, 6), "targets": classes(5, 3, 2), "steps": numbers(5, 4, 3), "sizes": numbers(2, 1, 0)}
    short = {**small, "steps": numbers(5, 1, 3), "sizes": numbers(2, 2, 2)}
    long = {"input": (300, 5, 40), "targets": classes(39, 5, 60), "steps": numbers(300, 299, 200, 61, 1)}
    long["sizes"] = numbers(60, 0, 60, 31, 1)
    wide = {"input": (80, 2, 1000), "targets": classes(999, 2, 30), "steps": numbers(80, 70), "sizes": numbers(30, 25)}
    direct = partial(ctc_loss, blank=2, reduction="none")
    given = {"targets": classes(2, 2, 1), "input_lengths": numbers(3, 2), "target_lengths": numbers(1, 0)}
    return [
        *(case("ctc_loss", r, partial(_aligned, reduction=r), "input", **small) for r in REDUCTIONS),
        case("ctc_loss", "impossible", partial(_aligned, reduction="none"), "input", **short),
        case("ctc_loss", "impossible, zero", partial(_aligned, zero_infinity=True), "input", **short),
        case("ctc_loss", "joined", _joined, "input", input=(4, 3, 5), targets=classes(4, 3)),
        case("ctc_loss", "long", partial(_aligned, zero_infinity=True), "input", **long, large=True),
        case("ctc_loss", "many classes", _aligned, "input", **wide, large=True),
        *hard_cases("ctc_loss", direct, "log_probs", 3, 2, 3, **given),
    ]


MANY = tuple((i % 5 + 1, 7 * i % 11 + 1) for i in range(40))


def _cut(flat: torch.Tensor) -> list[torch.Tensor]:
    """Forty small tensors and one of several chunks."""
    parts = flat.split([*(a * b for a, b in MANY), flat.numel() - sum(a * b for a, b in MANY)])
    return [p.view(shape) for p, shape in zip(parts, (*MANY, (-1,)), strict=True)]


def _steps_over_many(make: object, start: torch.Tensor, gradients: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = [torch.nn.Parameter(p.clone()) for p in _cut(start)]
    optimizer = make(parameters)
    norms = []
    for row in gradients:
        for p, g in zip(parameters, _cut(row), strict=True):
            p.grad = g.clone()
        norms.append(optim.clip_grad_norm_(parameters, 30.0))
        optimizer.step()
    weights = torch.cat([p.detach().reshape(-1) for p in parameters])
    return {"weights": weights, "norms": torch.stack(norms)}


def _clipped(gradients: torch.Tensor, norm: float | None) -> torch.Tensor:
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in _cut(gradients)]
    for p, g in zip(parameters, _cut(gradients), strict=True):
        p.grad = g.clone()
    if norm is None:
        optim.clip_grad_value_(parameters, 0.3)
    else:
        optim.clip_grad_norm_(parameters, 2.0, norm)
    return torch.cat([p.grad.reshape(-1) for p in parameters])


def _optimizers() -> list[Case]:
    made = {"start": (20_000,), "gradients": (3, 20_000)}
    sgd = partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)
    return [
        case("optim", "many tensors, sgd", partial(_steps_over_many, sgd), **made),
        case("optim", "many tensors, adamw", partial(_steps_over_many, partial(optim.AdamW, lr=3e-3)), **made),
        *(case("optim", f"clipped, norm {n}", partial(_clipped, norm=n), gradients=(3000,)) for n in (1.0, 2.0)),
        case("optim", "clipped, largest", partial(_clipped, norm=float("inf")), gradients=(3000,)),
        case("optim", "clipped values", partial(_clipped, norm=None), gradients=(3000,)),
    ]


CASES: list[Case] = [*_of_pairs(), *_of_probabilities(), *_of_classes(), *_to_targets(), *_alignments(), *_optimizers()]
