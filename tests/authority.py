"""A certificate authority of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def _builder(
    name: str, issuer: str, key: ec.EllipticCurvePublicKey, authority_key: ec.EllipticCurvePublicKey, is_ca: bool
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=60))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key), critical=False)
    )


@dataclass(frozen=True)
class Authority:
    """Its key and its own certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> Authority:
        """An authority with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = _builder("Test authority", "Test authority", public, public, is_ca=True)
        return cls(key, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()))

    @property
    def pem(self) -> str:
        """What must be trusted."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, name: str) -> tuple[str, str]:
        """A certificate for this host name, and its private key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, "Test authority", key.public_key(), self.key.public_key(), is_ca=False)
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        signed = builder.add_extension(names, critical=False).sign(self.key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return signed.public_bytes(Encoding.PEM).decode(), private
