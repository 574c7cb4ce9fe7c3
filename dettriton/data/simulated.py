"""``rhythm_sim`` as a dataset: the default set of :mod:`dettriton.data.rhythm_sim`, which needs no download."""

from dettriton.data.dataset import MULTI_CLASS, dataset_sha256
from dettriton.data.rhythm_sim import CLASSES, FREQUENCY, LEADS, LICENCE, NAME, SIZES, TITLE, load_rhythm_sim
from dettriton.data.signals import SignalDataset, SignalInfo, measure
from dettriton.errors import IntegrityError

MICROVOLTS = 1000.0
"""In a millivolt."""

INFO = SignalInfo(
    name=NAME,
    title=TITLE,
    task=MULTI_CLASS,
    classes=CLASSES,
    leads=LEADS,
    signal_shape=(len(LEADS), 10 * FREQUENCY),
    sampling_rate=FREQUENCY,
    samples={split: kind.records for split, kind in SIZES["default"].items()},
    licence=LICENCE,
    content_sha256="99a610a5bc25ff3a60b83bd53b0ccb1c621955cd9c4f595e4e065ae56bb05e49",
)


def load_simulated() -> dict[str, SignalDataset]:
    """The three splits, made in this call: microvolts, normalised by the training split's mean and deviation.

    Raises:
        IntegrityError: this machine made other bytes than the recorded ones.
    """
    made = load_rhythm_sim()
    scale = measure(made["train"][0], [MICROVOLTS] * len(LEADS))
    splits = {
        split: SignalDataset(
            name=NAME,
            split=split,
            signals=signals,
            labels=labels,
            num_classes=len(CLASSES),
            task=MULTI_CLASS,
            normalisation=scale,
            records=tuple(f"{split}/{i}" for i in range(len(labels))),
        )
        for split, (signals, labels) in made.items()
    }
    found = dataset_sha256(splits)
    if found != INFO.content_sha256:
        raise IntegrityError(
            f"the normalisation of {NAME} is not the recorded one: digest {found}, expected {INFO.content_sha256}. "
            "This installation does not compute IEEE arithmetic; run dettriton doctor."
        )
    return splits
