"""Certificates: every way in which one cannot be used is said in one sentence."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cache
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from filter_plugins.preflight import certificate_problems


@cache
def key(owner: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(owner: str, encryption: KeySerializationEncryption | None = None) -> str:
    return key(owner).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def certificate(
    names: tuple[str, ...] = ("flower.example.org",),
    *,
    begins: float = -1,
    ends: float = 90,
    subject: str = "server",
    issuer: str = "server",
) -> str:
    """PEM of a certificate for `subject`, signed by `issuer`; begins and ends are days from now."""
    now = datetime.now(timezone.utc)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key(subject).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key(issuer), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_right_certificate_is_no_problem() -> None:
    assert certificate_problems(certificate(), key_pem("server"), ["flower.example.org"], 30) == []


def test_a_right_chain_is_no_problem() -> None:
    chain = certificate(issuer="authority") + certificate((), subject="authority", issuer="authority")
    assert certificate_problems(chain, key_pem("server"), ["flower.example.org"]) == []


@pytest.mark.parametrize("text", ["no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_said(text: str) -> None:
    assert certificate_problems(text) == [
        "flower_tls_certificate cannot be read as a certificate: give PEM text with -----BEGIN CERTIFICATE-----."
    ]


def test_no_certificate_is_said() -> None:
    assert certificate_problems("") == ["flower_tls_certificate is not set: give the certificate as PEM text."]


def test_a_key_in_the_certificates_place_is_said() -> None:
    assert "flower_tls_certificate holds a private key, not a certificate" in certificate_problems(key_pem("server"))[0]


def test_a_key_of_another_certificate_is_said() -> None:
    assert certificate_problems(certificate(), key_pem("other")) == [
        (
            "flower_tls_private_key does not belong to flower_tls_certificate: "
            "give the key with which this certificate was requested."
        )
    ]


def test_an_encrypted_key_is_said() -> None:
    problems = certificate_problems(certificate(), key_pem("server", BestAvailableEncryption(b"made up")))
    assert problems == [
        "flower_tls_private_key is encrypted: give it without a passphrase, since nginx starts unattended."
    ]


def test_what_is_no_key_is_said_without_its_text() -> None:
    (problem,) = certificate_problems(certificate(), "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n")
    assert problem.startswith("flower_tls_private_key cannot be read") and "hush" not in problem


def test_an_expired_certificate_is_said() -> None:
    assert "flower_tls_certificate expired on 2" in certificate_problems(certificate(begins=-9, ends=-1))[0]


def test_a_certificate_of_the_future_is_said() -> None:
    assert "flower_tls_certificate is not valid before 2" in certificate_problems(certificate(begins=1))[0]


def test_a_certificate_that_expires_soon_is_said() -> None:
    assert "in less than 30 days: give a new one." in certificate_problems(certificate(ends=29), days=30)[0]


@pytest.mark.parametrize(
    ("covered", "name"),
    [
        ("flower.example.org", "flower.example.org"),
        ("flower.example.org", "FLOWER.example.org."),
        ("*.example.org", "flower.example.org"),
        ("xn--blte-1ra.example.org", "blüte.example.org"),
        ("10.0.0.7", "10.0.0.7"),
        ("::1", "[0:0::1]"),
    ],
)
def test_a_name_that_is_covered_is_no_problem(covered: str, name: str) -> None:
    assert certificate_problems(certificate((covered,)), names=[name]) == []


@pytest.mark.parametrize(
    ("covered", "name"),
    [
        ("flower.example.org", "other.example.org"),
        ("*.example.org", "example.org"),
        ("*.example.org", "a.b.example.org"),
        ("10.0.0.7", "10.0.0.8"),
        ("*.0.0.7", "10.0.0.7"),
    ],
)
def test_a_name_that_is_not_covered_is_said(covered: str, name: str) -> None:
    assert certificate_problems(certificate((covered,)), names=[name]) == [
        (
            f"flower_tls_certificate is not for {name}, only for {covered}: "
            f"give one with {name} as a subject alternative name."
        )
    ]


def test_a_common_name_alone_covers_nothing() -> None:
    assert "only for no name at all" in certificate_problems(certificate(()), names=["server"])[0]


def test_a_chain_in_the_wrong_order_is_said() -> None:
    chain = certificate((), subject="authority", issuer="authority") + certificate(issuer="authority")
    problems = certificate_problems(chain, key_pem("server"))
    assert "certificate 1 of the chain was not issued by the one after it" in problems[0]
    assert problems[1].endswith("it belongs to a later certificate of the chain: write that one first.")


def test_the_sentences_name_the_variables_that_were_given() -> None:
    problems = certificate_problems(certificate(), key_pem("other"), certificate_name="crt", key_name="pem")
    assert problems[0].startswith("pem does not belong to crt: ")
