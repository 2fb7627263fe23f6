#!/usr/bin/env python3
"""The tools that build and test the collection.

    tools.py venv        make .venv from requirements-dev.txt, unless it is there and complete
    tools.py packages    install the Debian packages that tests need (root on Debian), or say which are missing

Standard library only: this runs before anything is installed. Exit 0, or 1 and one sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
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
PROGRAMS = {"chromium": "chromium", "nginx": "nginx", "redis-server": "redis-server", "openssl": "openssl"}


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
