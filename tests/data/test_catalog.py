import subprocess
import sys

import pytest

from dettriton.data import DATASETS, describe, load
from dettriton.data.dataset import TASKS
from dettriton.errors import InputError


@pytest.mark.parametrize("name", DATASETS)
def test_validate_every_dataset_is_described(name):
    info = describe(name)
    assert info.name == name
    assert info.task in TASKS
    assert info.num_classes == len(set(info.classes)) >= 2
    assert list(info.samples) == ["train", "val", "test"]
    assert info.licence.startswith("CC")
    assert (info.md5 is None) == (name in ("digits", "rhythm_sim") or name.startswith("ptbxl"))


@pytest.mark.parametrize("function", [describe, load])
def test_validate_unknown_name(function):
    with pytest.raises(InputError, match="digits, rhythm_sim, pathmnist"):
        function("mnist")


def test_verify_import_and_description_are_cheap():
    code = (
        "import sys, dettriton.data as d; d.describe('bloodmnist'), d.describe('ptbxl488'); "
        "print(sorted({'sklearn', 'pandas', 'medmnist', 'torchvision', 'PIL', 'scipy', 'wfdb', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
