"""A disk that is full or cannot be written: a clear error, whole checkpoints, and the same bits once there is space."""

import errno
import os
import resource
import subprocess
from contextlib import contextmanager

import pytest
from tiny_training import files

from dettriton.errors import InputError
from dettriton.train import trainer
from dettriton.train.checkpoint import checkpoint_paths, load_checkpoint, save_checkpoint


@contextmanager
def files_of_at_most(size):
    """The kernel refuses to let a file grow beyond a size, as it would on a full disk; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sizes(go, monkeypatch, **options):
    """The size of each checkpoint of a whole run by its step, and of its trace."""
    found = {}

    def save(directory, checkpoint):
        path = save_checkpoint(directory, checkpoint)
        found[checkpoint.step] = path.stat().st_size
        return path

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save)
        result = go(out="whole", **options)
    return found, (result.weights_path.parent / "trace.jsonl").stat().st_size


def test_verify_no_space_for_a_checkpoint(go, tmp_path, monkeypatch):
    of_step, _ = sizes(go, monkeypatch, checkpoint_steps=1)
    # from the first epoch's end on, a checkpoint has the best weights too
    assert of_step[3] < of_step[4] - 100
    with (
        files_of_at_most(of_step[4] - 100),
        pytest.raises(InputError, match=r"cannot write .*checkpoint-0000000004.safetensors: .*has space"),
    ):
        go(checkpoint_steps=1)
    left = checkpoint_paths(tmp_path / "run")
    assert [load_checkpoint(path).step for path in left] == [3, 2]
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.endswith(".partial")]
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


def test_verify_no_space_for_the_trace(go, tmp_path, monkeypatch):
    of_step, trace = sizes(go, monkeypatch, tensor_interval=1)
    assert max(of_step.values()) < trace - 100
    with (
        files_of_at_most(trace - 100),
        pytest.raises(InputError, match=r"cannot write the trace .*has space.*--resume"),
    ):
        go(tensor_interval=1)
    newest, *_ = checkpoint_paths(tmp_path / "run")
    assert load_checkpoint(newest).step == 8
    go(resume=True, tensor_interval=1)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


@pytest.mark.parametrize("count", [*(pytest.param(n, marks=[pytest.mark.heavy] * (n != 7)) for n in range(1, 16))])
def test_verify_no_space_at_any_write(go, tmp_path, monkeypatch, count):
    """Each flush to the disk in turn is the one that fails."""
    go(out="whole")
    whole, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="No space left on device"):
        go()
    monkeypatch.setattr(os, "fsync", whole)
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.endswith(".partial")]
    for path in checkpoint_paths(tmp_path / "run"):
        load_checkpoint(path)
    go(resume=True)
    assert files(tmp_path / "whole") == files(tmp_path / "run")


@pytest.mark.parametrize("place", ["file", "file/below", "link"])
def test_verify_a_place_that_is_no_directory(go, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot use .*choose another --out"):
        go(out=place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_verify_a_directory_without_permission(go, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(InputError, match=r"Permission denied; choose another --out"):
        go(out="closed")


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 32 KiB in ``run``."""
    (tmp_path / "run").mkdir()
    mount("-t", "tmpfs", "-o", "size=32k", "dettriton-test", str(tmp_path / "run"))
    yield tmp_path / "run"
    subprocess.run(["umount", str(tmp_path / "run")], check=True)


@pytest.mark.heavy
def test_verify_a_disk_that_is_really_full_and_then_read_only(go, tmp_path, small_disk):
    go(out="whole", tensor_interval=1)
    with pytest.raises(InputError, match="No space left on device"):
        go(tensor_interval=1)
    kept = checkpoint_paths(small_disk)
    assert kept
    for path in kept:
        load_checkpoint(path)
    mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(InputError, match=r"Read-only file system; choose another --out"):
        go(resume=True, tensor_interval=1)
    mount("-o", "remount,rw,size=4m", str(small_disk))
    go(resume=True, tensor_interval=1)
    assert files(tmp_path / "whole") == files(small_disk)
