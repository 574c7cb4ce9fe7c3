"""Signature files: Sigstore bundles with an in-toto statement, as the OpenSSF model-signing library writes them."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dettriton.errors import InputError, IntegrityError

_MAX_BYTES = 16 << 20


class SignatureError(IntegrityError):
    """Files that are not those that were signed, or a signature that is not by whom it should be."""


@dataclass(frozen=True)
class SignatureFile:
    """What a signature file says, before anything of it is verified.

    Attributes:
        key_sha256: of the signer's public key in PEM form; None if certificates say who signed.
        certificates: the signer's X.509 certificate and those that follow it, DER; empty if a bare key signed.
        files: SHA-256 by path of what was signed.
        content: the file, written anew with nothing in it but what was read here: what the signing library sees is what
            is seen here, even where the file says one thing twice.
    """

    key_sha256: str | None
    certificates: tuple[bytes, ...]
    files: Mapping[str, str]
    content: bytes


def read_signature(path: Path) -> SignatureFile:
    """Read a signature file.

    Raises:
        InputError: it cannot be read.
        SignatureError: it is not a signature of a model.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the signature {path}: {error.strerror}. Check the path") from error
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        return _parse(json.loads(data))
    except KeyError as error:
        problem = f"it has no {error}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = str(error)
    raise SignatureError(
        f"{path} is not a signature of a model: {problem}. It is damaged or of another kind; fetch it again"
    )


def _parse(bundle: Any) -> SignatureFile:
    material, envelope = bundle["verificationMaterial"], bundle["dsseEnvelope"]
    (signature,) = envelope["signatures"]
    payload = _bytes(envelope["payload"])
    key_sha256, certificates = None, ()
    if "x509CertificateChain" in material:
        certificates = tuple(_bytes(c["rawBytes"]) for c in material["x509CertificateChain"]["certificates"])
        if not certificates:
            raise ValueError("its chain has no certificates")
        proof = {"x509CertificateChain": {"certificates": [{"rawBytes": _text(c)} for c in certificates]}}
    else:
        key_sha256 = str(material["publicKey"]["hint"])
        proof = {"publicKey": {"hint": key_sha256}}
    content = {
        "mediaType": bundle["mediaType"],
        "verificationMaterial": proof | {"tlogEntries": []},
        "dsseEnvelope": {
            "payload": _text(payload),
            "payloadType": envelope["payloadType"],
            "signatures": [{"sig": _text(_bytes(signature["sig"])), "keyid": ""}],
        },
    }
    predicate = json.loads(payload)["predicate"]
    if predicate["serialization"]["method"] != "files":
        raise ValueError("it is over parts of files; sign whole files")
    files = {str(r["name"]): str(r["digest"]) for r in predicate["resources"] if r["algorithm"] == "sha256"}
    if len(files) != len(predicate["resources"]):
        raise ValueError("it names a file twice, or has digests that are not SHA-256")
    return SignatureFile(key_sha256, certificates, files, json.dumps(content).encode())


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
