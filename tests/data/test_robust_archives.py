"""Archives and headers made to do harm: refused before they take memory, and nothing is read or written outside."""

import io
import stat
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from made_wfdb import noise, write_record

from dettriton import data
from dettriton.data import _npz, _signal_cache
from dettriton.data._download import fetch_all, is_inside, read_sums
from dettriton.data._npz import UNREADABLE, read_npz
from dettriton.data._wfdb_record import load_wfdb, read_record
from dettriton.digest import digest
from dettriton.errors import InputError
from dettriton.files import save_safetensors

MEBIBYTE = 1 << 20


@contextmanager
def at_most(size):
    """Python and NumPy take no more memory than that."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def npy(array=None, header=None):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(6) if array is None else array)
    content = buffer.getvalue()
    return content if header is None else content.replace(b"(6,)", header, 1)


def archive(*members, compression=zipfile.ZIP_DEFLATED):
    """Members are names and contents; a name may be a ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def wrong_size(content):
    """The directory at the archive's end says that the first member is 1 TiB short of 4 GiB large."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 24] + struct.pack("<I", 0xFFFFFFFE) + content[at + 28 :]


HARMFUL = {
    "a path": archive(("../x.npy", npy())),
    "an absolute path": archive(("/tmp/x.npy", npy())),
    "a folder": archive(("a/x.npy", npy())),
    "another system's path": archive(("..\\x.npy", npy())),
    "a drive": archive(("c:x.npy", npy())),
    "a link": archive(link("x.npy", "/etc/passwd")),
    "no array": archive(("x", npy())),
    "a program": archive(("setup.py", "print()")),
    "objects": archive(("x.npy", npy(np.array([None, {}], dtype=object)))),
    "text": archive(("x.npy", b"text")),
    "empty": archive(("x.npy", b"")),
    "2**60 elements": archive(("x.npy", npy(header=b"(1152921504606846976,)"))),
    "10**10 elements": archive(("x.npy", npy(header=b"(10000000000,)"))),
    "fewer elements": archive(("x.npy", npy(header=b"(5,)"))),
    "a negative shape": archive(("x.npy", npy(header=b"(-6,)"))),
    "a newer version": archive(("x.npy", npy().replace(b"NUMPY\1", b"NUMPY\3", 1))),
    "a size that lies": wrong_size(archive(("x.npy", npy()))),
    "encrypted": archive(("x.npy", npy())).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
    "twice": archive(("x.npy", npy()), ("y.npy", npy())).replace(b"y.npy", b"x.npy"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_validate_a_harmful_archive_is_refused(tmp_path, monkeypatch, kind):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/mine.npz").write_bytes(HARMFUL[kind])
    with at_most(MEBIBYTE):
        with pytest.raises(UNREADABLE):
            read_npz(HARMFUL[kind])
        with pytest.raises(InputError, match="cannot be read as an npz archive") as raised:
            data.load("npz:mine", tmp_path / "d")
    assert len(str(raised.value)) < 500
    assert [*tmp_path.rglob("*")] == [tmp_path / "d", tmp_path / "d/mine.npz"]


def test_verify_a_harmless_archive_is_read():
    assert np.array_equal(read_npz(archive(("x.npy", npy())))["x"], np.arange(6))
    assert np.array_equal(read_npz(archive(("x.npy", npy()), compression=zipfile.ZIP_STORED))["x"], np.arange(6))


def test_validate_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    """Its arrays are what their headers say, only the whole is too large; the limit is lowered, not the check."""
    monkeypatch.setattr(_npz, "SMALL", 2 * MEBIBYTE)
    zeros = npy(np.zeros(3 * MEBIBYTE, np.uint8))
    bomb = archive(("x.npy", zeros), ("y.npy", zeros))
    assert len(zeros) > _npz.MOST_EXPANSION * len(bomb)
    with at_most(MEBIBYTE), pytest.raises(ValueError, match=r"unpack to 6291\d{3}"):
        read_npz(bomb)
    stored = archive(("x.npy", zeros), compression=zipfile.ZIP_STORED)
    assert read_npz(stored)["x"].size == 3 * MEBIBYTE


def own(**changes):
    made = {f"{split}_images": np.zeros((4, 3, 3), np.uint8) for split in ("train", "val", "test")}
    made |= {f"{split}_labels": np.array([0, 1, 2, 1]) for split in ("train", "val", "test")}
    buffer = io.BytesIO()
    np.savez(buffer, **made | changes)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"val_labels": np.array([0, 1, 2, 2**62])}, "4611686018427387905 classes, and there may be 65536"),
        ({"classes": np.array("abc")}, r"classes is \(\) <U3, expected a row"),
        ({"classes": np.zeros((2, 2), "U1")}, "expected a row of strings"),
        ({"classes": np.zeros(3, "S1")}, "expected a row of strings"),
    ],
)
def test_validate_own_data_that_asks_for_too_much(tmp_path, changes, told):
    (tmp_path / "mine.npz").write_bytes(own(**changes))
    with at_most(4 * MEBIBYTE), pytest.raises(InputError, match=told):
        data.load("npz:mine", tmp_path)


OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "a//b", "..", "", "a\\..\\x", "c:/x", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_validate_names_that_lead_outside(tmp_path, name):
    assert not is_inside(name)
    with pytest.raises(InputError, match="not the name of a file below"):
        fetch_all("http://127.0.0.1:9/", {"fine": "0" * 64, name: None}, tmp_path / "d", "")
    assert not [*tmp_path.iterdir()]
    if name:
        (tmp_path / "SHA256SUMS.txt").write_text(f"{'0' * 64} {name}\n")
        with pytest.raises(InputError, match=r"line 1 names .* outside its folder"):
            read_sums(tmp_path / "SHA256SUMS.txt")


def test_verify_names_that_stay_inside():
    assert all(map(is_inside, ("a", "a/b.dat", "./a", ".a", "a..b", "records100/00000/00001_lr.hea")))


TWO = ("I", "II")


def header(folder, *replacements, name="one"):
    write_record(folder / name, noise(1, 100, 2), TWO)
    path = folder / f"{name}.hea"
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder / name


WFDB = {
    "a file above": (("one.dat", "../secret.dat"), "is not a plain name"),
    "an absolute file": (("one.dat", "/etc/passwd"), "is not a plain name"),
    "an address": (("one.dat", "http://127.0.0.1:9/x"), "is not a plain name"),
    "a chain of protocols": (("one.dat", "zip://x::http://127.0.0.1:9/x"), "is not a plain name"),
    "a folder": (("one.dat", ".."), "is not a plain name"),
    "another segment": (("one 2", "one/2 2"), "is not one segment"),
    "10**8 signals": (("one 2", "one 99999999"), "says 99999999 signals and describes 2"),
    "10**11 samples": (("100 100\n", "100 99999999999\n"), "is short"),
    "10**30 samples": (("100 100\n", f"100 {'9' * 30}\n"), "is short"),
    "10**9 samples in a frame": ((".dat 16 ", ".dat 16x999999999 "), "several samples in a frame"),
    "a skew of 10**9": ((".dat 16 ", ".dat 16:999999999 "), "a skew"),
    "an infinite rate": (("2 100 100", "2 1e400 100"), "is not a number"),
    "an infinite gain": (("1000.0(0)", "1e400(0)"), "out of all proportion"),
    "a gain of nothing": (("1000.0(0)", "nan(0)"), "is not a number"),
    "a baseline of 10**22": (("(0)", f"({'9' * 22})"), "is not a number"),
    "2 MiB": (("one 2", "#" + "x" * 2 * MEBIBYTE + "\none 2"), "too long"),
}


@pytest.mark.parametrize("kind", WFDB)
def test_validate_a_harmful_header_is_refused(tmp_path, kind):
    (tmp_path / "d").mkdir()
    (tmp_path / "secret.dat").write_bytes(noise(1, 100, 2).T.tobytes())
    replacement, told = WFDB[kind]
    path = header(tmp_path / "d", replacement)
    load_wfdb()
    with at_most(8 * MEBIBYTE), pytest.raises(InputError, match=told) as raised:
        read_record(path, "one")
    assert "\n" not in str(raised.value)


def test_verify_a_harmless_header_is_read(tmp_path):
    assert np.array_equal(read_record(header(tmp_path), "one").samples, noise(1, 100, 2))


def test_verify_a_cache_of_another_type_is_made_again(tmp_path):
    signals = noise(1, 20, 6).reshape(2, 3, 20)

    def fill():
        found = np.zeros_like(signals)
        _signal_cache.fill(found, ["a", "b"], lambda i: signals[i], {}, tmp_path)
        assert np.array_equal(found, signals)

    fill()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for dtype in (torch.bfloat16, torch.int32, torch.bool):
        tensors = {"signals": torch.zeros(2, 3, 20, dtype=dtype)}
        save_safetensors(path, tensors, {"digest": digest(tensors)})
        with pytest.warns(UserWarning, match="damaged cache file is made again"):
            fill()
        assert path.read_bytes() == whole
