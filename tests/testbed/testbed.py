#!/usr/bin/env python3
"""Debian hosts with systemd, in Docker, to test on.

    testbed.py engine    find a working Docker engine, or install and start one
    testbed.py images    the same, then make flowerbed-debian12 and flowerbed-debian13
    testbed.py clean     remove the images and the cache volume (no container may use them any more)

Standard library only: this runs before anything is installed. Exit 0, or 1 and one sentence.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

SUITES = {"flowerbed-debian12": "bookworm", "flowerbed-debian13": "trixie"}
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "sudo", "ca-certificates", "iproute2", "procps",
]  # fmt: skip
CACHE_VOLUME = "flowerbed-cache"
RECIPE_LABEL = "flowerbed.recipe"
IMAGE_FILES = Path(__file__).parent / "image"
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/cert.pem",  # macOS
)
PULL_SECONDS = 40
ENGINE_SECONDS = 60


class TestbedError(Exception):
    """One sentence for the user."""


def run(*command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run quietly; the caller looks at the exit code. A time-out or a missing program counts as a failure."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def last_line(text: str) -> str:
    """The last line that says something, for an error message."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def say(text: str) -> None:
    """Tell what takes time."""
    print(f"testbed: {text}", flush=True)


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let two runs at once not start two engines or build the same image twice."""
    path = Path(tempfile.gettempdir()) / f"flowerbed-{name}-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def apt_install(*packages: str) -> None:
    """Install Debian packages, or say that the user must."""
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise TestbedError(f"Install {', '.join(packages)} first: this needs root on Debian to do it by itself.")
    say(f"installing {', '.join(packages)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    # The time-out: another apt may be at work, for example the one that installs Docker.
    install = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends", *packages)
    if run(*install).returncode == 0:
        return
    run("apt-get", "update", "-q")  # the first try fails on a machine whose package lists are missing or old
    result = run(*install)
    if result.returncode != 0:
        raise TestbedError(f"apt could not install {', '.join(packages)}: {last_line(result.stderr)}")


def engine_answers() -> bool:
    """True when a Docker engine can be reached and used by this user."""
    return run("docker", "info", timeout=20).returncode == 0


def ensure_engine() -> None:
    """Return when a Docker engine answers; raises TestbedError when that cannot be had."""
    if engine_answers():
        return
    with only_one("engine"):
        if not engine_answers():
            start_engine()


def start_engine() -> None:
    """Install Docker when it is missing, and start its daemon so that it outlives this program."""
    refused = last_line(run("docker", "info", timeout=20).stderr)
    if os.getuid() != 0 or os.environ.get("DOCKER_HOST"):
        raise TestbedError(f"No Docker engine answers ({refused}). Install and start Docker, and let this user use it.")
    if not shutil.which("dockerd"):
        if not shutil.which("apt-get"):
            raise TestbedError("No Docker engine was found: install and start Docker.")
        run("apt-get", "update", "-q")
        # Debian 12 has the client inside docker.io, Debian 13 in a package of its own.
        client = ["docker-cli"] if run("apt-cache", "show", "docker-cli").returncode == 0 else []
        apt_install("docker.io", "iptables", *client)
    log = Path("/var/log/dockerd.log")
    if Path("/run/systemd/system").is_dir():
        run("systemctl", "start", "docker")
    elif not engine_answers():
        say("starting dockerd")
        with log.open("ab") as output:
            subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    deadline = time.monotonic() + ENGINE_SECONDS
    while not engine_answers():
        if time.monotonic() > deadline:
            why = last_line(log.read_text(errors="replace")) if log.exists() else "see journalctl -u docker"
            raise TestbedError(f"dockerd did not answer within {ENGINE_SECONDS} seconds: {why}")
        time.sleep(0.5)


def ca_bundle() -> bytes:
    """Certificates that this machine trusts; empty when none are found."""
    for path in (os.environ.get("SSL_CERT_FILE", ""), *CA_BUNDLES):
        if path and Path(path).is_file():
            return Path(path).read_bytes()
    return b""


def recipe(suite: str, bundle: bytes) -> str:
    """Name everything that the image is made from, so that an image is made again when its recipe changed."""
    parts = [suite.encode(), " ".join(PACKAGES).encode(), bundle]
    parts += [part for path in sorted(IMAGE_FILES.iterdir()) for part in (path.name.encode(), path.read_bytes())]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def machine_mirrors() -> dict[str, str]:
    """Release name -> URI, from the apt sources of this machine ("bookworm-security" too)."""
    listing = run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI) $(COMPONENT)", "Identifier: Packages")
    rows = [line.split(" ") for line in listing.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "main"}


def apt_sources(suite: str) -> list[str]:
    """Lines of sources.list for the suite, from the mirror of this machine, which may run another Debian."""
    if not Path("/etc/debian_version").exists():
        raise TestbedError("No image registry answers, and only Debian can make the images without one.")
    mirrors = machine_mirrors()
    main = next((uri for name, uri in mirrors.items() if "-" not in name and "debian" in uri), None)
    if main is None:
        raise TestbedError("No image registry answers, and the apt sources of this machine name no Debian mirror.")
    lines = [f"deb {main} {suite} main", f"deb {main} {suite}-updates main"]
    security = next((uri for name, uri in mirrors.items() if name.endswith("-security")), None)
    return lines + ([f"deb {security} {suite}-security main"] if security else [])


def make_base(suite: str) -> str:
    """Name of an image that holds a minimal Debian: Debian's own image, else one from the machine's mirror."""
    official = f"debian:{suite}"
    if run("docker", "image", "inspect", official).returncode == 0:
        return official
    if run("docker", "pull", "-q", official, timeout=PULL_SECONDS).returncode == 0:
        return official
    sources = apt_sources(suite)
    with only_one("apt"):
        if not shutil.which("mmdebstrap"):
            apt_install("mmdebstrap")
    name = f"flowerbed-base:{suite}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as tarball:
        made = run(
            "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=tar",
            "--skip=cleanup/apt/lists", suite, tarball.name, *sources,
        )  # fmt: skip
        if made.returncode != 0:
            raise TestbedError(f"mmdebstrap could not make Debian {suite}: {last_line(made.stderr)}")
        imported = run("docker", "import", tarball.name, name)
    if imported.returncode != 0:
        raise TestbedError(f"Docker could not import Debian {suite}: {last_line(imported.stderr)}")
    return name


def make_image(name: str, suite: str, bundle: bytes) -> None:
    """Make one image, unless it is there from the same recipe."""
    wanted = recipe(suite, bundle)
    label = run("docker", "image", "inspect", "-f", f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}', name)
    if label.stdout.strip() == wanted:
        return
    say(f"making {name}")
    started = time.monotonic()
    base = make_base(suite)
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copytree(IMAGE_FILES, context, dirs_exist_ok=True)
        (context / "ca-bundle.pem").write_bytes(bundle)
        built = run(
            "docker", "build", "--build-arg", f"BASE={base}", "--build-arg", f"PACKAGES={' '.join(PACKAGES)}",
            "--label", f"{RECIPE_LABEL}={wanted}", "--tag", name, str(context),
        )  # fmt: skip
    if built.returncode != 0:
        raise TestbedError(f"Docker could not build {name}: {last_line(built.stderr) or last_line(built.stdout)}")
    say(f"{name} is ready ({time.monotonic() - started:.0f} s)")


def make_images() -> None:
    """Make the images of all suites, side by side."""
    bundle = ca_bundle()
    with only_one("images"), ThreadPoolExecutor() as pool:
        for future in [pool.submit(make_image, name, suite, bundle) for name, suite in SUITES.items()]:
            future.result()


def clean() -> None:
    """Remove what `images` made. Debian's own images and the engine stay."""
    if not engine_answers():
        return
    for image in (*SUITES, *(f"flowerbed-base:{suite}" for suite in SUITES.values())):
        run("docker", "image", "rm", image)
    run("docker", "volume", "rm", CACHE_VOLUME)


def main() -> int:
    """Run one command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["engine", "images", "clean"])
    command = parser.parse_args().command
    try:
        if command == "clean":
            clean()
            return 0
        ensure_engine()
        if command == "images":
            make_images()
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
