"""The training curve of a released model: its losses from a run's trace, its validation AUC from the last checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from dettriton.compare import read_chain
from dettriton.errors import InputError, IntegrityError
from dettriton.train.checkpoint import load_newest
from dettriton.train.trace import FILE_NAME, first_link, float_of_bits
from dettriton.zoo._facts import Facts

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 150, 46, 12, 24, 28


@dataclass(frozen=True)
class Curve:
    """By epoch.

    Attributes:
        losses: mean over the epoch's steps.
        aucs: on the validation split; None where the directory keeps no checkpoint.
    """

    losses: tuple[float, ...]
    aucs: tuple[float, ...] | None


def read_curve(directory: str | Path, facts: Facts) -> Curve:
    """The curve of a run that gave a released model.

    Args:
        directory: the ``--out`` directory of its training.
        facts: of the model.

    Raises:
        InputError: the trace cannot be read, or is not the one that gave the model: its chain of losses has another end.
        IntegrityError: all of its checkpoints are damaged.
    """
    path, epochs = Path(directory) / FILE_NAME, facts.recipe.train.epochs
    records = _read_own(path, facts)
    steps, rest = divmod(len(records), epochs)
    if rest or not steps:
        raise InputError(
            f"{path} is not the trace of the training that gave {facts.name}: its chain of losses does not end in "
            f"{facts.entry.trace}. Train the released recipe with `dettriton train {facts.name} --out DIR`"
        )
    losses = [float_of_bits(record["loss"]) for record in records]
    means = (math.fsum(losses[first : first + steps]) / steps for first in range(0, len(losses), steps))
    return Curve(tuple(means), _validation(Path(directory), facts))


def curve_svg(curve: Curve, title: str) -> str:
    """The curve as SVG, one panel for each figure, in the colour of the text; a page's style may choose others."""
    panels = [("training loss, mean of the epoch", curve.losses)]
    if curve.aucs is not None:
        panels.append(("validation AUC", curve.aucs))
    drawn = "".join(_panel(index * _HEIGHT, *panel) for index, panel in enumerate(panels))
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT * len(panels)}" role="img" aria-label="{escape(title)}" '
        'font-size="10" fill="currentColor" stroke-width="1.5">'
        f"{drawn}</svg>"
    )


def _read_own(path: Path, facts: Facts) -> Sequence[Mapping[str, Any]]:
    """The records of a trace whose chain leads from the model's recipe to its last link; none if it does not."""
    try:
        records, _ = read_chain(path, first_link(facts.entry.recipe_digest, facts.entry.init_digest))
    except IntegrityError:
        return ()
    return records if records and records[-1]["chain"] == facts.entry.trace else ()


def _validation(directory: Path, facts: Facts) -> tuple[float, ...] | None:
    checkpoint = load_newest(directory, report=lambda _: None)
    if checkpoint is None or checkpoint.trace.link != facts.entry.trace:
        return None
    aucs = tuple(float(scores.auc) for scores in checkpoint.scores)
    return aucs if len(aucs) == facts.recipe.train.epochs else None


def _panel(offset: int, label: str, values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    bottom, right = offset + _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    across = (right - _LEFT) / max(len(values) - 1, 1)
    down = _HEIGHT - _TOP - _BOTTOM
    points = [
        (f"{_LEFT + across * epoch:.2f}", f"{offset + _TOP + down * (high - value) / span:.2f}")
        for epoch, value in enumerate(values)
    ]
    return "".join(
        [
            f'<text x="{_LEFT}" y="{offset + 14}">{escape(label)}</text>',
            f'<path class="axis" fill="none" stroke="currentColor" d="M{_LEFT} {offset + _TOP}V{bottom}H{right}"/>',
            f'<text x="{_LEFT - 4}" y="{offset + _TOP + 4}" text-anchor="end">{high:.3f}</text>',
            f'<text x="{_LEFT - 4}" y="{bottom}" text-anchor="end">{low:.3f}</text>',
            f'<text x="{_LEFT}" y="{bottom + 14}">epoch 1</text>',
            f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{len(values)}</text>',
            f'<polyline fill="none" stroke="currentColor" points="{" ".join(map(",".join, points))}"/>',
            *(f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in points),
        ]
    )
