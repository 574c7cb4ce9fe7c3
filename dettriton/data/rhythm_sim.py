"""A simulator of twelve-lead ECG strips in twelve rhythms: data for rhythm networks without patients or downloads.

A strip is 10 s at 100 Hz in whole microvolts, as in PTB-XL (Wagner et al. 2020, Sci. Data 7:154), whose rhythm statements
are the classes and whose imbalance is kept. What decides a label is the rhythm alone: rate, regularity, P waves, atrial
waves, premature and paced beats. The heart's axis, size and conduction, the body, gains and noise are drawn alike for all.

Every byte is a function of (seed, record number, label): random words come from Philox, waves from this library's
elementary functions, and every sum is one of integers or of few terms in a written order.

Simplified, against real records: one label for each, never wrong; no mains hum, lost leads, fusion or escape beats, or
pacing on demand; the P wave under a ventricular beat is left out; disease shows only in sizes, axes, T waves and, in a
tenth, broad QRS complexes. One record in eight of a sinus rhythm has a single premature beat.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch

from dettriton.data._atria import atrial_dipole
from dettriton.data._electrodes import LEADS, record_leads
from dettriton.data._heart_waves import SAMPLES, heart_dipole
from dettriton.data._rhythms import CLASSES, beat_schedule
from dettriton.data.order import shuffle_order
from dettriton.digest import digest
from dettriton.errors import InputError, IntegrityError

NAME = "rhythm_sim"
TITLE = "Simulated twelve-lead ECG strips in the twelve rhythms of PTB-XL, 10 s at 100 Hz, whole microvolts"
LICENCE = "CC0 1.0"
"""Of the data; the program that makes them is Apache-2.0."""

FREQUENCY = 100
"""Samples a second."""

PTBXL_COUNTS = (16782, 1514, 826, 772, 637, 296, 157, 82, 73, 27, 24, 20)
"""Records of PTB-XL with each rhythm statement, by class."""

SEED = 20
"""Of the recorded sets."""

CHUNK = 128
"""Records made at a time: their arrays stay in a processor's cache. No bit depends on it."""


@dataclass(frozen=True)
class Split:
    """Records of a split, and the least of any one class."""

    records: int
    fewest: int


SIZES: Mapping[str, Mapping[str, Split]] = MappingProxyType(
    {
        "tiny": {"train": Split(96, 4), "val": Split(48, 2), "test": Split(48, 2)},
        "default": {"train": Split(1200, 20), "val": Split(300, 5), "test": Split(600, 10)},
        "full": {"train": Split(17418, 20), "val": Split(2183, 5), "test": Split(2198, 10)},
    }
)
"""The sets that :func:`load_rhythm_sim` makes; ``full`` has the sizes of PTB-XL's folds 1 to 8, 9 and 10."""

CONTENT_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "tiny": "a067e68cd049f32dfc0ba361c43b7ea3aa1467023e59456c7d89a927e31f9b99",
        "default": "37c17f2ca6fb0eec88f13d2a4f7fd622fcbefbcbb94e3c71ab404c8e59a2705f",
        "full": "bd07a15ea482309c3005af13d06e7b5cc14197d4a87587a7cc19f460b992475d",
    }
)
"""What :func:`dettriton.digest.digest` gives for each set's ``<split>.signals`` and ``<split>.labels``."""


def simulate(labels: torch.Tensor, seed: int, first: int = 0) -> torch.Tensor:
    """Strips of the given rhythms.

    Args:
        labels: (N,) int64, numbers of :data:`CLASSES`.
        seed: in [0, 2**32).
        first: the number of the first record, so that a large set can be made in pieces; below 2**48.

    Returns:
        (N, 12, 1000) int16 in microvolts: leads in the order of :data:`LEADS`, samples 10 ms apart. Record i is a function
        of the seed, ``first + i`` and its label.

    Raises:
        InputError: a label is not the number of a class, or another argument is out of range.
    """
    _check(labels, seed, first)
    signals = torch.zeros(len(labels), len(LEADS), SAMPLES, dtype=torch.int16)
    with _one_thread():
        for start in range(0, len(labels), CHUNK):
            part = labels[start : start + CHUNK]
            records = torch.arange(first + start, first + start + len(part))
            schedule = beat_schedule(part, records, seed)
            dipole = heart_dipole(schedule, records, seed) + atrial_dipole(schedule, part, records, seed)
            signals[start : start + CHUNK] = record_leads(dipole, records, seed)
    return signals


def load_rhythm_sim(size: str = "default") -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The splits of a recorded set by name, ``train``, ``val`` and ``test``, made anew in each call.

    Args:
        size: a key of :data:`SIZES`.

    Returns:
        For each split its signals, (N, 12, 1000) int16 as from :func:`simulate`, and labels, (N,) int64.

    Raises:
        InputError: there is no such size.
        IntegrityError: this machine made other bytes than the recorded ones.
    """
    labels = set_labels(size)
    signals = simulate(torch.cat(list(labels.values())), SEED).split([len(part) for part in labels.values()])
    splits = {split: (part, labels[split]) for split, part in zip(labels, signals, strict=True)}
    found = content_sha256(splits)
    if found != CONTENT_SHA256[size]:
        raise IntegrityError(
            f"the simulated {NAME} ({size}) is not the recorded one: digest {found}, expected {CONTENT_SHA256[size]}. "
            "This installation does not compute IEEE arithmetic; run dettriton doctor."
        )
    return splits


def content_sha256(splits: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Digest of all splits' signals and labels under ``<split>.signals`` and ``<split>.labels``."""
    content = {}
    for split, (signals, labels) in splits.items():
        content |= {f"{split}.signals": signals, f"{split}.labels": labels}
    return digest(content)


def set_labels(size: str) -> dict[str, torch.Tensor]:
    """The labels of a recorded set, (N,) int64 for each split: :func:`class_counts` of each, shuffled.

    Raises:
        InputError: there is no such size.
    """
    if size not in SIZES:
        raise InputError(f"there is no {NAME} of size {size!r}; choose one of {', '.join(SIZES)}")
    labels = {}
    for number, (name, split) in enumerate(SIZES[size].items()):
        ordered = torch.repeat_interleave(torch.arange(len(CLASSES)), torch.tensor(class_counts(split)))
        labels[name] = ordered[torch.from_numpy(shuffle_order(split.records, number, SEED))]
    return labels


def class_counts(split: Split) -> tuple[int, ...]:
    """How many records of each class a split has.

    A class whose share of PTB-XL is below ``split.fewest`` has that many; the others divide the rest in proportion to
    :data:`PTBXL_COUNTS`, by largest remainders.
    """
    rare = [c for c, count in enumerate(PTBXL_COUNTS) if count * split.records < split.fewest * sum(PTBXL_COUNTS)]
    common = [c for c in range(len(PTBXL_COUNTS)) if c not in rare]
    rest, total = split.records - split.fewest * len(rare), sum(PTBXL_COUNTS[c] for c in common)
    counts = [split.fewest] * len(PTBXL_COUNTS)
    for c in common:
        counts[c] = PTBXL_COUNTS[c] * rest // total
    by_remainder = sorted(common, key=lambda c: -(PTBXL_COUNTS[c] * rest % total))
    for c in by_remainder[: split.records - sum(counts)]:
        counts[c] += 1
    return tuple(counts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of small operations: on a busy machine, waiting for a second thread takes ten times as long as they do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check(labels: torch.Tensor, seed: int, first: int) -> None:
    if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.dim() != 1:
        raise InputError(f"labels must be an (N,) int64 tensor of class numbers, got {_describe(labels)}")
    if not bool(((labels >= 0) & (labels < len(CLASSES))).all()):
        raise InputError(f"a label is not one of the {len(CLASSES)} classes, 0 ({CLASSES[0]}) to 11 ({CLASSES[-1]})")
    for name, value, bits in (("seed", seed, 32), ("first", first, 48)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**bits:
            raise InputError(f"{name} must be an integer in [0, 2**{bits}), got {value!r}")


def _describe(value: object) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else repr(value)
