"""What goes wrong, and what the next play makes of it."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator

import pytest

from tests.hosts import Host
from tests.lifecycle.looks import NEW, assert_serves, collector_pid, main_pid, release, running_release
from tests.plays import kill_play_at, run_play

# A package that installs well, lets other programs work, and breaks Flower itself, in the way that a file says.
BROKEN = """
import os, sys

if "run" in sys.orig_argv and "flowerbed" in sys.orig_argv:
    how = open("/etc/flower-broken").read().strip()
    if how == "ends":
        print("flowerbed_broken: no such module: teapot", file=sys.stderr, flush=True)
        os._exit(1)
    import tornado.web

    async def refuse(self, transforms, *args, **kwargs):
        self._transforms = []
        self.set_status(500)
        self.finish("teapot")

    tornado.web.RequestHandler._execute = refuse
"""


def wheel(name: str, files: dict[str, str]) -> bytes:
    """A wheel of these files (https://packaging.python.org/en/latest/specifications/binary-distribution-format/)."""
    folder = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text.encode())}"
        for path, text in files.items()
    ]
    files[f"{folder}/RECORD"] = "\n".join([*record, f"{folder}/RECORD,,", ""])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return packed.getvalue()


@pytest.fixture(scope="module")
def broken(host: Host) -> Iterator[str]:
    """The package, as a path on the host."""
    path = "/root/flowerbed_broken-1.0-py3-none-any.whl"
    files = {"flowerbed_broken.py": BROKEN, "flowerbed_broken.pth": "import flowerbed_broken\n"}
    packed = base64.b64encode(wheel("flowerbed_broken", files)).decode()
    host.run("python3", "-c", f"import base64; open('{path}', 'wb').write(base64.b64decode(input()))", stdin=packed)
    yield path
    host.run("rm", "-f", path, "/etc/flower-broken")


@pytest.mark.parametrize(("how", "says"), [("ends", "no such module: teapot"), ("answers 500", "500")])
def test_a_release_that_does_not_answer(host: Host, broken: str, how: str, says: str) -> None:
    """Ends with the old release serving again, and a failed play that says why."""
    old = release(host)
    host.run("install", "-m", "0644", "/dev/stdin", "/etc/flower-broken", stdin=how)
    play = run_play("site.yml", {**NEW, "flower_extra_packages": [broken], "flower_start_timeout": 10})
    assert play.code != 0
    assert "did not answer well" in play.message
    assert f"release {old} serves again" in play.message
    assert says in play.message
    assert release(host) == old
    assert running_release(host) == old
    assert_serves(host)


def test_a_collector_that_cannot_start(host: Host) -> None:
    """It takes nothing with it: both go on as they were."""
    pids = main_pid(host), collector_pid(host)
    # an address that no host of a test has (RFC 5737)
    play = run_play("site.yml", {**NEW, "flower_metrics_address": "192.0.2.1"})
    assert play.code != 0
    assert "Metrics cannot be served on 192.0.2.1:8000" in play.message
    assert "serves again" in play.message
    assert_serves(host)
    assert "192.0.2.1" not in host.run("cat", "/etc/flower/main/flowerbed-collector.json")
    assert (main_pid(host), collector_pid(host)) != pids


def test_the_play_after_it_has_nothing_to_do(host: Host) -> None:
    """Configuration and unit went back as well."""
    assert run_play("site.yml", NEW).well().changed_tasks == []
    unit = host.run("cat", "/etc/systemd/system/flower@main.service")
    assert "TimeoutStartSec=120" in unit


def test_a_play_killed_between_configure_and_activate(host: Host) -> None:
    """The file is written and the process does not know it: the next play restarts it, though it changes no file."""
    pid = main_pid(host)
    variables = {**NEW, "flower_max_tasks": 12345}
    kill_play_at("Write the unit", host, "site.yml", variables)
    config = "/etc/flower/main/flowerconfig.py"
    assert "max_tasks = 12345" in host.run("cat", config)
    assert main_pid(host) == pid, "the play was killed before it restarted Flower"
    run_play("site.yml", variables).well()
    assert main_pid(host) != pid
    started = int(host.shell(f"stat -c %Y /proc/{main_pid(host)}"))
    assert started >= int(host.run("stat", "-c", "%Y", config))
    assert_serves(host)


DAMAGE = """
set -e
systemctl disable --now --quiet flower@main.service flower-collector@main.service
rm /etc/systemd/system/flower@main.service /etc/systemd/system/flower-collector@main.service /opt/flower/main/current
rm /etc/flower/main/flowerbed-collector.json /etc/flower/main/credentials/collector.json
echo 'max_tasks = "many"' >> /etc/flower/main/flowerconfig.py
rm /etc/flower/main/flowerbed.json /etc/flower/main/credentials/flower.json
chmod 0755 /etc/flower/main/credentials
rm -r /etc/flower/main/last-good /var/lib/flower/main
rm /etc/nginx/sites-enabled/flower-main.conf
echo 'return 404;' > /etc/nginx/sites-available/flower-main.conf
rm /etc/flower/main/tls/certificate.pem
chmod 0644 /etc/flower/main/tls/private_key.pem
gpasswd --delete www-data flower-main >/dev/null
systemctl disable --now --quiet nginx.service
"""


def test_one_play_repairs_all_damage(host: Host) -> None:
    host.shell(DAMAGE)
    run_play("site.yml", NEW).well()
    assert_serves(host)
    modes = host.run(
        "stat", "-c", "%a %U:%G %n", "/etc/flower/main/credentials", "/etc/flower/main/credentials/flower.json",
        "/etc/flower/main/flowerconfig.py", "/etc/flower/main/tls/private_key.pem",
    )  # fmt: skip
    assert [line.split()[0:2] for line in modes.splitlines()] == [
        ["700", "root:root"], ["600", "root:root"], ["644", "root:root"], ["600", "root:root"],
    ]  # fmt: skip
    assert "many" not in host.run("cat", "/etc/flower/main/flowerconfig.py")
    assert "flower-main" in host.run("id", "-nG", "www-data").split()
    units = ("flower@main.service", "flower-collector@main.service", "nginx.service")
    assert host.run("systemctl", "is-enabled", *units).split() == ["enabled"] * 3
    assert run_play("site.yml", NEW).well().changed_tasks == []
