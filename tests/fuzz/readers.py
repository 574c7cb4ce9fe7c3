"""The readers of files from outside, each with valid files and what they say."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import made_results
import made_wfdb
import numpy as np
import tiny_training as tiny
import torch
from fuzz.mutation import Form, json_bytes, toml_bytes

from dettriton import zoo
from dettriton.data import _ptbxl_metadata, _signal_cache, load
from dettriton.data import describe as describe_data
from dettriton.data._download import read_sums
from dettriton.data._wfdb_record import read_record
from dettriton.digest import canonical_json, digest
from dettriton.errors import InputError
from dettriton.files import load_safetensors, safetensors_bytes
from dettriton.study._results import load_results
from dettriton.train._directory import read_result, read_run_recipe
from dettriton.train.checkpoint import Checkpoint, EpochScores, load_checkpoint
from dettriton.train.recipe import load_recipe, parse_recipe
from dettriton.train.trace import Position, Trace, first_difference, read_trace
from dettriton.zoo._rows import parse_manifest


@dataclass(frozen=True)
class Reader:
    """A reader, and how many inputs it is given each time and in the full proof."""

    make: Callable[[Path], tuple[Form, Callable[[bytes], object]]]
    few: int
    many: int


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.ones(2, 2),
        "n": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "e": torch.zeros(0),
    }


def _parts(content: bytes) -> tuple[dict, bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _whole(header: bytes, payload: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + payload


def safetensors(folder: Path) -> tuple[Form, Callable]:
    """Changed headers have their right length."""
    content = safetensors_bytes(_tensors(), {"bitspec": 1, "name": "é", "metrics": {"auc": 0.1}})
    header, payload = _parts(content)
    form = Form((content, safetensors_bytes({}, {})), (header,), lambda tree: _whole(json_bytes(tree), payload))
    return form, from_file(folder / "w.safetensors", load_safetensors)


def checkpoint(folder: Path) -> tuple[Form, Callable]:
    """Changed metadata have their right digest, and tensors other names."""
    made = Checkpoint(
        recipe_digest="r",
        init_digest="i",
        step=7,
        trace=Position("t", 12),
        traced=True,
        tensor_interval=None,
        scores=(EpochScores(0, Fraction(1, 3), Fraction(2, 7)), EpochScores(1, Fraction(1, 2), Fraction(1))),
        model={"a.weight": torch.ones(2, 2), "n": torch.tensor(3)},
        optimizer={"0.exp_avg": torch.ones(4)},
        optimizer_scalars={"0.step": 7},
        best={"a.weight": torch.zeros(2, 2)},
    )
    tree = {"metadata": made.metadata(), "tensors": {name: [*t.shape] for name, t in made.tensors().items()}}

    def write(changed: Any) -> bytes:
        try:
            metadata = json.loads(json_bytes(changed["metadata"]))
            tensors = {name: torch.ones(shape[:3]) for name, shape in changed["tensors"].items() if sum(shape) < 99}
            return safetensors_bytes(tensors, metadata | {"content": digest(tensors, metadata)})
        except (InputError, TypeError, KeyError, ValueError, AttributeError, RuntimeError, RecursionError):
            return json_bytes(changed)

    return Form((write(tree),), (tree,), write), from_file(
        folder / "checkpoint-0000000007.safetensors", load_checkpoint
    )


def recipe(folder: Path) -> tuple[Form, Callable]:
    files = [tiny.recipe_text()] + [zoo._manifest.recipe_path(name).read_text() for name in zoo.list_recipes()[:3]]
    form = Form(tuple(text.encode() for text in files), (tiny.recipe().to_dict(), tiny.TABLES), toml_bytes)
    return form, from_file(folder / "r.toml", lambda path: load_recipe(path).digest())


def run_recipe(folder: Path) -> tuple[Form, Callable]:
    tree = json.loads(canonical_json(tiny.recipe().to_dict()))
    read = from_file(folder / "recipe.json", lambda path: parse_recipe(read_run_recipe(path.parent)).digest())
    return Form((json_bytes(tree),), (tree,)), read


def run_result(folder: Path) -> tuple[Form, Callable]:
    tree = {
        "bitspec": 1,
        "weights_digest": "a" * 64,
        "weights_sha256": "b" * 64,
        "recipe_digest": "c" * 64,
        "steps": 12,
    }
    return Form((json_bytes(tree),), (tree,)), from_file(folder / "result.json", lambda path: read_result(path.parent))


def manifest(folder: Path) -> tuple[Form, Callable]:
    content = zoo._manifest.manifest_path().read_bytes()
    tree = json.loads(content)
    names = sorted(tree["entries"])[:2]
    small = tree | {"entries": {name: tree["entries"][name] for name in names}}
    return Form((json_bytes(small),), (small,)), lambda data: parse_manifest(data)


def trace(folder: Path) -> tuple[Form, Callable]:
    """One file against the valid one."""
    valid = folder / "valid.jsonl"
    with Trace(Position("0" * 64, 0), valid) as written_trace:
        for step in range(4):
            written_trace.append(step, 1.0 / (step + 1), {"a": "f" * 64, "b": "e" * 64}, ends_epoch=step == 3)
    tree = [json.loads(line) for line in valid.read_bytes().splitlines()]

    def write(changed: Any) -> bytes:
        lines = changed if isinstance(changed, list) else [changed]
        return b"".join(json_bytes(line) + b"\n" for line in lines)

    def read(path: Path) -> None:
        read_trace(path)
        first_difference(valid, path)

    return Form((valid.read_bytes(),), (tree,), write), from_file(folder / "trace.jsonl", read)


def own_data(folder: Path) -> tuple[Form, Callable]:
    """Shapes and types of the arrays change."""
    sizes = {"train": 4, "val": 2, "test": 2}
    tree = {f"{split}_labels": [[n], "int64", 0] for split, n in sizes.items()}
    images = tree | {f"{split}_images": [[n, 3, 3], "uint8", 1] for split, n in sizes.items()}
    signals = {f"{split}_signals": [[n, 2, 9], "int16", 1] for split, n in sizes.items()}
    extra = {
        "gain": [[2], "float32", 1],
        "leads": [[2], "U3", 0],
        "classes": [[4], "U3", 0],
        "sampling_rate": [[], "int64", 9],
    }

    def write(changed: Any) -> bytes:
        buffer = io.BytesIO()
        try:
            np.savez(buffer, **{key: _array(*described) for key, described in changed.items()})
        except (TypeError, ValueError, AttributeError, OverflowError, MemoryError, OSError):
            return json_bytes(changed)
        return buffer.getvalue()

    def read(path: Path) -> None:
        splits = load("npz:mine", path.parent)
        splits["train"].inputs()
        describe_data("npz:mine", path.parent)

    trees = (images, tree | signals | extra)
    return Form(tuple(map(write, trees)), trees, write), from_file(folder / "mine.npz", read)


def _array(shape: list[int], kind: str, fill: Any) -> np.ndarray:
    if np.prod(np.array(shape, float)) > 10_000:
        raise ValueError("too large for a test")
    array = np.zeros(shape, kind)
    array.reshape(-1)[:] = np.arange(array.size) % 3 if fill in (0, 1) and array.dtype.kind in "iuf" else fill
    return array if array.dtype.kind != "f" else array + 1


def sums(folder: Path) -> tuple[Form, Callable]:
    content = f"{'a' * 64} records100/00000/00001_lr.dat\n{'b' * 64} *LICENSE.txt\n".encode()
    return Form((content,)), from_file(folder / "SHA256SUMS.txt", read_sums)


def tables(folder: Path) -> tuple[Form, Callable]:
    path = folder / "scp_statements.csv"
    path.write_text(made_wfdb.statements())
    statements = _ptbxl_metadata.read_statements(path)
    read = from_file(folder / "ptbxl_database.csv", lambda path: _ptbxl_metadata.read_database(path, statements))
    return Form((made_wfdb.database(made_wfdb.ROWS).encode(),)), read


def statements(folder: Path) -> tuple[Form, Callable]:
    return Form((made_wfdb.statements().encode(),)), from_file(folder / "s.csv", _ptbxl_metadata.read_statements)


def wfdb_header(folder: Path) -> tuple[Form, Callable]:
    made_wfdb.write_record(folder / "one", made_wfdb.noise(1, 50, 3), made_wfdb.LEADS[:3], comments=["Dx: 426783006"])
    valid = (folder / "one.hea").read_bytes()
    return Form((valid,)), from_file(folder / "one.hea", lambda path: read_record(path.with_suffix(""), "one"))


def study(folder: Path) -> tuple[Form, Callable]:
    made = made_results.arms(dct=[0.5, 0.75], kaiming=[0.25, 1.0])
    tree = {"study": made.study, "runs": made.runs, "circumstances": {}}
    return Form((json_bytes(tree),), (tree,)), from_file(
        folder / "results.json", lambda path: load_results(path.parent)
    )


def signal_cache(folder: Path) -> tuple[Form, Callable]:
    """Whatever lies in the cache, the signals are those of the records."""
    signals = made_wfdb.noise(1, 20, 6).reshape(2, 3, 20)

    def fill() -> None:
        found = np.zeros_like(signals)
        _signal_cache.fill(found, ["a", "b"], lambda i: signals[i], {}, folder)
        assert (found == signals).all()

    fill()
    (path,) = folder.glob("*.safetensors")

    def write(changed: Any) -> bytes:
        try:
            dtype = getattr(torch, changed["dtype"])
            shape = changed["shape"]
            if math.prod(map(int, shape)) > 10_000:
                return json_bytes(changed)
            tensors = {changed["name"]: torch.zeros(shape, dtype=dtype)}
            return safetensors_bytes(tensors, {"digest": digest(tensors)})
        except (InputError, TypeError, KeyError, ValueError, AttributeError, RuntimeError, OverflowError):
            return json_bytes(changed)

    trees = tuple({"name": "signals", "shape": [2, 3, 20], "dtype": dtype} for dtype in ("int32", "bfloat16", "bool"))
    return Form((path.read_bytes(),), trees, write), from_file(path, lambda _: fill())


READERS = {
    "safetensors": Reader(safetensors, 300, 25_000),
    "checkpoint": Reader(checkpoint, 200, 15_000),
    "recipe": Reader(recipe, 300, 25_000),
    "recipe of a run": Reader(run_recipe, 150, 10_000),
    "result of a run": Reader(run_result, 100, 5_000),
    "manifest": Reader(manifest, 250, 20_000),
    "trace": Reader(trace, 250, 20_000),
    "own data": Reader(own_data, 100, 8_000),
    "checksums": Reader(sums, 100, 3_000),
    "PTB-XL's table": Reader(tables, 100, 6_000),
    "PTB-XL's statements": Reader(statements, 30, 2_000),
    "WFDB header": Reader(wfdb_header, 40, 3_000),
    "results of a study": Reader(study, 80, 4_000),
    "signal cache": Reader(signal_cache, 60, 4_000),
}


def from_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """The reader of a path as one of bytes."""

    def run(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return run
