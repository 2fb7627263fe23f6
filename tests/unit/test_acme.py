"""What is refused before an authority is asked, when it is asked, and how its refusals are told."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from filter_plugins.acme import (
    acme_due,
    acme_host_problems,
    acme_problems,
    certbot_failure,
    challenge_problems,
    self_signed,
)

ROOT = Path(__file__).resolve().parents[2]
SAID = Path(__file__).parent / "certbot"
SERVER = "https://acme.test:14000/dir"
WEBROOT = "/var/lib/flower-acme-main"


def load(name: str) -> ModuleType:
    """One of the files that the role sends to a host."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"roles/flower/files/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- variables


def variables(**changes: Any) -> dict[str, Any]:
    """The role's defaults with what a certificate needs."""
    defaults = yaml.safe_load((ROOT / "roles/flower/defaults/main.yml").read_text())
    needed = {
        "flower_tls": "letsencrypt", "flower_acme_email": "ops@example.org", "flower_acme_agree_tos": True,
        "flower_server_name": "flower.example.org",
    }  # fmt: skip
    return {**defaults, **needed, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flower_acme_agree_tos": "true"},
        {"flower_acme_staging": True},
        {"flower_server_aliases": ["a.example.org", "b.example.org"]},
        {"flower_acme_eab_kid": "kid-1", "flower_acme_eab_hmac_key": "zWNDZM6e_QGHW-SRTPal5eIUY"},
        # A company's own authority: names of its own, and a port that is mapped to 80.
        {"flower_acme_directory": "https://ca.corp:8443/acme/directory", "flower_server_name": "flower.corp"},
        {"flower_acme_directory": "https://ca.corp/acme/directory", "flower_server_name": "flower"},
        {"flower_acme_directory": "https://ca.corp/acme/directory", "flower_http_port": 8080},
        {"flower_tls": "self_signed", "flower_acme_email": "", "flower_acme_agree_tos": False},
        {"flower_tls": "none", "flower_acme_email": "", "flower_acme_agree_tos": "false"},
    ],
)
def test_good_variables(changes: dict[str, Any]) -> None:
    assert acme_problems(variables(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"flower_acme_email": ""}, ["flower_acme_email", "empty"]),
        ({"flower_acme_email": "ops"}, ["flower_acme_email", "ops is not"]),
        ({"flower_acme_email": "a@b.c\nserver = https://evil.test"}, ["flower_acme_email", "is not"]),
        ({"flower_acme_agree_tos": False}, ["flower_acme_agree_tos", "true"]),
        ({"flower_acme_agree_tos": "false"}, ["flower_acme_agree_tos", "true"]),
        ({"flower_acme_eab_kid": "kid"}, ["flower_acme_eab_kid", "second"]),
        ({"flower_acme_eab_hmac_key": "abcd"}, ["flower_acme_eab_hmac_key", "first"]),
        ({"flower_acme_eab_kid": "a b", "flower_acme_eab_hmac_key": "abcd"}, ["flower_acme_eab_kid", "space"]),
        ({"flower_acme_eab_kid": "a", "flower_acme_eab_hmac_key": "ab+cd/"}, ["flower_acme_eab_hmac_key", "base64url"]),
        ({"flower_acme_directory": "http://ca.test/dir"}, ["flower_acme_directory", "https"]),
        ({"flower_acme_directory": "ca.test/dir"}, ["flower_acme_directory", "https"]),
        ({"flower_acme_directory": "https://ca.test/a\nb"}, ["flower_acme_directory", "https"]),
        ({"flower_acme_directory": "https://ca.test:port/dir"}, ["flower_acme_directory", "https"]),
        ({"flower_acme_directory": "https://a:b@ca.test/dir"}, ["flower_acme_directory", "password"]),
        ({"flower_acme_directory": "https://ca.test/dir", "flower_acme_staging": True}, ["flower_acme_staging"]),
        ({"flower_acme_ca_bundle": "ca.pem"}, ["flower_acme_ca_bundle", "absolute path"]),
        ({"flower_acme_ca_bundle": "/etc/a b"}, ["flower_acme_ca_bundle", "absolute path"]),
        ({"flower_server_name": "192.0.2.7"}, ["flower_server_name", "192.0.2.7", "address"]),
        ({"flower_server_aliases": ["2001:db8::1"]}, ["flower_server_aliases", "address"]),
        ({"flower_server_name": "*.example.org"}, ["flower_server_name", "wildcard"]),
        ({"flower_server_name": "flower"}, ["flower_server_name", "no dot"]),
        ({"flower_server_aliases": ["flower.local"]}, ["flower_server_aliases", ".local"]),
        ({"flower_server_name": "flower.home.arpa."}, ["flower_server_name", ".home.arpa"]),
        ({"flower_http_port": 8080}, ["flower_http_port", "port 80"]),
        ({"flower_http_port": "8080"}, ["flower_http_port", "port 80"]),
        ({"flower_proxy": "none"}, ["flower_proxy", "nginx"]),
        (
            {"flower_tls": "self_signed", "flower_acme_agree_tos": False},
            ["flower_acme_email", "flower_tls: self_signed"],
        ),
        ({"flower_tls": "none", "flower_acme_email": ""}, ["flower_acme_agree_tos", "flower_tls: none"]),
    ],
)
def test_bad_variables_are_one_sentence(changes: dict[str, Any], says: list[str]) -> None:
    (sentence,) = acme_problems(variables(**changes))
    assert [word for word in says if word not in sentence] == [], sentence
    assert sentence.endswith(".")


def test_no_sentence_shows_the_hmac_key() -> None:
    key = "s3cret+key/that=is+not/base64url"
    for changes in ({}, {"flower_acme_eab_kid": "kid"}, {"flower_tls": "none"}):
        found = acme_problems(variables(**changes, flower_acme_eab_hmac_key=key))
        assert found
        assert key not in " ".join(found)


# ---------------------------------------------------------------- when a certificate is asked for


def certificate(*names: str, issuer: str = "An authority", age: float = 1, lifetime: float = 90) -> str:
    """A certificate for these names, so many days old, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    begins = now - timedelta(days=age)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=lifetime))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def there(pem: str, **changes: str) -> dict[str, Any]:
    """What files/look.py says of a certificate that was issued through our nginx."""
    renewal = {"server": SERVER, "authenticator": "webroot", "webroot_path": WEBROOT, **changes}
    return {"certificate": pem, "renewal": renewal}


@pytest.mark.parametrize(
    ("acme", "names", "reason"),
    [
        (there(certificate("a.test")), ["a.test"], None),
        (there(certificate("a.test", "b.test")), ["b.test", "A.test."], None),
        (there(certificate("a.test", age=80)), ["a.test"], None),
        (there(certificate("a.test", age=5.3, lifetime=6)), ["a.test"], None),
        (there(""), ["a.test"], "there is none"),
        (there("rubbish"), ["a.test"], "there is none"),
        (there(certificate("a.test")), ["a.test", "b.test"], "other names"),
        (there(certificate("a.test", "b.test")), ["a.test"], "other names"),
        (there(certificate("a.test", age=82)), ["a.test"], "it was not renewed"),
        (there(certificate("a.test", age=91)), ["a.test"], "it was not renewed"),
        (there(certificate("a.test"), server="https://other.test/dir"), ["a.test"], "another authority"),
        (there(certificate("a.test"), authenticator="standalone"), ["a.test"], "it would not be renewed"),
        (there(certificate("a.test"), webroot_path="/var/www/html"), ["a.test"], "it would not be renewed"),
    ],
)
def test_a_certificate_is_asked_for_when_there_is_a_reason(
    acme: dict[str, Any], names: list[str], reason: str | None
) -> None:
    reasons = acme_due(acme, names, SERVER, WEBROOT)
    assert [found[: len(reason or "")] for found in reasons] == ([reason] if reason else [])


def test_self_signed() -> None:
    assert self_signed(certificate("a.test", issuer="a.test"))
    assert not self_signed(certificate("a.test"))
    assert not self_signed("")
    assert not self_signed("rubbish")


# ---------------------------------------------------------------- where names lead

PRIVATE = ["127.0.0.1", "::1", "10.0.0.5", "fe80::1"]
PUBLIC = [*PRIVATE, "93.184.216.34"]


@pytest.mark.parametrize(
    ("addresses", "own", "refused"),
    [
        (["10.0.0.5"], PRIVATE, False),
        (["10.0.0.6"], PRIVATE, True),
        (["127.0.1.1"], PRIVATE, False),  # as Debian writes its own name into /etc/hosts
        (["8.8.8.8"], PRIVATE, False),  # NAT may lead it here
        (["8.8.8.8"], PUBLIC, True),
        (["93.184.216.34"], PUBLIC, False),
        (["8.8.8.8", "93.184.216.34"], PUBLIC, False),
        (["2606:2800::1"], PUBLIC, False),  # nothing is known of public IPv6
        (["2606:2800::1"], [*PRIVATE, "2606:2800::2"], True),
        (["8.8.8.8"], [*PRIVATE, "2606:2800::2"], False),
        ([], PRIVATE, True),
        (["8.8.8.8"], [], False),
    ],
)
def test_names_that_surely_lead_elsewhere(addresses: list[str], own: list[str], refused: bool) -> None:
    acme = {"ca_bundle": "", "names": {"flower.test": addresses}, "addresses": own}
    problems = acme_host_problems(acme)
    assert [all(text in problem for text in ["flower.test", *addresses]) for problem in problems] == [True] * refused
    assert acme_host_problems(acme, due=False) == []


def test_a_ca_bundle_that_cannot_be_read_is_refused_at_any_time() -> None:
    acme = {"ca_bundle": "No such file or directory", "names": {}, "addresses": []}
    (problem,) = acme_host_problems(acme, due=False)
    assert "flower_acme_ca_bundle" in problem
    assert "No such file" in problem


def test_the_look_at_names() -> None:
    look = load("look")
    assert {"127.0.0.1", "::1"} & set(look.addresses_of("localhost"))
    assert look.addresses_of("nowhere.invalid") == []
    assert look.addresses_of("a" * 64 + ".test") == []
    assert "127.0.0.1" in look.own_addresses()


class Somebody(BaseHTTPRequestHandler):
    """A web server that hands out challenges from a folder, or answers something else."""

    folder: Path | None = None

    def do_GET(self) -> None:
        """Answer."""
        file = self.folder / self.path.lstrip("/") if self.folder else None
        found = bool(file and file.is_file())
        self.send_response(200 if found else 404)
        self.end_headers()
        if file and found:
            self.wfile.write(file.read_bytes())

    def log_message(self, *_: Any) -> None:
        """Quietly."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Names with ports: of the host itself, of somebody else, and of nobody."""
    handlers = {"ours": type("Ours", (Somebody,), {"folder": tmp_path}), "other": Somebody}
    running = {name: ThreadingHTTPServer(("127.0.0.1", 0), handler) for name, handler in handlers.items()}
    for server in running.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    names = {name: f"127.0.0.1:{server.server_port}" for name, server in running.items()}
    nobody = ThreadingHTTPServer(("127.0.0.1", 0), Somebody)
    nobody.server_close()
    yield {**names, "nobody": f"127.0.0.1:{nobody.server_port}"}
    for server in running.values():
        server.shutdown()
        server.server_close()


def test_challenges_of_our_own(servers: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("challenge").main(json.dumps({"webroot": str(tmp_path), "names": list(servers.values())}))
    answers = json.loads(capsys.readouterr().out)
    assert answers == {servers["ours"]: "ours", servers["other"]: "status 404", servers["nobody"]: ""}
    (problem,) = challenge_problems(answers)
    assert servers["other"] in problem
    assert "status 404" in problem
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "the token is taken away"


# ---------------------------------------------------------------- what certbot says

# As certbot 2.1 (Debian 12) and 4.0 (Debian 13) said it, asking pebble.
SENTENCES = {
    "untrusted": ["acme.test:14000", "self-signed certificate", "flower_acme_ca_bundle"],
    "down": ["does not answer (Connection refused)"],
    "unknown": ["not known on this host", "flower_acme_directory"],
    "no_acme": ["no ACME server", "flower_acme_directory"],
    "two_names": ["other.test: dial tcp 127.0.0.99:80: connect: connection refused", "port 80"],
    "not_found": ["me.test", "returned 404", "nothing before it"],
    "no_address": ["gone.test", "could not resolve"],
    "bound": ["flower_acme_eab_kid"],
    "wrong_key": ["verification error", "flower_acme_eab_hmac_key"],
    "unknown_kid": ["not known to the ACME server", "flower_acme_eab_kid"],
    "malformed": ["illegal character: '_'", "letsencrypt.log"],
}


@pytest.mark.parametrize("file", sorted(SAID.glob("*.certbot[24].txt")), ids=lambda file: file.name)
def test_what_certbot_said_is_one_sentence(file: Path) -> None:
    name = file.name.partition(".")[0]
    log = SAID / f"{name}.certbot2.log.txt"
    sentence = certbot_failure(file.read_text(), log.read_text() if log.exists() else "", SERVER)
    says = SENTENCES.get(name, ["accountDoesNotExist", "/etc/letsencrypt/accounts"])
    assert [word for word in says if word not in sentence] == [], sentence
    assert "\n" not in sentence
    assert "acme-challenge" not in sentence
    assert len(sentence) < 500


@pytest.mark.parametrize(
    ("kind", "detail", "says"),
    [
        (
            "rateLimited",
            "too many certificates (5) already issued for this exact set of domains, retry after 12:00",
            "wait",
        ),
        ("caa", "CAA record for flower.example.org prevents issuance", "CAA records"),
        ("rejectedIdentifier", "The ACME server refuses to issue a certificate for this domain name", "choose names"),
        ("somethingNew", "A reason of tomorrow", "A reason of tomorrow"),
    ],
)
def test_an_error_of_the_protocol(kind: str, detail: str, says: str) -> None:
    log = (
        f"certbot version: 2.1.0\nacme.messages.Error: urn:ietf:params:acme:error:{kind} :: What it means :: {detail}\n"
    )
    sentence = certbot_failure("An unexpected error occurred:\nAttributeError: can't set attribute\n", log, SERVER)
    assert detail in sentence
    assert says in sentence


def test_caa_at_the_challenge() -> None:
    output = "  Domain: a.test\n  Type:   caa\n  Detail: CAA record for a.test prevents issuance\n\nHint: x\n"
    sentence = certbot_failure(output)
    assert "a.test: CAA record for a.test prevents issuance" in sentence
    assert "CAA records of the name allow" in sentence


def test_silence_is_told_as_such() -> None:
    assert "it gave no reason" in certbot_failure("", "", SERVER)
