"""Writing a trained model for other runtimes: as ONNX, or as a program of torch.export, checked before it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dettriton import BITSPEC, __version__, data
from dettriton.data.dataset import MULTI_LABEL, DatasetInfo
from dettriton.data.signals import SignalInfo
from dettriton.digest import file_sha256
from dettriton.errors import InputError, IntegrityError
from dettriton.files import atomic_write, load_safetensors
from dettriton.models._plain import as_plain
from dettriton.train.trained import Trained
from dettriton.zoo import _manifest
from dettriton.zoo._formats import ONNX, OUTPUT, TORCH_EXPORT, Format, Run, program_of
from dettriton.zoo._golden import golden_input
from dettriton.zoo._manifest import DamagedReleaseError
from dettriton.zoo._plain import TOLERANCE, largest_difference
from dettriton.zoo._trained import find_trained

PIXEL_FORMULAS = {"medmnist": "(v / 255 - 0.5) / 0.5", "digits": "v / 8 - 1"}
"""What :func:`dettriton.data.to_float` computes of a pixel, by kind."""

SIGNAL_FORMULA = "((raw / gain) - mean) / std"


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        format: ``"ONNX"`` or ``"torch.export"``.
        path: of the file.
        size: in bytes.
        file_sha256: as ``sha256sum`` prints it.
        largest_difference: of its logits to the exact ones on the golden batch, as a fraction of the largest logit.
        tolerance: what that may be.
        input, output: names of the input and the output.
        input_shape: of the input, after the number of samples, which is free.
    """

    format: str
    path: str
    size: int
    file_sha256: str
    largest_difference: float
    tolerance: float
    input: str
    output: str
    input_shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {"input_shape": list(self.input_shape)}


def export(
    model: str | Path,
    *,
    onnx: str | Path | None = None,
    torch_export: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
) -> tuple[Exported, ...]:
    """Write the plain inference model of a trained one, for any number of samples.

    The bytes that will be kept are read back and run on the golden batch (onnxruntime on the CPU, after
    ``onnx.checker``; torch.export's loader): the released golden vectors, or the exact logits of a run's own model. Only
    files that agree within :data:`dettriton.zoo._plain.TOLERANCE` are written. Name, digests, classes, preprocessing and
    licences travel in the file: in ONNX's ``metadata_props``, under ``dettriton.``, and in ``dettriton.json`` of a program.

    Args:
        model: a released name, or the ``--out`` directory of a finished training.
        onnx: an ONNX file to write; needs the packages of ``dettriton[export]``.
        torch_export: a file of :func:`torch.export.save` to write, usually ``.pt2``.
        force: replace files that are there.
        data_dir: the folder of a user's own data that the run was trained on.

    Raises:
        InputError: there is no such model, a file cannot be written there, or a package is missing.
        IntegrityError: the weights are not what they should be, or an exported model gives other logits.
    """
    wanted = [(kind, Path(path)) for kind, path in ((ONNX, onnx), (TORCH_EXPORT, torch_export)) if path is not None]
    _require_places([path for _, path in wanted], force)
    for kind, _ in wanted:
        kind.require()
    trained = find_trained(model)
    info = data.describe(trained.recipe.data.name, data_dir)
    inputs = golden_input(info)[1]
    exact = _golden_logits(trained, inputs, released=str(model) in _manifest.names())
    program = program_of(as_plain(trained.model), inputs)
    metadata = _metadata(trained, info)
    made = [(kind, path, kind.write(program, _input_name(info), metadata)) for kind, path in wanted]
    allowed = TOLERANCE[trained.recipe.train.precision]
    differences = [
        _checked(trained.name, kind, kind.read(written), inputs, exact, allowed) for kind, _, written in made
    ]
    for _, path, written in made:
        atomic_write(path, written)
    return tuple(
        Exported(
            format=kind.name,
            path=str(path),
            size=len(written),
            file_sha256=file_sha256(path),
            largest_difference=difference,
            tolerance=allowed,
            input=_input_name(info),
            output=OUTPUT,
            input_shape=tuple(inputs.shape[1:]),
        )
        for (kind, path, written), difference in zip(made, differences, strict=True)
    )


def _require_places(paths: list[Path], force: bool) -> None:
    if not paths:
        raise InputError("say what to write: an ONNX file (--onnx FILE), a torch.export file (--torch-export FILE)")
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"both files would be {paths[0]}; give two names")
    for path in paths:
        if not path.parent.is_dir():
            raise InputError(f"the directory {path.parent} of {path.name} does not exist; make it first")
        if path.is_dir():
            raise InputError(f"{path} is a directory; name a file in it")
        if path.exists() and not force:
            raise InputError(f"{path} exists; choose another name, or replace it (--force)")


def _golden_logits(trained: Trained, inputs: torch.Tensor, released: bool) -> torch.Tensor:
    if not released:
        with torch.no_grad():
            return trained.model(inputs)
    path, row = _manifest.golden_path(trained.name), _manifest.entry(trained.name)
    vectors, _ = load_safetensors(path)
    if file_sha256(path) != row.golden_file_sha256:
        raise DamagedReleaseError(f"{path} is not the released file; reinstall dettriton")
    return vectors["logits"]


def _checked(name: str, kind: Format, run: Run, inputs: torch.Tensor, exact: torch.Tensor, allowed: float) -> float:
    with torch.no_grad():
        logits = torch.cat((run(inputs), run(inputs[:1])))
    difference = largest_difference(logits, torch.cat((exact, exact[:1])))
    if not difference <= allowed:
        raise IntegrityError(
            f"the {kind.name} model of {name} gives other logits than its golden vectors: they differ by {difference:.2g} "
            f"of the largest, and {allowed:.2g} is allowed. Nothing was written. Please report this with the output of "
            "`dettriton doctor`"
        )
    return difference


def _input_name(info: DatasetInfo | SignalInfo) -> str:
    return "images" if isinstance(info, DatasetInfo) else "signals"


def _metadata(trained: Trained, info: DatasetInfo | SignalInfo) -> dict[str, str]:
    facts: dict[str, Any] = {
        "name": trained.name,
        "weights_digest": trained.weights_digest,
        "recipe_digest": trained.recipe.digest(),
        "bitspec": BITSPEC,
        "version": __version__,
        "model": trained.recipe.model.name,
        "dataset": info.name,
        "data_licence": info.licence,
        "task": info.task,
        "classes": list(info.classes),
        "probabilities": "sigmoid" if info.task == MULTI_LABEL else "softmax",
        "tolerance": TOLERANCE[trained.recipe.train.precision],
        "input": _preprocessing(trained, info),
    }
    return {f"dettriton.{key}": v if isinstance(v, str) else json.dumps(v, sort_keys=True) for key, v in facts.items()}


def _preprocessing(trained: Trained, info: DatasetInfo | SignalInfo) -> Mapping[str, Any]:
    if isinstance(info, DatasetInfo):
        return {"shape": list(info.image_shape), "pixels": "uint8", "formula": PIXEL_FORMULAS[info.scale]}
    return {
        "shape": list(info.signal_shape),
        "leads": list(info.leads),
        "sampling_rate": info.sampling_rate,
        "formula": SIGNAL_FORMULA,
        **trained.metadata.get("normalisation", {}),
    }
