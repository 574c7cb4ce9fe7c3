"""Key pairs and certificates that are made for a test."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

DAY = timedelta(days=1)


def write_pair(
    folder: Path, name: str, key=None, password: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8
) -> Path:
    """``NAME.pem`` and ``NAME.pub`` of a key, by default a new one on P-256; returns the first."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, form, protection))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


class Authority:
    """Someone with a key and a certificate, by default one that may issue others."""

    def __init__(self, name, issuer=None, start=-30, end=30, authority=True, signs=True):
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = issuer or self
        now = datetime.now(UTC)
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "crl_sign"), False)
        flags = usage | {"key_agreement": not signs, "encipher_only": False, "decipher_only": False}
        own_id = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        self.certificate = (
            x509.CertificateBuilder(issuer.name, self.name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now + start * DAY)
            .not_valid_after(now + end * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(digital_signature=signs, key_cert_sign=authority, **flags), critical=True)
            .add_extension(own_id, critical=False)
            .add_extension(issuer_id, critical=False)
            .sign(issuer.key, hashes.SHA256())
        )

    def write(self, folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
        """The private key and the certificate as PEM files."""
        path = folder / f"{name}.crt"
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return write_pair(folder, name, self.key, password), path
