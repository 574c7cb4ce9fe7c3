"""Datasets as described data, and the order in which they are visited."""

from dettriton.data.catalog import DATASETS, describe, load
from dettriton.data.dataset import ArrayDataset, DatasetInfo, dataset_sha256, to_float
from dettriton.data.order import ORDERS, epoch_order, golden_order, rotation_order, sequential_order, shuffle_order
from dettriton.data.signals import SignalDataset, SignalInfo

Dataset = ArrayDataset | SignalDataset
"""One split of a dataset."""

__all__ = [
    "DATASETS",
    "describe",
    "load",
    "ArrayDataset",
    "Dataset",
    "DatasetInfo",
    "SignalDataset",
    "SignalInfo",
    "dataset_sha256",
    "to_float",
    "ORDERS",
    "epoch_order",
    "golden_order",
    "rotation_order",
    "shuffle_order",
    "sequential_order",
]
