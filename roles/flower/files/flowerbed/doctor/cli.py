"""The command line of the doctor."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable

from flowerbed.doctor.checks import Doctor
from flowerbed.doctor.door import UsageError, door_of, readable_certificate
from flowerbed.doctor.instance import InstanceError, doors, inside_of
from flowerbed.doctor.masking import Masker
from flowerbed.doctor.report import CHECKS, Finding, as_json, as_text, exit_code

EXIT_INSTANCE, EXIT_USAGE = 1, 64


def wait_until_well(make: Callable[[], Doctor], seconds: float) -> Doctor:
    """Looks at ui and auth again and again until both are well, the time is up, or systemd has given the unit up."""
    deadline = time.monotonic() + seconds
    while True:
        doctor = make()
        left = deadline - time.monotonic()
        timeout = doctor.door.timeout
        doctor.door.timeout = max(1.0, min(timeout, left))
        well = exit_code(doctor.run(("ui", "auth"))) == 0
        # a wrong password stays wrong, and asking again would lock its user out
        given_up = (
            doctor.refused if doctor.inside is None else doctor.inside.unit_state().get("ActiveState") == "failed"
        )
        if well or given_up or left <= 0:
            return make()
        time.sleep(0.25)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowerbed doctor",
        description="Is this Flower well? One line a check.",
        epilog="Exit: 0 all passed, 1 not accessible or settings that cannot be read, 2 no workers, "
        "3 authentication or security, 4 events not counted or tasks not remembered, 64 bad usage. "
        "A URL with a password is best given by standard input: doctor - < file",
    )
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="http://user:password@host[:port]/prefix, or - for standard input"
    )
    parser.add_argument("--settings", metavar="FILE", help="flowerbed.json of an instance on this host (as root)")
    parser.add_argument("--socket", action="store_true", help="ask Flower itself, past the web server in front of it")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait until page and login answer well"
    )
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for one answer (default 10)")
    parser.add_argument("--cacert", metavar="FILE", help="a certificate to trust, PEM")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", metavar="CHECKS", help=f"some checks only, with commas: {','.join(CHECKS)}")
    return parser


def _examine(options: argparse.Namespace) -> tuple[list[Finding], str]:
    only = tuple(name.strip() for name in options.only.split(",") if name.strip()) if options.only else None
    if unknown := [name for name in only or () if name not in CHECKS]:
        raise UsageError(f"--only: {unknown[0]} is not a check; these are: {', '.join(CHECKS)}.")
    if options.url and (options.settings or options.socket):
        raise UsageError("Give either a URL, or --settings (and --socket).")
    mask = Masker()
    url = sys.stdin.readline().strip() if options.url == "-" else options.url
    if options.url and not url:
        raise UsageError("Standard input holds no URL.")
    inside = None if url else inside_of(options.settings, mask)

    def make() -> Doctor:
        front, direct = doors(inside, options.socket) if inside else (door_of(url, mask), None)
        for door in filter(None, (front, direct)):
            door.timeout = options.timeout
            if options.cacert:
                door.cafile = options.cacert
                readable_certificate(door.cafile)
            elif door.cafile:
                _own_certificate(door.cafile)
        return Doctor(front, mask, inside, direct)

    doctor = wait_until_well(make, options.wait) if options.wait > 0 else make()
    findings = doctor.run(only)
    who = f" as {doctor.door.user}" if doctor.door.user else ""
    return findings, mask(f"Flower at {doctor.door.name}{who}")


def _own_certificate(path: str) -> None:
    """The certificate of the settings is the instance's fault, not the command's."""
    try:
        readable_certificate(path)
    except UsageError as error:
        raise InstanceError(str(error)) from None


def main(argv: list[str]) -> int:
    """The command; `argv` without the program's name.  Gives the exit code."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return EXIT_USAGE if stop.code else 0
    try:
        findings, title = _examine(options)
    except UsageError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return EXIT_USAGE
    except InstanceError as error:
        # whoever reads JSON, such as a monitor, gets JSON
        if options.json:
            print(as_json([Finding("settings", "fail", error.reason, error.hint, EXIT_INSTANCE)]))
        else:
            print(f"doctor: {error}", file=sys.stderr)
        return EXIT_INSTANCE
    except KeyboardInterrupt:
        return 130
    if options.json:
        print(as_json(findings))
    else:
        terminal = sys.stdout.isatty()
        color = terminal and not os.environ.get("NO_COLOR")
        width = shutil.get_terminal_size().columns if terminal else None
        print(as_text(findings, title, color=color, width=width))
    return exit_code(findings)
