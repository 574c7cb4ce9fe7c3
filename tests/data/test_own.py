"""A user's own npz file: read as MedMNIST's layout says, and refused in words where it is not that."""

import numpy as np
import pytest
import torch

from dettriton import data
from dettriton.data import ArrayDataset, SignalDataset
from dettriton.data.dataset import MULTI_CLASS, MULTI_LABEL, dataset_sha256
from dettriton.errors import InputError

SIZES = {"train": 6, "val": 3, "test": 2}


def signals(**changes) -> dict[str, np.ndarray]:
    made = {"gain": np.array([200, 400], np.float32)}
    for split, n in SIZES.items():
        made[f"{split}_signals"] = (np.arange(n * 2 * 50).reshape(n, 2, 50) % 97).astype(np.int16)
        made[f"{split}_labels"] = np.arange(n) % 3
    return made | changes


def images(channels: int) -> dict[str, np.ndarray]:
    made = {}
    for split, n in SIZES.items():
        shape = (n, 4, 5) if channels == 1 else (n, 4, 5, channels)
        made[f"{split}_images"] = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
        made[f"{split}_labels"] = (np.arange(n) % 2)[:, None]
    return made


def write(folder, arrays):
    np.savez(folder / "mine.npz", **arrays)
    return folder


def test_signals(tmp_path):
    splits = data.load("npz:mine", write(tmp_path, signals()))
    train = splits["train"]
    assert isinstance(train, SignalDataset) and train.task == MULTI_CLASS and train.num_classes == 3
    assert {split: len(part) for split, part in splits.items()} == SIZES
    expected = signals()
    assert np.array_equal(train.signals.numpy(), expected["train_signals"])
    assert train.normalisation.gain.tolist() == [200, 400]
    millivolts = expected["train_signals"] / expected["gain"][:, None].astype(np.float64)
    assert train.normalisation.mean.tolist() == pytest.approx([millivolts.mean()] * 2, rel=1e-6)
    assert splits["test"].normalisation is train.normalisation
    info = data.describe("npz:mine", tmp_path)
    assert (info.signal_shape, info.classes, info.samples) == ((2, 50), ("0", "1", "2"), SIZES)


def test_signals_of_many_labels(tmp_path):
    labels = {f"{split}_labels": np.eye(4, dtype=np.uint8)[np.arange(n) % 4] for split, n in SIZES.items()}
    write(tmp_path, signals(classes=np.array(list("abcd")), **labels))
    splits = data.load("npz:mine", tmp_path)
    assert splits["train"].task == MULTI_LABEL
    assert splits["train"].labels.dtype == torch.float32
    assert data.describe("npz:mine", tmp_path).classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("channels", [1, 3])
def test_images(tmp_path, channels):
    splits = data.load("npz:mine", write(tmp_path, images(channels)))
    train = splits["train"]
    assert isinstance(train, ArrayDataset) and train.images.shape == (6, channels, 4, 5)
    kept = images(channels)["train_images"].reshape(6, 4, 5, channels)
    assert train.images[3, channels - 1, 2, 1] == kept[3, 2, 1, channels - 1]
    assert data.describe("npz:mine", tmp_path).image_shape == (channels, 4, 5)


def test_other_content_is_another_dataset(tmp_path):
    first = dataset_sha256(data.load("npz:mine", write(tmp_path, signals())))
    changed = signals()
    changed["test_signals"][0, 0, 0] += 1
    assert dataset_sha256(data.load("npz:mine", write(tmp_path, changed))) != first


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"train_labels": np.arange(5)}, r"train_labels is \(5,\), expected \(6,\)"),
        ({"val_labels": np.array([0.0, 1, 2])}, "expected integers"),
        ({"train_labels": np.array([0, 1, 2, -1, 0, 1])}, "not one of the 3 classes"),
        ({"train_signals": np.zeros((6, 2, 50), np.float32)}, r"float32, expected \(N, C, L\) int16"),
        ({"test_signals": np.zeros((2, 2, 49), np.int16)}, "C and L as in train_signals"),
        ({"gain": np.ones(3, np.float32)}, "gain is"),
        ({"gain": np.array([1, 0], np.float32)}, "gains must be positive"),
        ({"classes": np.array(["only"])}, "1 names in 'classes' and 3 classes"),
        ({"train_labels": np.array([None] * 6, dtype=object)}, "plain arrays"),
    ],
)
def test_wrong_arrays_are_told(tmp_path, changes, told):
    write(tmp_path, signals(**changes))
    with pytest.raises(InputError, match=told):
        data.load("npz:mine", tmp_path)


@pytest.mark.parametrize("missing", ["train_labels", "val_signals"])
def test_missing_arrays_are_told(tmp_path, missing):
    write(tmp_path, {key: array for key, array in signals().items() if key != missing})
    with pytest.raises(InputError, match=f"no array '{missing}'"):
        data.load("npz:mine", tmp_path)


def test_missing_and_damaged_files_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("DETTRITON_DATA", raising=False)
    for name in ("npz:", "npz:../mine", "npz:a/b"):
        with pytest.raises(InputError, match="does not name a file"):
            data.load(name, tmp_path)
    with pytest.raises(InputError, match="name its folder"):
        data.load("npz:mine")
    with pytest.raises(InputError, match="there is no file"):
        data.load("npz:mine", tmp_path)
    write(tmp_path, signals())
    whole = (tmp_path / "mine.npz").read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "mine.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            data.load("npz:mine", tmp_path)
    np.savez_compressed(tmp_path / "mine.npz", **signals())
    packed = bytearray((tmp_path / "mine.npz").read_bytes())
    packed[200:400] = bytes(200)
    (tmp_path / "mine.npz").write_bytes(packed)
    with pytest.raises(InputError, match="cannot be read"):
        data.load("npz:mine", tmp_path)
    monkeypatch.setenv("DETTRITON_DATA", str(write(tmp_path, signals())))
    assert len(data.load("npz:mine")["train"]) == 6
