"""What the wheel must hold. Needs the source tree; elsewhere the installed package is what every other test imports."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOTS = {"dettriton": "dettriton", "models": "dettriton.models", "zoo": "dettriton.zoo"}

pytestmark = pytest.mark.skipif(not (ROOT / "dettriton").is_dir(), reason="only tests are here, not the sources")


def source_packages() -> set[str]:
    found = set()
    for folder, package in ROOTS.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    return found


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == source_packages()


@pytest.mark.heavy
def test_the_wheel_holds_every_module_and_data_file(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {"dettriton/CONTRACT.md"}
    for folder, package in ROOTS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".safetensors", ".json") or path.parent.name == "cards":
                expected.add("/".join([*package.split("."), *path.relative_to(ROOT / folder).parts]))
    assert expected <= held
    assert {name.split("/")[0] for name in held} <= {"dettriton", wheel.name.rsplit("-", 3)[0] + ".dist-info"}


@pytest.mark.heavy
def test_the_wheel_alone_can_measure(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = "import sys, dettriton; assert 'site' in dettriton.__file__; from dettriton.cli import main; main()"
    arguments = ["bench", "--size", "small", "--op", "matmul", "--json", "out.json"]
    variables = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, env=variables, check=False)
    assert done.returncode == 0 and (tmp_path / "out.json").exists()


def test_importing_the_top_package_loads_nothing_heavy():
    script = "import sys, dettriton; print(sorted({'torch', 'triton', 'numpy', 'timm', 'medmnist'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_the_roots_of_the_mapped_packages_refuse_a_second_copy():
    for folder in ("models", "zoo"):
        script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode != 0 and f"import dettriton.{folder}" in done.stderr
