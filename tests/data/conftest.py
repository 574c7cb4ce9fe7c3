"""What the tests of PTB-XL's loader share."""

from pathlib import Path

import pytest
from made_wfdb import make_tree


@pytest.fixture
def no_folders_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Data and caches of whoever runs the tests are out of sight."""
    monkeypatch.delenv("DETTRITON_DATA", raising=False)
    monkeypatch.setenv("DETTRITON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small PTB-XL, made anew."""
    make_tree(tmp_path / "ptbxl")
    return tmp_path / "ptbxl"
