"""More readers: what trainings and releases record for those who check them, its chains and digests right or wrong."""

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.mutation import Form, json_bytes
from fuzz.readers import Reader, from_file

from dettriton import BITSPEC
from dettriton.compare._chain import compare_traces, read_chain
from dettriton.environment import environment
from dettriton.train._commitment import Commitment, root_of
from dettriton.train.segments import read_index
from dettriton.train.trace import float_bits, next_link
from dettriton.zoo._card import _classes as classes_text
from dettriton.zoo._class_report import read_report
from dettriton.zoo._facts import gather
from dettriton.zoo._matrix import Matrix
from dettriton.zoo._signature_file import read_signature

ORIGIN = "0" * 64


def chain(folder: Path) -> tuple[Form, Callable]:
    """The chain is computed anew over the changed records, as far as they are records."""
    named = {"a": "f" * 64, "b": "e" * 64}
    tree = [{"step": step, "loss": float_bits(1 / (step + 1))} for step in range(4)]
    tree[3]["tensors"] = named
    tree[1] |= {"outputs": [["head", "c" * 64]], "gradients": [["b", "d" * 64]], "samples": named, "initial": named}
    tree[2]["optimizer"] = named

    def write(changed: Any) -> bytes:
        lines, link = [], ORIGIN
        for record in changed if isinstance(changed, list) else [changed]:
            if isinstance(record, dict):
                chained = {key: record[key] for key in ("step", "loss", "tensors") if key in record}
                try:
                    link = next_link(link, chained)
                except (ValueError, RecursionError):
                    link = ORIGIN
                lines.append(json_bytes(record | {"chain": link}))
            else:
                lines.append(json_bytes(record))
        return b"".join(line + b"\n" for line in lines)

    valid = folder / "valid.jsonl"
    valid.write_bytes(write(tree))
    expected, _ = read_chain(valid, ORIGIN)

    def read(path: Path) -> None:
        records, _ = read_chain(path)
        json.dumps(compare_traces(expected, records).to_dict())
        json.dumps(compare_traces(records, expected).to_dict())

    return Form((write(tree),), (tree,), write), from_file(folder / "trace.jsonl", read)


def index(folder: Path) -> tuple[Form, Callable]:
    leaves = tuple(str(i) * 64 for i in range(4))
    segments = Commitment.of(3, 12, leaves).to_dict()
    tree = {"bitspec": BITSPEC, "recipe": "a" * 64, "init": "b" * 64, "segments": segments}

    def write(changed: Any) -> bytes:
        with suppress(TypeError, KeyError, ValueError, AttributeError, IndexError, ArithmeticError):
            changed["segments"]["root"] = root_of(tuple(changed["segments"]["leaves"]))
        return json_bytes(changed)

    def read(path: Path) -> None:
        found = read_index(path.parent, unfinished=True).commitment
        [found.bounds(i) for i in range(found.count)]

    return Form((write(tree),), (tree,), write), from_file(folder / "segments.json", read)


def signature(folder: Path) -> tuple[Form, Callable]:
    """The statement, which is text in the file, changes too."""
    resources = [{"name": name, "digest": "a" * 64, "algorithm": "sha256"} for name in ("weights", "manifest")]
    statement = {"predicate": {"serialization": {"method": "files"}, "resources": resources}}
    envelope = {"payload": statement, "payloadType": "application/vnd.in-toto+json", "signatures": [{"sig": "aGk="}]}
    tree = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "ab"}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    }

    def write(changed: Any) -> bytes:
        if isinstance(changed, dict) and isinstance(changed.get("dsseEnvelope"), dict):
            payload = changed["dsseEnvelope"].get("payload")
            if isinstance(payload, dict):
                text = base64.b64encode(json_bytes(payload)).decode()
                changed = changed | {"dsseEnvelope": changed["dsseEnvelope"] | {"payload": text}}
        return json_bytes(changed)

    return Form((write(tree),), (tree,), write), from_file(folder / "s.sig", read_signature)


def matrix(folder: Path) -> tuple[Form, Callable]:
    tree = {
        "benchmark": "environments",
        "device": "cpu",
        "environment": environment(),
        "results": {"a.b": {"this": {"weights_digest": "a" * 64, "trace": "b" * 64, "recipe_digest": "c" * 64}}},
    }
    return Form((json_bytes(tree),), (tree,)), from_file(folder / "environments.json", Matrix)


def class_report(folder: Path) -> tuple[Form, Callable]:
    """What is read is printed in a card."""
    facts = gather("med_cnn.digits")
    rows = [{"name": "zero", "positives": 27, "auc": 0.99, "f1": 1}, {"name": "<one>|", "positives": 0, "auc": None}]
    tree = {
        "weights_digest": facts.entry.weights_digest,
        "data": facts.info.name,
        "split": "test",
        **{key: facts.entry.test[key] for key in ("auc", "acc")},
        **{"samples": 200, "f1": 0.97, "ece": 0.01},
        "classes": [rows[0], rows[1] | {"f1": None}, rows[1] | {"f1": None, "positives": None}],
    }

    def read(path: Path) -> None:
        text = classes_text(read_report(path, facts))
        text.encode()
        assert len({line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}) == 1

    return Form((json_bytes(tree),), (tree,)), from_file(folder / "report.json", read)


READERS = {
    "chain": Reader(chain, 100, 10_000),
    "index of segments": Reader(index, 80, 6_000),
    "signature": Reader(signature, 80, 8_000),
    "matrix": Reader(matrix, 40, 3_000),
    "report of classes": Reader(class_report, 80, 6_000),
}
