"""The doctor at a front door with TLS, and its judgement piece by piece."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

import pytest
from addon_support import FILES, OUTSIDE_DOCTOR, Flower, Redis, certificate
from passlib.hash import bcrypt

from flowerbed import doctor
from flowerbed.doctor import programs
from flowerbed.doctor.checks import Doctor
from flowerbed.doctor.cli import EXIT_USAGE
from flowerbed.doctor.door import Answer, Door, UsageError, door_of
from flowerbed.doctor.inside import Inside
from flowerbed.doctor.masking import Masker, secret_texts, without_password
from flowerbed.doctor.report import EXIT_OF, Finding, as_text, exit_code
from flowerbed.doctor.security import missing_headers
from flowerbed.settings import Credentials, Settings


class Front:
    """TLS in front of a port, with more headers: the least that a front door does.  Keeps what it was sent."""

    def __init__(self, pem: str, behind: int, headers: bytes = b"") -> None:
        self.behind, self.headers, self.seen = behind, headers, b""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self.context, self.listener = context, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            self.context.wrap_socket(client, server_side=True) as safe,
            socket.create_connection(("127.0.0.1", self.behind)) as server,
        ):
            request = safe.recv(65536)
            self.seen += request
            server.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = b"".join(iter(lambda: server.recv(65536), b""))
            safe.sendall(answer.replace(b"\r\n", b"\r\n" + self.headers, 1))


GOOD_HEADERS = (
    b"Strict-Transport-Security: max-age=63072000\r\nX-Frame-Options: DENY\r\nReferrer-Policy: same-origin\r\n"
)


@pytest.fixture(scope="module")
def password() -> str:
    return secrets.token_urlsafe(16)


@pytest.fixture(scope="module")
def flower(flower_process: Callable[..., Flower], redis_server: Redis, password: str) -> Flower:
    users = [{"name": "alice", "hash": bcrypt.using(rounds=4).hash(password)}]
    kept = {"cookie_secret": secrets.token_hex(32), "users": users, "celery": {"broker_url": redis_server.url}}
    started = flower_process({"url_prefix": "flower"}, kept)
    (started.directory / "flower.json").chmod(0o600)
    return started


def outside(url: str, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [*OUTSIDE_DOCTOR, "-", "--json", "--only", "ui,auth,tasks,metrics,security", *arguments],
        input=url,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_self_signed_certificate_gets_no_password(flower: Flower, password: str, tmp_path: Path) -> None:
    front = Front(certificate(tmp_path, 90), flower.port, GOOD_HEADERS)
    code, checks = outside(f"https://alice:{password}@localhost:{front.port}/flower")
    assert code == 3
    assert "self-signed" in checks["security"]["message"]
    assert {name: check["status"] for name, check in checks.items()} == {
        "ui": "ok", "auth": "skip", "tasks": "skip", "metrics": "ok", "security": "fail",
    }  # fmt: skip
    assert b"GET /flower/" in front.seen and b"Authorization" not in front.seen


def test_a_trusted_certificate(flower: Flower, password: str, tmp_path: Path) -> None:
    pem = certificate(tmp_path, 90)
    front = Front(pem, flower.port, GOOD_HEADERS)
    code, checks = outside(f"https://alice:{password}@localhost:{front.port}/flower", "--cacert", pem)
    assert (code, {check["status"] for check in checks.values()}) == (0, {"ok"}), checks
    assert "lasts 89 days" in checks["security"]["message"]


def test_the_front_door_from_inside(
    flower: Flower, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `connect`, with the name and the trust of the settings, and a session instead of a password."""
    pem = certificate(tmp_path, 90, "flower.example.org")
    front = Front(pem, flower.port, GOOD_HEADERS)
    known = json.loads((flower.directory / "flowerbed.json").read_text())
    known |= {"url": "https://flower.example.org/flower/", "connect": f"127.0.0.1:{front.port}", "tls_certificate": pem}
    (tmp_path / "f.json").write_text(json.dumps(known))
    arguments = ["--settings", str(tmp_path / "f.json"), "--json", "--only", "ui,auth,tasks,metrics,broker,security"]
    code = doctor.main(arguments)
    text = capsys.readouterr().out
    assert (code, json.loads(text)["passed"]) == (0, True), text
    assert b"Host: flower.example.org\r\n" in front.seen
    (tmp_path / "f.json").write_text(json.dumps(known | {"secure_cookies": False}))
    assert doctor.main(arguments) == 3
    assert "not marked Secure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("days", "name", "headers", "said"),
    [
        (5, "localhost", GOOD_HEADERS, "expires in 4 days"),
        (-1, "localhost", GOOD_HEADERS, "has expired"),
        (90, "other.example.org", GOOD_HEADERS, "for another name than localhost"),
        (90, "localhost", b"", "Strict-Transport-Security, X-Frame-Options, Referrer-Policy"),
        (90, "localhost", GOOD_HEADERS + b"Set-Cookie: user=x; HttpOnly\r\n", "not marked Secure"),
    ],
)
def test_tls_troubles(
    *, flower: Flower, password: str, tmp_path: Path, days: int, name: str, headers: bytes, said: str
) -> None:
    pem = certificate(tmp_path, days, name)
    front = Front(pem, flower.port, headers)
    code, checks = outside(f"https://alice:{password}@localhost:{front.port}/flower", "--cacert", pem)
    assert code == 3
    assert said in checks["security"]["message"]


def test_http_and_https_mixed_up(flower: Flower, tmp_path: Path) -> None:
    code, checks = outside(f"https://localhost:{flower.port}/", "--timeout", "1")
    assert code == 1 and "does not speak TLS" in checks["ui"]["message"]
    front = Front(certificate(tmp_path, 90), flower.port)
    code, checks = outside(f"http://localhost:{front.port}/")
    assert code == 1 and "https://" in checks["ui"]["hint"] + checks["ui"]["message"]


def test_a_wrong_prefix(flower: Flower) -> None:
    code, checks = outside(f"http://localhost:{flower.port}/flour")
    assert code == 1 and "404" in checks["ui"]["message"]


def answering(respond: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server that answers each request with fixed bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with contextlib.suppress(OSError), client:
                    client.sendall(respond(client.recv(65536)))

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_the_web_server_is_up_and_flower_is_not() -> None:
    for port in answering(lambda _: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"):
        code, checks = outside(f"http://127.0.0.1:{port}/")
        assert code == 1
        assert "the web server is up, Flower behind it is not" in checks["ui"]["message"]
        assert "journalctl" in checks["ui"]["hint"]


def test_http_is_followed_to_https_of_the_same_host_only() -> None:
    redirect = b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: https://elsewhere.example.org/\r\n\r\n"
    for port in answering(lambda _: redirect):
        code, checks = outside(f"http://alice:secret-word@127.0.0.1:{port}/")
        assert code == 1 and "https://elsewhere.example.org/" in checks["ui"]["message"]


def test_a_server_that_drips_cannot_hold_the_doctor() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        client, _ = listener.accept()
        with contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(100):
                client.sendall(b"x")
                time.sleep(0.1)

    threading.Thread(target=drip, daemon=True).start()
    started = time.monotonic()
    code, checks = outside(f"http://127.0.0.1:{listener.getsockname()[1]}/", "--timeout", "1")
    assert code == 1 and "did not answer in time" in checks["ui"]["message"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        ((), 0),
        (("workers",), 2),
        (("broker",), 2),
        (("workers", "security"), 3),
        (("auth", "broker"), 3),
        (("ui", "auth", "workers"), 1),
        (("metrics", "workers"), 1),
    ],
)
def test_the_gravest_decides(failed: tuple[str, ...], code: int) -> None:
    findings = [Finding(name, "fail", "", exit=EXIT_OF[name]) for name in failed]
    assert exit_code([Finding("ui", "ok", ""), Finding("tasks", "skip", ""), *findings]) == code


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:5555", "ftp://h/", "http://", "http://h:port/", "http://h:99999/", "http://[::1/",
        "http://alice:se/cret@h/", "http://alice:se#cret@h/", "http://alice:se?cret@h/",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_one_sentence_without_its_text(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as caught:
        door_of(url, Masker())
    assert "The URL must look like" in str(caught.value) and "cret" not in str(caught.value)
    assert doctor.main([url or " "]) == EXIT_USAGE
    assert "cret" not in "".join(capsys.readouterr())


def test_urls() -> None:
    mask = Masker()
    door = door_of("https://al%40ice:p%2Fw%3Aürd@[::1]:8443/a/b/", mask)
    assert (door.host, door.port, door.prefix, door.user, door.name) == (
        "::1", 8443, "/a/b", "al@ice", "https://[::1]:8443/a/b/",
    )  # fmt: skip
    assert mask("is p/w:ürd p%2Fw%3Aürd " + door.login["Authorization"]) == "is *** *** Basic ***"
    assert door_of("http://h", mask).netloc == "h"
    assert door_of("http://h:443", mask).netloc == "h:443"
    assert "ürd" not in repr(door) and door.login["Authorization"] not in repr(door)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:geheim@h:1/0 down", "redis://:***@h:1/0 down"),
        ("amqp://u:a@b:c@h// and http://x:y@z", "amqp://u:***@h// and http://x:***@z"),
        ("http://host/path?x=1", "http://host/path?x=1"),
    ],
)
def test_passwords_in_any_url_are_masked(text: str, masked: str) -> None:
    assert Masker()(text) == masked


def test_secrets_of_the_credentials_are_known_to_the_mask() -> None:
    celery = {
        "broker_url": ["redis://:one%2Fone@a/0", "amqp://u:two-two@b//;amqp://u:three-three@c//"],
        "broker_transport_options": {"sentinel_kwargs": {"password": "four-four"}, "ssl_keyfile": "/etc/key.pem"},
    }
    found = set(secret_texts(celery))
    assert {"one/one", "one%2Fone", "two-two", "three-three", "four-four"} <= found
    assert "/etc/key.pem" not in found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0?x=secret", "redis://:***@h:1/0"),
        ("amqp://u:p@ss@h:5672//v", "amqp://u:***@h:5672//v"),
        ("redis://h/0", "redis://h/0"),
    ],
)
def test_broker_urls_for_the_eye(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_headers() -> None:
    headers = http.client.HTTPMessage()
    wanted = ["Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"]
    assert missing_headers(headers, tls=True) == wanted
    assert missing_headers(headers, tls=False) == wanted[1:]
    headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    headers["X-Content-Type-Options"] = "nosniff"
    assert missing_headers(headers, tls=False) == ["Referrer-Policy"]
    assert isinstance(headers, Message)


def test_a_closed_metrics_page_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(_: Door, path: str, **__: object) -> Answer:
        return Answer(403, http.client.HTTPMessage(), b"", 0.0)

    monkeypatch.setattr(Door, "get", get)
    finding = Doctor(door_of("http://flower.example.org", Masker()), Masker()).check_metrics()
    assert (finding.status, finding.message) == ("ok", "closed to this address (403)")


def test_off_loopback_by_the_address_that_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP and an open /metrics; the answers are made up, since nothing but loopback is here."""

    def get(door: Door, path: str, **_: object) -> Answer:
        door.peer = "192.0.2.7"
        return Answer(200 if path == "/metrics" else 401, http.client.HTTPMessage(), b"flower_x 1", 0.0)

    monkeypatch.setattr(Door, "get", get)
    finding = Doctor(door_of("http://flower.example.org", Masker()), Masker()).check_security()
    assert finding.status == "fail" and "plain HTTP" in finding.message
    assert "/metrics is open to this address" in finding.message


RUN = "0123456789abcdef" * 2
UNIT = "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\nMainPID=0\n"


def unit_says(monkeypatch: pytest.MonkeyPatch, journal: str, run: str = RUN) -> Inside:
    """The words of systemctl, journalctl and ss; on a machine without systemd they have to be given."""
    listening = 'LISTEN 0 128 127.0.0.1:5555 0.0.0.0:* users:(("intruder",pid=4711,fd=3))\n'

    def output(*command: str) -> str:
        if command[0] == "systemctl":
            return f"{run}\n" if "--property=InvocationID" in command else UNIT
        if command[0] == "journalctl":
            # one run's lines and no others
            assert f"_SYSTEMD_INVOCATION_ID={RUN}" in command and "-u" not in command
            return journal
        return listening

    monkeypatch.setattr(programs, "output", output)
    monkeypatch.setattr(Inside, "unit", property(lambda self: "flower@main.service"))
    return Inside(Settings(), Credentials(), True, Masker())


def test_what_the_unit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = "Started flower\nOSError: cannot use redis://:geheim@h/0: [Errno 98] Address already in use\n"
    text = unit_says(monkeypatch, journal).why_down(None, 5555)
    assert "Port 5555 is held by intruder (pid 4711)" in text
    assert "activating (auto-restart, result exit-code)" in text
    assert "Address already in use" in text and "journalctl -u flower@main.service" in text
    assert "geheim" not in text


@pytest.mark.parametrize(
    "systemd",
    [
        "Failed to start flower@main.service - Flower, the monitor of Celery (main).",
        "Failed to start Flower, the monitor of Celery (main).",
        "flower@main.service: Failed with result 'exit-code'.",
    ],
)
def test_systemd_does_not_hide_the_reason(monkeypatch: pytest.MonkeyPatch, systemd: str) -> None:
    journal = f"ModuleNotFoundError: No module named 'proj'\n{systemd}\n"
    assert unit_says(monkeypatch, journal).last_error() == "ModuleNotFoundError: No module named 'proj'"
    assert unit_says(monkeypatch, systemd).last_error() == ""


def test_a_unit_that_never_ran_has_no_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Its last error" not in unit_says(monkeypatch, "OSError: of another run\n", run="").why_down(None, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "ui,nonsense", "http://h"], "nonsense is not a check"),
        (["http://h", "--socket"], "either a URL"),
        (["http://h", "--cacert", "/nonexistent.pem"], "/nonexistent.pem"),
        (["http://h", "--wait", "soon"], "--wait"),
    ],
)
def test_bad_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(arguments) == EXIT_USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "kept", "said"),
    [
        (None, None, "f.json cannot be read"),
        ("{", None, "f.json is not JSON: line 1, column 2."),
        ({"port": "x"}, None, "port must be int"),
        ({}, None, "c.json cannot be read"),
        ({}, '{"cookie_secret": "sehr-geheim"', "c.json is not JSON"),
        ({}, {}, "hold no cookie_secret"),
        ({"url": "flower.example.org"}, {"cookie_secret": "sehr-geheim"}, "The url in the settings"),
        ({"url": "http://h", "connect": "h"}, {"cookie_secret": "sehr-geheim"}, "must look like host:port"),
        ({"url": "https://h", "tls_certificate": "/nonexistent.pem"}, {"cookie_secret": "sehr-geheim"}, ".pem cannot"),
    ],
)
def test_an_instance_whose_settings_cannot_be_read(
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: str | dict[str, object] | None,
    kept: str | dict[str, str] | None,
    said: str,
) -> None:
    """A monitor gets its JSON and an exit code of a Flower that is not well, the eye a sentence."""
    for name, content in (("f.json", settings), ("c.json", kept)):
        if isinstance(content, dict):
            more = {"credentials": str(tmp_path / "c.json")} if name == "f.json" else {}
            content = json.dumps(content | more)
        if content is not None:
            (tmp_path / name).write_text(content)
    arguments = ["--settings", str(tmp_path / "f.json")]
    assert doctor.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("doctor: ") and said in shown.err
    assert doctor.main([*arguments, "--json"]) == 1
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert (report["passed"], report["exit"], shown.err) == (False, 1, "")
    assert [(check["name"], check["status"]) for check in report["checks"]] == [("settings", "fail")]
    assert said in report["checks"][0]["message"] and "geheim" not in shown.out


def test_without_the_release_the_inside_is_bad_usage() -> None:
    done = subprocess.run([*OUTSIDE_DOCTOR, "--settings", "f.json", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (64, "")
    assert "from Flower's release" in done.stderr


def test_the_package_loads_nothing_by_itself() -> None:
    code = f"import sys; before = set(sys.modules); sys.path.insert(0, {str(FILES)!r}); import flowerbed; "
    code += "print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['flowerbed']"


def test_colour_is_for_terminals_only() -> None:
    findings = [Finding("ui", "ok", "fine"), Finding("workers", "fail", "word " * 40, "Do this.", 2)]
    plain = as_text(findings, "t", color=False, width=None).splitlines()
    assert plain[1] == "ok    ui         fine" and plain[2].startswith("FAIL  workers    word") and len(plain) == 4
    shown = as_text(findings, "t", color=True, width=80)
    assert "\x1b[1;31mFAIL\x1b[0m" in shown and len(shown.splitlines()) > 4
