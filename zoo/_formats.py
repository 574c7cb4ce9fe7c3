"""The two formats a model is exported to: each is made as bytes, and read back and run."""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dettriton.errors import InputError

OPSET = 20
"""Of ONNX: the newest that the exporters of torch 2.11 and later write, and the first with Gelu."""

BATCH = "batch"
OUTPUT = "logits"
METADATA_FILE = "dettriton.json"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

TORCH_OF_ITSELF = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"The given buffer is not writable", UserWarning),
)
"""What torch 2.11's exporter and loader warn of in their own code, which no caller can change."""

Run = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: of the format.
        packages: that it needs beside torch.
        write: the file's bytes, of a program, the input's name and the metadata.
        read: what the bytes compute.
    """

    name: str
    packages: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, str, Mapping[str, str]], bytes]
    read: Callable[[bytes], Run]

    def require(self) -> None:
        """Refuse to begin without the packages.

        Raises:
            InputError: one is missing.
        """
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"{self.name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
                'pip install "dettriton[export]"'
            )


@contextmanager
def _without_warnings_of_itself() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, kind in TORCH_OF_ITSELF:
            warnings.filterwarnings("ignore", message, kind)
        yield


def program_of(model: torch.nn.Module, inputs: torch.Tensor) -> torch.export.ExportedProgram:
    """A plain model as torch.export's program for any number of samples of the inputs' shape."""
    free = torch.export.Dim(BATCH)
    with torch.no_grad():
        program = torch.export.export(model, (inputs[:2],), dynamic_shapes=({0: free},))
    for node in program.graph.nodes:
        # it says where the source lies on this machine
        node.meta.pop("stack_trace", None)
    return program


def _onnx_bytes(program: torch.export.ExportedProgram, input_name: str, metadata: Mapping[str, str]) -> bytes:
    import onnx

    # of a program that is made already, the exporter takes from dynamic_shapes what the free dimension is called
    names = {"input_names": [input_name], "output_names": [OUTPUT], "dynamic_shapes": ({0: BATCH},)}
    with _without_warnings_of_itself():
        model = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names).model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    written = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(written, full_check=True)
    return written


def _onnx_run(written: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run([OUTPUT], {taken.name: x.numpy()})[0])


def _pt2_bytes(program: torch.export.ExportedProgram, input_name: str, metadata: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(dict(metadata), sort_keys=True)})
    return buffer.getvalue()


def _pt2_run(written: bytes) -> Run:
    with _without_warnings_of_itself():
        return torch.export.load(io.BytesIO(written)).module()


ONNX = Format("ONNX", ONNX_PACKAGES, _onnx_bytes, _onnx_run)
TORCH_EXPORT = Format("torch.export", (), _pt2_bytes, _pt2_run)
