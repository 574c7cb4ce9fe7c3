import json
import os
import struct
import tracemalloc

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dettriton import files
from dettriton.digest import digest, file_sha256, first_difference
from dettriton.errors import InputError
from dettriton.files import atomic_write, load_safetensors, remove_partial, save_safetensors

METADATA = {"bitspec": 1, "name": "é", "metrics": {"auc": 0.1}}


def sample_tensors() -> dict[str, torch.Tensor]:
    return {
        "mask": torch.tensor([True, False, True]),
        "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "bias": torch.tensor([-0.0, float("nan")]),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "é\n": torch.tensor([1, 2, 3], dtype=torch.uint8),
    }


@pytest.fixture(scope="module")
def valid_file(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "w.safetensors"
    save_safetensors(path, sample_tensors(), METADATA)
    return path.read_bytes()


def build(header: object, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def with_metadata(**tensors) -> dict:
    return {"__metadata__": {"dettriton": "{}"}, **tensors}


def test_verify_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, sample_tensors(), METADATA)
    loaded, metadata = load_safetensors(path)
    assert first_difference(loaded, sample_tensors()) is None
    assert metadata == METADATA
    loaded["weight"].add_(1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_verify_bytes_depend_on_content_only(tmp_path):
    tensors = sample_tensors()
    reordered = dict(sorted(tensors.items(), reverse=True))
    reordered["weight"] = tensors["weight"].t().contiguous().t()
    save_safetensors(tmp_path / "a", tensors, METADATA)
    save_safetensors(tmp_path / "b", reordered, dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert file_sha256(tmp_path / "a") == "eb6b3068e286d1f0e9d51c870b4b555e5ed0b3a8325ba9ac0c6fbab6c1d44bf6"


def test_corroborate_the_safetensors_library_reads_it(valid_file):
    assert first_difference(safetensors.torch.load(valid_file), sample_tensors()) is None


def test_corroborate_the_library_writes_the_same_bytes(tmp_path):
    tensors = {"b": torch.ones(3), "a": torch.tensor([1, 2]), "c.w": torch.zeros(2, 2), "u": torch.ones(3).byte()}
    theirs = safetensors.torch.save(tensors, metadata={"dettriton": '{"k":"é\\""}'})
    save_safetensors(tmp_path / "w", tensors, {"k": 'é"'})
    assert (tmp_path / "w").read_bytes() == theirs


def test_verify_empty_file_of_no_tensors(tmp_path):
    save_safetensors(tmp_path / "w", {}, {})
    assert load_safetensors(tmp_path / "w") == ({}, {})


CORRUPT = {
    "nothing": b"",
    "short prefix": b"\x01\x00",
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "header length of 2**64 - 1": b"\xff" * 8 + b"{}",
    "not JSON": build(b"{nope"),
    "not UTF-8": build(b'{"\xff": 1}'),
    "not an object": build([1, 2]),
    "deep nesting": build(b"[" * 200_000),
    "long integer": build(b'{"a":' + b"9" * 5000 + b"}"),
    "repeated key": build(b'{"__metadata__":{"dettriton":"{}"},"__metadata__":{"dettriton":"{}"}}'),
    "no metadata": build({"a": entry()}, b"\0" * 8),
    "foreign metadata": build({"__metadata__": {"format": "pt"}, "a": entry()}, b"\0" * 8),
    "two metadata keys": build({"__metadata__": {"dettriton": "{}", "format": "pt"}}),
    "metadata not a string": build({"__metadata__": {"dettriton": {}}}),
    "metadata not JSON": build({"__metadata__": {"dettriton": "{"}}),
    "metadata not an object": build({"__metadata__": {"dettriton": "[]"}}),
    "metadata with NaN": build({"__metadata__": {"dettriton": '{"a":NaN}'}}),
    "metadata overflows": build({"__metadata__": {"dettriton": '{"a":1e999}'}}),
    "metadata not canonical": build({"__metadata__": {"dettriton": '{"a": 1}'}}),
    "metadata surrogate": build({"__metadata__": {"dettriton": '{"a":"\\ud800"}'}}),
    "unknown dtype": build(with_metadata(a=entry("F31")), b"\0" * 8),
    "dtype not a string": build(with_metadata(a=entry(["F32"])), b"\0" * 8),
    "entry not an object": build(with_metadata(a=3)),
    "extra entry key": build(with_metadata(a={**entry(), "x": 1}), b"\0" * 8),
    "negative dimension": build(with_metadata(a=entry(shape=(-2,))), b"\0" * 8),
    "float dimension": build(with_metadata(a=entry(shape=(2.0,))), b"\0" * 8),
    "bool dimension": build(with_metadata(a=entry(shape=(True, 2))), b"\0" * 8),
    "shape larger than the payload": build(with_metadata(a=entry(shape=(2**40,))), b"\0" * 8),
    "empty but overflowing": build(with_metadata(a=entry(shape=(0, 2**62, 2**62), offsets=(0, 0)))),
    "too many dimensions": build(with_metadata(a=entry(shape=(1,) * 65, offsets=(0, 4))), b"\0" * 4),
    "three offsets": build(with_metadata(a=entry(offsets=(0, 8, 8))), b"\0" * 8),
    "reversed offsets": build(with_metadata(a=entry(shape=(0,), offsets=(8, 0))), b"\0" * 8),
    "a gap": build(with_metadata(a=entry(), b=entry(offsets=(12, 20))), b"\0" * 20),
    "an overlap": build(with_metadata(a=entry(), b=entry(offsets=(4, 12))), b"\0" * 12),
    "past the end": build(with_metadata(a=entry()), b"\0" * 7),
    "bytes nobody claims": build(with_metadata(a=entry()), b"\0" * 9),
    "surrogate name": build(with_metadata(**{"\ud800": entry()}), b"\0" * 8),
    "a bool of 2": build(with_metadata(a=entry("BOOL", offsets=(0, 2))), b"\1\2"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_validate_a_lying_file_is_refused(tmp_path, name):
    path = tmp_path / "w.safetensors"
    path.write_bytes(CORRUPT[name])
    with pytest.raises(InputError) as caught:
        load_safetensors(path)
    assert str(path) in str(caught.value)
    assert "fetch it again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["header longer than the file", "header length of 2**64 - 1"])
def test_validate_header_length_is_checked_before_reading(tmp_path, name):
    (tmp_path / "w").write_bytes(CORRUPT[name])
    with pytest.raises(InputError, match="header length says"):
        load_safetensors(tmp_path / "w")


LENGTHS = {"2**60": 2**60, "one byte too many": 93, "99 MB": 99_000_000, "101 MB": 101_000_000, "2**64 - 1": 2**64 - 1}


@pytest.mark.parametrize("kind", LENGTHS)
def test_validate_a_lying_header_length_takes_no_memory(tmp_path, kind):
    (tmp_path / "w").write_bytes(struct.pack("<Q", LENGTHS[kind]) + b" " * 92)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=f"header length says {LENGTHS[kind]} bytes in a file of 100"):
            load_safetensors(tmp_path / "w")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_validate_a_header_beyond_the_limit_is_refused_before_it_is_read(tmp_path):
    """A file that really has so many bytes, all of them a hole."""
    with open(tmp_path / "w", "wb") as file:
        file.write(struct.pack("<Q", 10**9))
        file.truncate(10**9 + 8)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="limit 100000000"):
            load_safetensors(tmp_path / "w")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_validate_truncation_is_refused(tmp_path, valid_file):
    path = tmp_path / "w"
    for length in range(0, len(valid_file), 3):
        path.write_bytes(valid_file[:length])
        with pytest.raises(InputError):
            load_safetensors(path)


def test_validate_header_cap_is_checked_before_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_HEADER_BYTES", 10)
    (tmp_path / "w").write_bytes(build(with_metadata()))
    with pytest.raises(InputError, match="limit 10"):
        load_safetensors(tmp_path / "w")


edits = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.sampled_from(["flip", "insert", "delete"])),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(edits)
def test_validate_random_damage_is_refused_or_harmless(tmp_path_factory, valid_file, changes):
    data = bytearray(valid_file)
    for where, value, kind in changes:
        position = int(where * len(data))
        if kind == "flip":
            data[position] ^= value
        elif kind == "insert":
            data.insert(position, value)
        else:
            del data[position]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data)
    try:
        tensors, metadata = load_safetensors(path)
    except InputError:
        return
    header = 8 + struct.unpack("<Q", valid_file[:8])[0]
    assert (
        digest(tensors, metadata) != digest(sample_tensors(), METADATA)
        or data[:header] != valid_file[:header]
        or (bytes(data) == valid_file)
    )


def test_validate_missing_file_and_directory(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            load_safetensors(path)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"a": torch.tensor([1j])}, {}),
        ({"__metadata__": torch.zeros(1)}, {}),
        ({"a": torch.zeros((1,) * 65)}, {}),
        ({"a": torch.zeros(1)}, {"x": float("nan")}),
    ],
    ids=["dtype", "name", "dimensions", "metadata"],
)
def test_validate_unsavable_leaves_no_file(tmp_path, tensors, metadata):
    with pytest.raises(InputError):
        save_safetensors(tmp_path / "w", tensors, metadata)
    assert not list(tmp_path.iterdir())


def test_verify_atomic_write_replaces(tmp_path):
    path = tmp_path / "f"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_verify_failed_write_keeps_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "f"
    atomic_write(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(InputError, match="No space left"):
        atomic_write(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_validate_missing_directory(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        atomic_write(tmp_path / "missing" / "f", b"")


def test_verify_leftovers_of_killed_writers_are_removed(tmp_path, monkeypatch):
    atomic_write(tmp_path / "f", b"whole")
    atomic_write(tmp_path / "f.2", b"other")

    def killed(self, missing_ok=False):
        raise KeyboardInterrupt

    for name in ("f", "f.2"):
        with monkeypatch.context() as context:
            context.setattr(os, "replace", killed)
            context.setattr(files.Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                atomic_write(tmp_path / name, b"part")
    assert len(list(tmp_path.iterdir())) == 4
    remove_partial(tmp_path / "f")
    left = {entry.name for entry in tmp_path.iterdir()}
    assert len(left) == 3
    assert {"f", "f.2"} < left
