"""Inputs of benchmarks: integers of a seeded generator, so that every machine measures the same bits."""

import zlib

import torch


def bell(key: str, *shape: int) -> torch.Tensor:
    """Bell-shaped binary32 numbers in (-4, 4): four 24-bit integers added and centred, and one rounding."""
    generator = _generator(key)
    total = torch.zeros(shape, dtype=torch.int32)
    for _ in range(4):
        total += torch.randint(1 << 24, shape, generator=generator, dtype=torch.int32)
    return (total - (2 << 24)).to(torch.float32) * 2.0**-23


def classes(key: str, count: int, *shape: int) -> torch.Tensor:
    """Class numbers in [0, count), int64."""
    return torch.randint(count, shape, generator=_generator(key))


def _generator(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(key.encode()))
