"""The files that the manifest speaks of: a wrong byte is told by name, and so is a file that belongs to no row."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny_training as tiny
from click.testing import CliRunner

from dettriton import zoo
from dettriton.cli import main
from dettriton.digest import tensor_digest
from dettriton.errors import InputError
from dettriton.files import load_safetensors
from dettriton.zoo import _manifest

NAME = "tiny.made"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    with pytest.MonkeyPatch.context() as patch:
        tiny.release(patch.setattr, folder)
    return folder


@pytest.fixture
def root(released, monkeypatch, tmp_path):
    tiny.install(monkeypatch.setattr)
    shutil.copytree(released, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(_manifest, "ROOT", tmp_path / "zoo")
    return tmp_path / "zoo"


def offsets(path):
    """Where each tensor's bytes lie in the file, and where the header ends."""
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:header])
    entries.pop("__metadata__")
    return {name: [header + o for o in entry["data_offsets"]] for name, entry in entries.items()}, header


def flip(path, position, bit=1):
    content = bytearray(path.read_bytes())
    content[position] ^= bit
    path.write_bytes(content)


def told(name=NAME):
    with pytest.raises(zoo.DamagedReleaseError, match="is not the released one") as raised:
        zoo.load(name)
    return str(raised.value)


def test_verify_a_wrong_byte_of_any_tensor_names_it(root):
    path = root / f"weights/{NAME}.safetensors"
    places, _ = offsets(path)
    assert len(places) == 9
    for name, (begin, end) in places.items():
        for position in (begin, end - 1):
            flip(path, position)
            assert told().endswith(f"The tensor {name} is wrong")
            flip(path, position)
    assert zoo.load(NAME) is not None


def test_verify_several_wrong_tensors_are_counted(root):
    path = root / f"weights/{NAME}.safetensors"
    for begin, _ in offsets(path)[0].values():
        flip(path, begin)
    assert told().endswith("The tensor first.bias is wrong (and 8 more)")


def test_verify_every_wrong_byte_of_the_header_is_told(root):
    path = root / f"weights/{NAME}.safetensors"
    _, header = offsets(path)
    kinds = set()
    for position in range(0, header, 23):
        flip(path, position)
        kinds.add(told().partition("Reinstall dettriton. ")[2].partition(" ")[0])
        flip(path, position)
    assert kinds == {"Its", "All", "The"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b'\\"best_epoch\\":', b'\\"best_epocH\\":', "its header or metadata is not"),
        (b'"head.bias"', b'"head.bIas"', "The tensor head.bIas was not released (and 1 more)"),
        (b'"first.weight"', b'"nirst.weight"', "The tensor first.weight is missing (and 1 more)"),
        (b'{"__metadata__"', b'["__metadata__"', "Its header is damaged"),
    ],
)
def test_verify_a_wrong_header_is_told_apart(root, old, new, expected):
    path = root / f"weights/{NAME}.safetensors"
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    assert told().endswith(expected)


def test_verify_a_row_without_digests_of_tensors_says_so(root):
    _manifest.write_manifest({NAME: replace(zoo.entry(NAME), tensors=None)})
    assert zoo.check(NAME).ok
    flip(root / f"weights/{NAME}.safetensors", -1)
    assert "no digests of single tensors" in told()


@pytest.mark.parametrize("change", [{"tensors": {"head.bias": "0" * 64}}, {"best_epoch": 3}, {"best_epoch": 200}])
def test_verify_rows_that_contradict_their_files_are_found(root, change):
    assert zoo.check(NAME).ok
    _manifest.write_manifest({NAME: replace(zoo.entry(NAME), **change)})
    assert not zoo.check(NAME).ok


@pytest.mark.parametrize(
    "path",
    [
        *("weights/other.made.safetensors", "weights/notes.txt", "weights/.hidden", f"weights/{NAME}.segments/x"),
        *("recipes/notes.txt", "recipes/broken.made.toml", "recipes/plain.toml"),
    ],
)
def test_verify_files_of_no_row_are_found(root, path):
    assert zoo.check_folder().problem is None
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text("x")
    assert str(root / path).removesuffix("/x") in zoo.check_folder().problem


def test_verify_a_manifest_edited_by_hand_is_found(root):
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert zoo.load(NAME) is not None
    assert "not in canonical form" in zoo.check_folder().problem
    path.write_text("{")
    assert "not a manifest" in zoo.check_folder().problem


def test_verify_command_checks_the_folder_too(root):
    assert CliRunner().invoke(main, ["zoo", "check"]).exit_code == 0
    (root / "weights/stray.bin").write_text("x")
    result = CliRunner().invoke(main, ["zoo", "check", NAME, "--json"])
    assert result.exit_code == 1
    outcome = json.loads(result.stdout)
    assert outcome[NAME]["ok"] is True and "stray.bin" in outcome["manifest"]["problem"]
    (root / "manifest.json").write_text("{")
    result = CliRunner().invoke(main, ["zoo", "check"])
    assert result.exit_code == 1 and "not a manifest" in result.stdout


def test_verify_unsafe_names_are_not_released(root, tmp_path):
    with pytest.raises(InputError, match="cannot name a model"):
        zoo.release(tmp_path / f"{NAME}.toml", tmp_path / "run", name="../evil.made")


def test_verify_this_zoo_is_whole():
    assert zoo.check_folder().problem is None
    for name in zoo.names():
        tensors, _ = load_safetensors(_manifest.weights_path(name))
        assert {n: tensor_digest(n, t) for n, t in tensors.items()} == zoo.entry(name).tensors
