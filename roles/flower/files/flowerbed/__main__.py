"""`python -m flowerbed`: run, check-config, doctor, user hash."""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import argparse
import sys

from flowerbed.identity import OPERATOR, ROLES
from flowerbed.users import SCHEMES, hash_command


def main(argv: list[str]) -> int:
    """Runs one subcommand and gives the exit code; a sentence about bad settings goes to stderr with 78 (EX_CONFIG)."""
    if argv[:1] == ["doctor"]:
        # the doctor has a command line of its own
        from flowerbed.doctor import main as doctor

        code: int = doctor(argv[1:])
        return code
    arguments = _parser().parse_args(argv)
    if arguments.command == "check-config":
        return _check_config(arguments.flowerconfig)
    if arguments.command == "user":
        return hash_command(arguments.name, arguments.role, arguments.scheme)
    if arguments.command == "collector":
        return _collect(arguments.settings)
    return _run(None if arguments.broker_env else arguments.settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flowerbed", description="Runs and checks Flower.")
    commands = parser.add_subparsers(dest="command", required=True)
    collector = commands.add_parser("collector", help="count Celery's events and remember tasks")
    collector.add_argument("--settings", metavar="FILE", help="flowerbed.json (else the environment is read)")
    run = commands.add_parser("run", help="become Flower")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--settings", metavar="FILE", help="flowerbed.json (else the environment is read)")
    where.add_argument("--broker-env", action="store_true", help="CELERY_BROKER_URL and FLOWER_* from the environment")
    check = commands.add_parser("check-config", help="check a flowerconfig.py before Flower reads it")
    check.add_argument("--settings", metavar="FILE", help="accepted for symmetry; nothing in it is needed")
    check.add_argument("flowerconfig", metavar="FLOWERCONFIG")
    user = commands.add_parser("user", help="make an entry for flower_users")
    hashing = user.add_subparsers(dest="action", required=True).add_parser(
        "hash", help="hash a password, read from the terminal or standard input, and print the entry"
    )
    hashing.add_argument("name", nargs="?", metavar="NAME", help="the user's name; asked for on a terminal")
    hashing.add_argument("--role", choices=ROLES, default=OPERATOR, help="what they may do (default: %(default)s)")
    hashing.add_argument("--scheme", choices=SCHEMES, default=SCHEMES[0], help="kind of hash (default: %(default)s)")
    commands.add_parser("doctor", help="ask a Flower whether it is well (doctor --help)", add_help=False)
    return parser


def _run(settings_path: str | None) -> int:
    from flowerbed.install import EXIT_CONFIG
    from flowerbed.run import run
    from flowerbed.settings import SettingsError

    try:
        return run(settings_path)
    except SettingsError as error:
        print(f"flowerbed: {error}", file=sys.stderr)
        return EXIT_CONFIG


def _collect(settings_path: str | None) -> int:
    import logging

    from flowerbed.collector.process import run
    from flowerbed.install import EXIT_CONFIG
    from flowerbed.settings import SettingsError, load, load_credentials

    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(message)s")
    # it names each of its plugins at every start
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = load(settings_path)
        return run(settings, load_credentials(settings))
    except SettingsError as error:
        print(f"flowerbed: {error}", file=sys.stderr)
        return EXIT_CONFIG


def _check_config(path: str) -> int:
    from flowerbed.options import config_problem

    if problem := config_problem(path):
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
