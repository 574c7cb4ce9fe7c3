"""Keys and certificates in PEM files, looked at before the signing library gets them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dettriton.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.x509 import Certificate

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""Curves of the signing library, by the names of SEC 2 and of NIST."""

_MAX_BYTES = 1 << 20


def read_private_key(path: Path) -> "EllipticCurvePrivateKey":
    """A private key that signs without a password.

    Raises:
        InputError: the file cannot be read, or is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise InputError(
            f"the key in {path} is protected by a password, which the signing library does not take. Write it without "
            "one to a place that only you can read: openssl pkey -in KEY -out PLAIN"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is not a private key in PEM form; `dettriton zoo sign --help` makes one") from None
    return _on_curve(key, EllipticCurvePrivateKey, path)


def read_public_key(path: Path) -> "EllipticCurvePublicKey":
    """The public half of a key.

    Raises:
        InputError: the file cannot be read, or is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} is not a public key in PEM form; `dettriton zoo sign --help` makes one") from None
    return _on_curve(key, EllipticCurvePublicKey, path)


def read_certificates(paths: Sequence[Path]) -> "list[Certificate]":
    """All certificates of some PEM files, in order.

    Raises:
        InputError: a file cannot be read, or holds no certificates.
    """
    from cryptography.x509 import load_pem_x509_certificates

    found = []
    for path in paths:
        content = _read(path)
        try:
            found += load_pem_x509_certificates(content)
        except ValueError:
            raise InputError(f"{path} holds no X.509 certificates in PEM form") from None
    return found


def require_signing_certificate(certificate: "Certificate", key: "EllipticCurvePrivateKey") -> None:
    """Check that a signature by this key and certificate could be verified now.

    Raises:
        InputError: the certificate is of another key, is not valid now, or is not for signatures.
    """
    name = certificate.subject.rfc4514_string()
    if certificate.public_key() != key.public_key():
        raise InputError(f"the first certificate ({name}) is not of this private key; the signer's comes first")
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise InputError(
            f"the certificate {name} is valid from {certificate.not_valid_before_utc} to "
            f"{certificate.not_valid_after_utc}, and not now; sign with another"
        )
    if not is_for_signatures(certificate):
        raise InputError(f"the certificate {name} is not for signatures: it needs the key usage digitalSignature")


def is_for_signatures(certificate: "Certificate") -> bool:
    """Whether a certificate's key usage (RFC 5280) has digital signatures, or its extended usage code signing."""
    from cryptography import x509

    values = [extension.value for extension in certificate.extensions]
    coded = x509.oid.ExtendedKeyUsageOID.CODE_SIGNING
    return any(isinstance(v, x509.KeyUsage) and v.digital_signature for v in values) or any(
        isinstance(v, x509.ExtendedKeyUsage) and coded in v for v in values
    )


def chain_problem(chain: "Sequence[Certificate]", trusted: "Sequence[Certificate]") -> str | None:
    """Why a chain, the signer's certificate first, shows nobody trusted to sign now; None if it does.

    The signing library looks at the chain as it was at the start of the signer's validity, and so takes certificates
    that have expired since.
    """
    from OpenSSL import crypto

    if not is_for_signatures(chain[0]):
        return f"{chain[0].subject.rfc4514_string()} is not for signatures"
    store = crypto.X509Store()
    for certificate in trusted:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    signer, *between = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        crypto.X509StoreContext(store, signer, between).verify_certificate()
    except crypto.X509StoreContextError as error:
        return f"{error} ({error.certificate.to_cryptography().subject.rfc4514_string()})"
    return None


def _on_curve(key: Any, kind: type, path: Path) -> Any:
    if not isinstance(key, kind) or key.curve.name not in CURVES:
        raise InputError(f"the key in {path} is not an elliptic curve key on one of {', '.join(CURVES.values())}")
    return key


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check the path and its permissions") from error
