"""What the cards say of data sets, architectures and single models that no file of the package knows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataText:
    """A data set in sentences.

    Attributes:
        subject: what a model of it is for, after "for".
        origin: where it comes from, a part of a sentence; licence and number of samples are added.
        details: whole sentences about its splits.
        limits: whole sentences; ``{train}``, ``{val}`` and ``{test}`` become numbers of samples.
        published: test AUC and ACC of a published network, and its name; None where there is none to compare with.
        tags: for Hugging Face.
    """

    subject: str
    origin: str
    details: str
    limits: str
    published: tuple[float, float] | None = None
    tags: tuple[str, ...] = ()


PUBLISHED_NETWORK = "published ResNet-18 (28), 11.2 M parameters"
PUBLISHED_SOURCE = "Yang et al. 2023"

NOT_A_DEVICE = "It is not a medical device."
EQUAL_BITS = "Equal bits say that a result can be checked, not that it is right."
DEFAULT_PURPOSE = "It is the embedded default of `dettriton verify`."
DEMONSTRATION = "It is a demonstration that a training can be reproduced."

_SMALL_IMAGES = "Images of 28x28 pixels or fewer, one data source, no external validation, no subgroup analysis."
_MEDMNIST = "in MedMNIST v2 (Yang et al. 2023)"

DATA = {
    "rhythm_sim": DataText(
        subject="twelve simulated heart rhythms",
        origin="`dettriton.data.rhythm_sim`: twelve-lead strips of 10 s at 100 Hz, made by a simulator from integers",
        details="Twelve rhythms, as imbalanced as PTB-XL's. Its source names the dynamical models it follows.",
        limits="The strips are simulated: the network shows that a training reproduces and that it learns rhythms from "
        "waves, and says nothing about patients.",
        tags=("ecg", "simulated"),
    ),
    "ptbxl488": DataText(
        subject="the five diagnostic superclasses of PTB-XL",
        origin="PTB-XL 1.0.3 (Wagner et al. 2020): the records 1 to 500, of which that version has 488, at 100 Hz",
        details="The splits are PTB-XL's folds; five diagnostic superclasses, multi-label.",
        limits="{train} training records from one source are few: the figures on {test} test records are coarse, and no "
        "external validation or subgroup analysis was made.",
        tags=("ecg", "medical"),
    ),
    "digits": DataText(
        subject="handwritten digits, 8x8 grey, ten classes",
        origin="scikit-learn's bundled copy of the UCI Optical Recognition of Handwritten Digits test set (Alpaydin and "
        "Kaynak 1998)",
        details="Split by index mod 9: 0 validation, 2 and 5 test, the rest train, so each writer is in all splits.",
        limits=_SMALL_IMAGES,
    ),
    "bloodmnist": DataText(
        subject="blood cell microscopy, 28x28 RGB, eight classes",
        origin=f"BloodMNIST (Acevedo et al. 2020) {_MEDMNIST}",
        details="Official splits; the official file holds 5 exact duplicates between train and test and 3 between train "
        "and validation.",
        limits=_SMALL_IMAGES,
        published=(0.998, 0.958),
        tags=("medical", "medmnist"),
    ),
    "breastmnist": DataText(
        subject="breast ultrasound, 28x28 grey, malignant against normal or benign",
        origin=f"BreastMNIST (Al-Dhabyani et al. 2020) {_MEDMNIST}",
        details="Official splits; one test image is an exact duplicate of a training image in the official file.",
        limits=_SMALL_IMAGES,
        published=(0.901, 0.863),
        tags=("medical", "medmnist"),
    ),
    "retinamnist": DataText(
        subject="fundus photographs, 28x28 RGB, five ordinal grades of diabetic retinopathy",
        origin=f"RetinaMNIST (DeepDRiD) {_MEDMNIST}",
        details="Official splits.",
        limits=_SMALL_IMAGES,
        published=(0.717, 0.524),
        tags=("medical", "medmnist"),
    ),
}
"""By dataset; a name that is missing here gets the description of :func:`dettriton.data.describe`."""

ARCHITECTURES = {
    "ecg_conformer_tiny": "A small convolution and Conformer network (Gulati et al. 2020)",
    "ecg_inceptiontime_tiny": "Three narrow modules of InceptionTime (Ismail Fawaz et al. 2020)",
    "ecg_resnet18_tiny": "A one-dimensional ResNet-18 with narrow stages (He et al. 2016)",
    "med_cnn": "A residual CNN for small images",
    "med_cnn_8x8": "A residual CNN for small images",
}
"""By the name in a recipe."""

NOTES = {
    "med_cnn.retinamnist": """\
**Initialisation and order.** The same recipe over five seeds in each arm (as `dettriton study` does it; results in
`bench/results/compare-init-retinamnist-cpu.json`). A seed moves the order, the flips and, for Kaiming, the weights; DCT
weights have no seed. Pairs share a seed and everything but the factor compared.

- DCT against Kaiming, ten pairs: mean difference 0.0000 AUC, DCT ahead in 5 (Wilcoxon signed-rank p = 0.92). No effect
  seen.
- Golden order against shuffle, ten pairs: golden ahead by 0.0119 AUC on average, in 7 (p = 0.027, not corrected for the
  two comparisons). A hint from one small data set, whose best epoch is chosen on 120 images, not a finding.

| initialisation | order | runs | test AUC mean | sd | range | test ACC mean | sd |
|---|---|---|---|---|---|---|---|
| dct | golden | 5 | 0.7357 | 0.0102 | 0.7232 to 0.7447 | 0.5200 | 0.0196 |
| dct | shuffle | 5 | 0.7213 | 0.0103 | 0.7084 to 0.7311 | 0.5215 | 0.0151 |
| kaiming | golden | 5 | 0.7331 | 0.0147 | 0.7165 to 0.7492 | 0.5340 | 0.0211 |
| kaiming | shuffle | 5 | 0.7238 | 0.0103 | 0.7107 to 0.7385 | 0.5300 | 0.0245 |""",
}
"""A section of Markdown that only one model's card has, by the model's name."""
