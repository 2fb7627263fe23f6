"""A release that cannot be built leaves Debian's packages and nothing else; a killed play is mended by the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.bad_input.conftest import Attempt
from tests.bad_input.test_host import small_disk
from tests.fingerprint import below, fingerprint
from tests.hosts import USER_NAME, Host, basic, scenario_secrets, wait_for
from tests.plays import kill_play_at, run_play

# What apt itself writes, besides the files of the packages.
APT = ("/var/lib/apt", "/var/lib/dpkg", "/usr/lib/python3", "/etc/alternatives")
RELEASES = "/opt/flower/releases"
# As pgrep -f looks for them; they must not match the shell in which pgrep is called.
VENV = "-m [e]nsurepip"
PIP = f"{RELEASES}/[^ ]*/bin/pip[^ ]* install"


@contextmanager
def nothing_built(host: Host) -> Iterator[None]:
    """The block may leave packages of Debian's Python and the empty folder of the releases, and nothing else."""
    before = fingerprint(host)
    yield
    after = fingerprint(host)
    new = set(after.packages) - set(before.packages)
    assert {package for package in new if not package.startswith("python3")} == set()
    of_packages = set(host.shell(f"dpkg -L {' '.join(sorted(new))} 2>/dev/null || true").splitlines()) if new else set()
    folders = {"/opt/flower", RELEASES}
    assert [path for path in after.files if below(path, ["/opt/flower"]) and path not in folders] == []
    changes = before.changes(after, ignore=[*APT, *folders])
    assert [change for change in changes if not is_of_packages(change, of_packages)] == []
    assert not [name for name in after.units if "flower" in name]


def is_of_packages(change: str, files: set[str]) -> bool:
    """Whether a change is one of these files, what Debian compiled of Python's own library, or the package itself."""
    path = change.partition(": ")[0]
    compiled = path.startswith("/usr/lib/python3") and "/__pycache__" in path
    return path in files or compiled or change.startswith("packages: python3")


def test_a_version_that_does_not_exist(host: Host, attempt: Attempt) -> None:
    with nothing_built(host):
        play = attempt({"flower_version": "9.9.9"})
    sentence = play.message.removesuffix(" What served before still serves.")
    assert sentence.startswith("flower_version: there is no Flower 9.9.9")
    assert "2.2.0" in sentence, "and says which there are"
    assert len(play.message.splitlines()) == 1


def test_an_index_that_is_down(host: Host, attempt: Attempt, secret: str) -> None:
    with nothing_built(host):
        play = attempt({"flower_pip_index_url": f"http://ada:{secret}@127.0.0.1:9/simple"}, hidden={"index": secret})
    assert "flower_pip_index_url" in play.message
    assert "cannot be reached" in play.message
    assert len(play.message.splitlines()) == 1


@contextmanager
def filled_at(host: Host, command: str) -> Iterator[Event]:
    """Another program fills the disk of /opt/flower as soon as the command runs there; the event tells that it did."""
    done, ended = Event(), Event()

    def fill() -> None:
        while not ended.wait(0.2):
            if host.shell(f"pgrep -f -- '{command}' || true").strip():
                host.shell("cat /dev/zero > /opt/flower/somebody-elses-file 2>/dev/null || true")
                done.set()
                return

    filler = Thread(target=fill)
    filler.start()
    try:
        yield done
    finally:
        ended.set()
        filler.join()


@pytest.mark.parametrize("command", [VENV, PIP], ids=["venv", "pip"])
def test_a_disk_that_fills_up_during_the_install(host: Host, attempt: Attempt, command: str) -> None:
    host.run("rm", "-rf", "/opt/flower")
    with nothing_built(host), small_disk(host, "260m"), filled_at(host, command) as filled:
        play = attempt({})
        assert filled.is_set()
        left = host.run("find", "/opt/flower", "-mindepth", "1").split()
        assert sorted(left) == [RELEASES, "/opt/flower/somebody-elses-file"]
    assert "disk of the host is full" in play.message
    assert len(play.message.splitlines()) == 1


def serves(host: Host) -> bool:
    """Whether Flower answers its user through the front door."""
    return host.get("/api/workers", basic(USER_NAME, scenario_secrets()["user_password"])).status == 200


def test_a_play_that_was_killed_while_pip_ran(host: Host) -> None:
    """Nothing is left for an operator to clean up: the next run does it, and ends with a Flower that serves."""
    with nothing_built_but_a_part(host):
        kill_play_at("Install Flower", host, "site.yml", running=PIP)
    run_play("site.yml").well()
    releases = host.run("ls", "-A", RELEASES).split()
    assert len(releases) == 1
    assert host.run("cat", f"{RELEASES}/{releases[0]}/.complete").strip() == releases[0]
    assert host.run("readlink", "/opt/flower/main/current").strip() == f"{RELEASES}/{releases[0]}"
    wait_for("Flower serves", lambda: serves(host), seconds=30)
    assert run_play("site.yml").well().changed_tasks == []


@contextmanager
def nothing_built_but_a_part(host: Host) -> Iterator[None]:
    """The block leaves an unfinished release: no stamp, no instance that points to it, no unit, no user."""
    yield
    (release,) = host.run("ls", "-A", RELEASES).split()
    assert host.shell(f"test ! -e {RELEASES}/{release}/.complete && echo unfinished").strip() == "unfinished"
    after = fingerprint(host)
    assert not [name for name in after.units if "flower" in name]
    assert not [user for user in after.users if user.startswith("flower")]
    assert "/opt/flower/main" not in after.files
