"""The look at a host asks brokers for real: Redis itself, and a small AMQP server that answers as RabbitMQ does."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "roles/flower/files/look.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("look", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


look = load()
look.TIMEOUT = 1.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    program = shutil.which("redis-server")
    assert program, "redis-server is not installed: `make test` installs it"
    folder, port, password = tmp_path_factory.mktemp("redis"), free_port(), secrets.token_urlsafe(12)
    config = folder / "redis.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass {password}\ndir {folder}\nsave ''\nunixsocket {folder}/redis.sock\n"
    )
    server = subprocess.Popen([program, str(config)], stdout=subprocess.DEVNULL)
    for _ in range(200):
        if look.ask_broker(f"redis://127.0.0.1:{port}", {})["problem"] == "password-needed":
            break
        threading.Event().wait(0.05)
    yield {"port": port, "password": password, "socket": f"{folder}/redis.sock"}
    server.terminate()
    server.wait(10)


def test_redis_accepts_the_right_password(redis: dict[str, Any]) -> None:
    answer = look.ask_broker(f"redis://:{redis['password']}@127.0.0.1:{redis['port']}/0", {})
    assert answer == {"at": f"127.0.0.1:{redis['port']}", "problem": "", "detail": ""}


def test_redis_on_a_unix_socket_accepts_the_right_password(redis: dict[str, Any]) -> None:
    assert look.ask_broker(f"redis+socket://:{redis['password']}@{redis['socket']}", {})["problem"] == ""


def test_redis_refuses_a_wrong_password_and_the_answer_does_not_hold_it(redis: dict[str, Any]) -> None:
    wrong = secrets.token_urlsafe(12)
    answer = look.ask_broker(f"redis://:{wrong}@127.0.0.1:{redis['port']}/0", {})
    assert answer["problem"] == "refused"
    assert wrong not in json.dumps(answer)


def test_redis_wants_a_password(redis: dict[str, Any]) -> None:
    assert look.ask_broker(f"redis://127.0.0.1:{redis['port']}/0", {})["problem"] == "password-needed"


def test_redis_does_not_speak_tls(redis: dict[str, Any]) -> None:
    assert look.ask_broker(f"rediss://127.0.0.1:{redis['port']}/0", {})["problem"] in ("tls", "unreachable")


def test_redis_does_not_speak_amqp(redis: dict[str, Any]) -> None:
    assert look.ask_broker(f"amqp://127.0.0.1:{redis['port']}//", {})["problem"] == "not-amqp"


def test_nothing_answers_on_a_free_port() -> None:
    answer = look.ask_broker(f"redis://127.0.0.1:{free_port()}", {})
    assert (answer["problem"], answer["detail"]) == ("unreachable", "Connection refused")


def test_a_host_that_is_not_known() -> None:
    assert look.ask_broker("amqp://broker.invalid", {})["problem"] in ("unknown-host", "unreachable")


def frame(class_id: int, method: int, arguments: bytes = b"") -> bytes:
    payload = struct.pack(">HH", class_id, method) + arguments
    return b"\x01\x00\x00" + struct.pack(">I", len(payload)) + payload + b"\xce"


def amqp_server(user: bytes, password: bytes, vhost: bytes) -> int:
    """Answer one client as RabbitMQ does (AMQP 0-9-1): it closes the connection on a wrong password."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        link, _ = listener.accept()
        with link, listener:
            assert link.recv(8) == b"AMQP\x00\x00\x09\x01"
            link.sendall(
                frame(10, 10, b"\x00\x09" + struct.pack(">I", 0) + struct.pack(">I", 5) + b"PLAIN" + b"\0\0\0\0")
            )
            if b"\0" + user + b"\0" + password not in link.recv(4096):
                return
            link.sendall(frame(10, 30, struct.pack(">HIH", 0, 131072, 60)))
            opened = b""
            while struct.pack(">HH", 10, 40) not in opened or not opened.endswith(b"\xce"):
                opened += link.recv(4096)
            right = struct.pack(">HH", 10, 40) + bytes([len(vhost)]) + vhost in opened
            link.sendall(frame(10, 41, b"\0") if right else frame(10, 50, b"\x02\x12\0\0\0\0\0"))

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("amqp://bob:pw@127.0.0.1:{port}/shop", ""),
        ("amqp://bob:wrong@127.0.0.1:{port}/shop", "refused"),
        ("amqp://bob:pw@127.0.0.1:{port}/other", "no-vhost"),
    ],
)
def test_amqp(url: str, problem: str) -> None:
    port = amqp_server(b"bob", b"pw", b"shop")
    assert look.ask_broker(url.format(port=port), {})["problem"] == problem


def test_a_changed_file_is_newer_than_the_stamp(tmp_path: Path) -> None:
    stamp, file = tmp_path / "stamp", tmp_path / "file"
    assert look.newer([], str(stamp)), "no stamp yet"
    file.write_text("a")
    stamp.write_text("b")
    hour = 3600 * 10**9
    os.utime(stamp, ns=(0, file.stat().st_ctime_ns + hour))
    assert not look.newer([str(file)], str(stamp))
    assert look.newer([str(file), str(tmp_path / "gone")], str(stamp))
    os.utime(stamp, ns=(0, file.stat().st_ctime_ns - hour))
    os.utime(file, ns=(0, 0))
    assert look.newer([str(file)], str(stamp)), "an old time of change does not hide it"


def test_who_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert list(look.listeners([port, free_port()])) == [str(port)]


@pytest.mark.parametrize(
    ("answer", "sslmode", "problem"),
    [
        (b"N", "require", "plain"),
        (b"-ERR unknown command\r\n", "prefer", "not-postgresql"),
        (b"", "prefer", "not-postgresql"),
    ],
)
def test_what_is_no_database_or_has_no_tls(answer: bytes, sslmode: str, problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []

        def serve() -> None:
            link, _ = server.accept()
            with link:
                asked.append(link.recv(64))
                link.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        said = look.ask_history(f"postgresql://bob:b9JmX2vQe7@127.0.0.1:{port}/shop?sslmode={sslmode}")
        thread.join(10)
    assert said == {"at": f"127.0.0.1:{port}", "problem": problem, "detail": ""}
    assert asked == [struct.pack(">II", 8, 80877103)]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://bob:b9JmX2vQe7@127.0.0.1:1/shop", "unreachable"),
        ("postgresql:///shop?host=127.0.0.1&port=1", "unreachable"),
        ("postgresql://bob:b9JmX2vQe7@db.invalid/shop", "unknown-host"),
        ("postgresql:///shop?host=/run/postgresql", ""),
        ("sqlite:////var/lib/flower/main/history.sqlite", ""),
    ],
)
def test_a_database_that_is_not_there(url: str, problem: str) -> None:
    said = look.ask_history(url)
    assert said["problem"] == problem
    assert "b9JmX2vQe7" not in json.dumps(said)


def test_a_collector_is_told_by_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"/proc/7/cgroup": "0::/system.slice/system-flower.slice/flower-collector@shop.service\n"}
    monkeypatch.setattr(look, "_text", lambda path: lines.get(path, ""))
    assert look.unit_of("7") == "flower-collector@shop.service"
    assert look.unit_of("8") == ""
