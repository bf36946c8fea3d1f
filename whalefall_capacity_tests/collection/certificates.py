"""Certificates of an authority of our own, for the tests of TLS."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Valid whatever clock reads them: of the test, or of the server.
VALID = (datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2120, 1, 1, tzinfo=timezone.utc))


class Authority:
    """Signs certificates, and keeps all files in *folder*.

    Like the authority that MySQL makes for itself, its certificate says that it is one and nothing more.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _certificate(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        self.certificate = self._write("ca.pem", builder.sign(self._key, hashes.SHA256()))

    def issue(self, file_name: str, host_name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for *host_name* and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(host_name), self._name, key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host_name)]), critical=False)
        key_file = self._folder / f"{file_name}.key"
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(f"{file_name}.pem", builder.sign(self._key, hashes.SHA256())), key_file

    def _write(self, file_name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / file_name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID[0])
        .not_valid_after(VALID[1])
    )
