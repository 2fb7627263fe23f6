#!/usr/bin/env python3
"""The tools that build and test the collection.

    tools.py venv        make .venv from requirements-dev.txt, unless it is there and complete
    tools.py packages    install what tests need from Debian (as root on Debian, or say what is missing) and from npm

Standard library only: this runs before anything is installed. Exit 0, or 1 and one sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from testbed import TestbedError, apt_install, last_line, only_one, run, say

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-dev.txt"
VENV = ROOT / ".venv"
STAMP = VENV / ".complete"
OLDEST_PYTHON = (3, 11)  # ansible-core 2.19 asks for it
PROGRAMS = {
    "chromium": "chromium",
    "nginx": "nginx",
    "redis-server": "redis-server",
    "openssl": "openssl",
    "promtool": "prometheus",
    # Debian's wrapper for the server, whose own programs are in folders by version
    "pg_ctlcluster": "postgresql",
}
# For the provider of the sign-in tests; one by one, since Debian's npm conflicts with a Node from elsewhere.
NODE_PROGRAMS = {"node": "nodejs", "npm": "npm"}
PROVIDER = ROOT / "tests/idp"
OLDEST_NODE = 18


def wanted() -> str:
    """What a complete environment is stamped with: the requirements and the interpreter."""
    return hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()


def make_venv() -> None:
    """Make the environment. One that was interrupted, or is of another time, is made again."""
    with only_one("venv"):
        if STAMP.exists() and STAMP.read_text() == wanted():
            STAMP.touch()
            return
        if sys.version_info < OLDEST_PYTHON:
            raise TestbedError("Python 3.11 or newer is needed; if it has another name: make PYTHON=/path/to/python3 …")
        if not importlib.util.find_spec("ensurepip"):
            apt_install(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
        shutil.rmtree(VENV, ignore_errors=True)
        say("installing the tools into .venv")
        made = run(sys.executable, "-m", "venv", str(VENV))
        if made.returncode != 0:
            raise TestbedError(f"The virtual environment could not be made: {last_line(made.stderr or made.stdout)}")
        pip = [str(VENV / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        if subprocess.run([*pip, "-r", str(REQUIREMENTS)], stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise TestbedError("pip could not install requirements-dev.txt; its message is above.")
        STAMP.write_text(wanted())


def install_packages() -> None:
    """Install what is missing, in one call of apt."""
    missing = [package for program, package in PROGRAMS.items() if not find_program(program)]
    if missing:
        apt_install(*missing)
    install_provider()


def install_provider() -> None:
    """Make Node available, and what the OpenID Connect provider needs, unless it is there and as new as its lock."""
    missing = [package for program, package in NODE_PROGRAMS.items() if not find_program(program)]
    if missing:
        apt_install(*missing)
    version = run("node", "--version").stdout.strip()
    if not version.startswith("v") or int(version[1:].partition(".")[0]) < OLDEST_NODE:
        raise TestbedError(f"Node {OLDEST_NODE} or newer is needed; this one is {version or 'none that runs'}.")
    with only_one("provider"):
        # npm writes this file last
        stamp = PROVIDER / "node_modules/.package-lock.json"
        if stamp.exists() and stamp.stat().st_mtime >= (PROVIDER / "package-lock.json").stat().st_mtime:
            return
        say("installing the OpenID Connect provider into tests/idp/node_modules")
        made = run("npm", "ci", "--prefix", str(PROVIDER), "--ignore-scripts", "--no-fund", "--no-audit")
        if made.returncode != 0:
            raise TestbedError(f"npm could not install tests/idp: {npm_error(made.stderr)}")
        stamp.touch()


def npm_error(text: str) -> str:
    """The first line in which npm says what went wrong, and not where its log is."""
    # npm 9 begins its lines with ERR!, later ones with error
    lines = [match[1] for line in text.splitlines() if (match := re.match(r"npm (?:ERR!|error) (.+)", line))]
    return next((line for line in lines if not line.startswith(("code ", "errno ", "syscall "))), None) or last_line(
        text
    )


def find_program(name: str) -> str | None:
    """Path of a program; Debian keeps servers where a user's PATH may not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def main() -> int:
    """Run one command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["venv", "packages"])
    try:
        {"venv": make_venv, "packages": install_packages}[parser.parse_args().command]()
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
