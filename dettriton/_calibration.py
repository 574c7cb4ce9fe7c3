"""Expected calibration error, an exact rational number; public as :func:`dettriton.metrics.calibration_error`."""

from fractions import Fraction

import numpy as np

from dettriton._score_arrays import Array, is_thresholded, positives, prepare, ranked
from dettriton.errors import InputError

BINS = 15


def calibration_error(scores: Array, labels: Array, task: str, bins: int = BINS) -> Fraction:
    """Expected calibration error: how far probabilities lie from the frequency of what they announce.

    The samples are sorted by probability into ``bins`` bins of equal width, ``(k/bins, (k+1)/bins]``, 0 in the first.
    The error is the mean over samples of ``|frequency - mean probability|`` of the sample's bin.

    - ``multi-class`` and ``ordinal-regression``: the probability is that of the class of the highest score, the lowest
      number among equals, and the event that it is right (Guo et al. 2017, equation 3).
    - ``binary-class``: the probability and the frequency are those of class 1, by the last column (Naeini et al. 2015).
    - ``multi-label, binary-class``: the mean over labels of each label's error, taken as for a binary task. A label
      without a positive sample counts, too: its frequency is 0.

    A floating-point number is a rational one and its bin is found by comparing it with ``k/bins`` itself, so nothing is
    rounded and the order of the samples cannot show.

    Args:
        scores: as for :func:`dettriton.metrics.auc`, each from 0 to 1.
        labels, task: as for :func:`dettriton.metrics.auc`.
        bins: how many.

    Raises:
        InputError: shapes or labels do not fit, the task is unknown, a score is no probability, or there are no bins.
        NonFiniteError: a score is NaN.
    """
    scores, labels = prepare(scores, labels, task)
    if bins < 1:
        raise InputError(f"a calibration error needs at least one bin, got {bins}")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError("a calibration error needs probabilities from 0 to 1: take scores after softmax or sigmoid")
    if is_thresholded(task):
        columns, events = ranked(scores, task), positives(scores, labels, task)
        errors = [_error(columns[:, k], events[:, k], bins) for k in range(columns.shape[1])]
        return sum(errors) / len(errors)
    return _error(scores.max(axis=1), scores.argmax(axis=1) == labels, bins)


def _error(probabilities: np.ndarray, events: np.ndarray, bins: int) -> Fraction:
    bin_of = np.searchsorted(_inner_edges(bins), probabilities.astype(np.float64), side="left")
    gaps = [
        abs(int(events[inside].sum()) - _exact_sum(probabilities[inside]))
        for inside in (bin_of == k for k in np.unique(bin_of))
    ]
    return sum(gaps) / len(probabilities)


def _inner_edges(bins: int) -> np.ndarray:
    """The largest binary64 not above each ``k/bins``: a binary64 is above the one exactly if it is above the other."""
    edges = [k / bins for k in range(1, bins)]
    return np.array([np.nextafter(e, 0) if Fraction(e) > Fraction(k, bins) else e for k, e in enumerate(edges, 1)])


def _exact_sum(numbers: np.ndarray) -> Fraction:
    ratios = [number.as_integer_ratio() for number in numbers.tolist()]
    # denominators of binary numbers are powers of two, so that the largest is common to all
    common = max(bottom for _, bottom in ratios)
    return Fraction(sum(top * (common // bottom) for top, bottom in ratios), common)
