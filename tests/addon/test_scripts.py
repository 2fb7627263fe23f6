"""The two scripts as a user calls them."""

from __future__ import annotations

import contextlib
import os
import pty
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from addon_support import FILES, Redis, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
TEST_FLOWER = str(ROOT / "scripts" / "test-flower.sh")


def everywhere(secret: str) -> list[str]:
    """Processes whose arguments or environment hold a secret, except this one and its shell."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if secret.encode() in (process / name).read_bytes():
                    found.append(f"{process.name}/{name}")
    return found


@pytest.fixture
def hanging() -> Iterator[tuple[int, Callable[[], int]]]:
    """A server that accepts and never answers, and the number of connections that it has."""
    listener = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                clients.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1], lambda: len(clients)
    listener.close()
    for client in clients:
        client.close()


@pytest.mark.parametrize("by_pipe", [False, True])
def test_the_password_is_in_no_process(hanging: tuple[int, Callable[[], int]], by_pipe: bool) -> None:
    port, connections = hanging
    secret = secrets.token_hex(16)
    url = f"http://alice:{secret}@127.0.0.1:{port}/"
    command = [TEST_FLOWER, "-" if by_pipe else url, "--timeout", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdin and run.stdout
        if by_pipe:
            run.stdin.write(url + "\n")
        run.stdin.close()
        wait_for(connections, "the doctor's call")
        looks = 0
        while run.poll() is None:
            assert everywhere(secret) == []
            looks += 1
        assert looks > 1
        text = run.stdout.read()
    assert run.returncode == 1
    assert "did not answer in time" in text and secret not in text


def test_nothing_listens() -> None:
    done = subprocess.run([TEST_FLOWER, f"http://127.0.0.1:{free_port()}/"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[1].startswith("FAIL  ui         nothing listens on 127.0.0.1")
    assert lines[-1] == "Not well: Flower is not accessible (exit 1)."


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "scripts/test-flower.sh - <"),
        ([], 64, "Usage"),
        (["a", "b"], 64, "one URL only"),
        (["http://h", "--only"], 64, "needs a value"),
        (["http://h", "--nonsense"], 64, "unrecognized"),
        (["localhost:5555"], 64, "The URL must look like"),
        (["-"], 64, "no URL"),
    ],
)
def test_usage(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run([TEST_FLOWER, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("quiet", [False, True])
def test_colour_on_a_terminal_unless_no_color(quiet: bool) -> None:
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **({"NO_COLOR": "1"} if quiet else {})}
    leader, follower = pty.openpty()
    subprocess.run([TEST_FLOWER, f"http://127.0.0.1:{free_port()}"], stdout=follower, env=environment)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(leader, 65536):
            shown += piece
    os.close(leader)
    assert b"nothing listens" in shown
    assert (b"\x1b[" in shown) is not quiet


class Checkout:
    """A copy of the repository's part that start-flower.sh uses, with a lock of the test's own."""

    def __init__(self, root: Path, lock: str) -> None:
        self.root, self.venv = root, root / ".venv-flower"
        (root / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "start-flower.sh", root / "scripts")
        skip = shutil.ignore_patterns("__pycache__", "locks")
        shutil.copytree(FILES, root / "roles" / "flower" / "files", ignore=skip)
        locks = root / "roles" / "flower" / "files" / "locks"
        locks.mkdir()
        (locks / "flower-2.2.0.txt").write_text(lock)

    def command(self, *arguments: str) -> list[str]:
        return [str(self.root / "scripts" / "start-flower.sh"), *arguments]

    def start(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment(**variables), capture_output=True, text=True, timeout=60
        )

    @staticmethod
    def environment(**variables: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}

    def use_python_of_the_tests(self) -> None:
        """Puts the packages that are here already into the finished virtual environment."""
        site = next(self.venv.glob("lib/python3*/site-packages"))
        site.joinpath("tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """With a lock that asks for nothing, so that no network is needed."""
    return Checkout(tmp_path_factory.mktemp("checkout"), "# nothing\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["localhost:6379"], "broker URL must look like"),
        (["redis://:sehr-geheim@h:port/0"], "broker URL must look like"),
        (["http://:sehr-geheim@h/0"], "broker URL must look like"),
        (["redis://localhost", "http"], "port must be a number"),
        (["redis://localhost", "65536"], "port must be a number"),
        (["redis://localhost", "0"], "port must be a number"),
        (["redis://localhost", "5555", "more"], "nothing more"),
        (["-"], "CELERY_BROKER_URL is not set"),
    ],
)
def test_what_cannot_start_is_one_sentence(checkout: Checkout, arguments: list[str], said: str) -> None:
    done = checkout.start(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr and "geheim" not in done.stderr
    assert not checkout.venv.exists()


def test_a_port_that_is_taken(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = checkout.start("amqp://guest:guest@localhost:5672//", str(port))
    assert done.returncode == 2
    assert f"port {port} is taken by" in done.stderr and f"(pid {os.getpid()})" in done.stderr


def test_the_virtual_environment_is_made_again_when_it_was_interrupted(checkout: Checkout) -> None:
    port = str(free_port())
    checkout.venv.mkdir(exist_ok=True)
    (checkout.venv / "half").touch()
    first = checkout.start("redis://localhost:1/0", port)
    assert "Making the virtual environment" in first.stderr
    assert (checkout.venv / ".complete").exists() and not (checkout.venv / "half").exists()
    assert "Flower at http://localhost:" + port in first.stdout
    assert "no FLOWER_BASIC_AUTH is set" in first.stderr
    (checkout.venv / "kept").touch()
    again = checkout.start("redis://localhost:1/0", port, FLOWER_BASIC_AUTH="a:long-enough")
    assert "Making" not in again.stderr and (checkout.venv / "kept").exists()
    assert "Warning" not in again.stderr


def test_start_and_test(checkout: Checkout, redis_server: Redis) -> None:
    """Both scripts against each other; the broker's password is in no arguments, at no moment after the first."""
    port, password = str(free_port()), secrets.token_hex(12)
    if not (checkout.venv / ".complete").exists():
        checkout.start("redis://localhost:1/0", port)
    checkout.use_python_of_the_tests()
    environment = checkout.environment(FLOWER_BASIC_AUTH=f"alice:{password}", FLOWER_MAX_TASKS="77")
    log = checkout.root / "log"
    with log.open("wb") as output:
        flower = subprocess.Popen(
            checkout.command(redis_server.url, port), env=environment, stdout=output, stderr=output
        )
    try:
        seen: set[str] = set()

        def answers() -> bool:
            assert flower.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                seen.add(Path(f"/proc/{flower.pid}/cmdline").read_text())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 1):
                return True
            return False

        wait_for(answers, "Flower")
        assert f"Flower at http://localhost:{port}" in log.read_text()
        last = Path(f"/proc/{flower.pid}/cmdline").read_text()
        assert "flowerbed" in last and redis_server.password not in last
        assert len([line for line in seen if redis_server.password in line]) <= 1
        listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True).stdout
        assert f"127.0.0.1:{port}" in listening and "0.0.0.0" not in listening.split()[3]
        # without `workers`: none is there, and to be sure of that takes a while
        done = subprocess.run(
            [TEST_FLOWER, "-", "--only", "ui,auth,tasks,metrics,broker,security"],
            input=f"http://alice:{password}@localhost:{port}",
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All is well."), done.stdout
        assert password not in done.stdout and password not in log.read_text()
        assert redis_server.password not in log.read_text()
    finally:
        flower.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            flower.wait(15)
        flower.kill()
        flower.wait()


def test_no_secret_shows_while_packages_are_installed(tmp_path: Path) -> None:
    """The first start takes a while: a package index that hangs stands for that, and then for one that is down."""
    slow = Checkout(tmp_path, "flower==2.2.0 --hash=sha256:" + "0" * 64 + "\n")
    broker, login = secrets.token_hex(12), secrets.token_hex(12)
    with socket.create_server(("127.0.0.1", 0)) as index:
        environment = slow.environment(
            PIP_INDEX_URL=f"http://127.0.0.1:{index.getsockname()[1]}/simple",
            PIP_RETRIES="0",
            PIP_CONFIG_FILE=os.devnull,
            FLOWER_BASIC_AUTH=f"alice:{login}",
        )
        command = slow.command(f"redis://:{broker}@localhost/0", str(free_port()))
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as run:
            index.settimeout(30)
            client, _ = index.accept()
            # the caller's own environment is the first process's, and nobody else's
            leaks = [place for place in everywhere(broker) + everywhere(login) if place != f"{run.pid}/environ"]
            client.close()
            index.close()
            assert run.stderr
            said = run.stderr.read()
    assert leaks == []
    assert run.returncode == 2
    assert "start-flower.sh: the packages cannot be installed" in said and broker not in said
    assert not (slow.venv / ".complete").exists()


def test_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    scripts = [str(path) for path in sorted((ROOT / "scripts").glob("*.sh"))]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_help_says_what_matters() -> None:
    done = subprocess.run([str(ROOT / "scripts" / "start-flower.sh"), "--help"], capture_output=True, text=True)
    for word in (
        "redis://localhost:6379/0",
        "5555",
        "FLOWER_BASIC_AUTH",
        "FLOWER_OAUTH2_REDIRECT_URI",
        "10000",
        ". ./.env",
    ):
        assert word in done.stdout
    assert done.returncode == 0


def test_time_is_not_wasted() -> None:
    started = time.monotonic()
    subprocess.run([TEST_FLOWER, f"http://127.0.0.1:{free_port()}"], stdout=subprocess.DEVNULL)
    assert time.monotonic() - started < 3
