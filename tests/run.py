#!/usr/bin/env python3
"""Run the tests: linters, unit tests, the add-on's tests, and every Molecule scenario.

    run.py                     everything
    run.py --quick             linters and unit tests
    run.py --lint              linters only
    run.py --scenario NAME     one Molecule scenario (may be given several times)

Two stages run side by side. The output of each goes to .test-logs/NAME.log, and its end is shown when the stage fails.
The last line is "N passed, N failed"; exit 0 when something ran and nothing failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOGS = ROOT / ".test-logs"
SIDE_BY_SIDE = 2
STAGE_SECONDS = 45 * 60
TAIL_LINES = 60
# Steps of a scenario that only make or remove what the others look at; they count when they fail.
FRAME_STEPS = {"dependency", "syntax", "create", "prepare", "cleanup", "destroy"}
STEP = re.compile(r"^(?P<scenario>\S+) (?:>|➜) (?P<step>\S+): Executed: (?P<result>\S+)", re.MULTILINE)
SHELL_SCRIPTS = (".ci/run", "scripts/*.sh", "tests/**/*.sh", "tests/testbed/image/boot", "tests/testbed/image/keep-*")


@dataclass(frozen=True)
class Stage:
    """A command that is one check, or many: test cases of pytest and steps of Molecule count one by one."""

    name: str
    command: list[str]
    scenario: str | None = None

    @property
    def log(self) -> Path:
        """Where the output goes."""
        return LOGS / f"{self.name}.log"

    @property
    def junit(self) -> Path:
        """Folder for pytest's results in XML."""
        return LOGS / "junit" / self.name


@dataclass
class Result:
    """How a stage ended."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def pytest_stage(name: str, *paths: str) -> Stage:
    """Tests that pytest runs."""
    command = [str(BIN / "python"), "-m", "pytest", "-q", f"--junitxml={LOGS / 'junit' / name / 'results.xml'}", *paths]
    return Stage(name, command)


def lint_stages() -> list[Stage]:
    """The linters and the checks of the repository itself."""
    scripts = sorted(str(path.relative_to(ROOT)) for pattern in SHELL_SCRIPTS for path in ROOT.glob(pattern))
    build = ["ansible-galaxy", "collection", "build", "--force", "--output-path", str(LOGS / "build")]
    commands = {
        "ruff-check": ["ruff", "check", "."],
        "ruff-format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy"],
        "yamllint": ["yamllint", "--strict", "."],
        "shellcheck": ["shellcheck", *scripts],
        "changelog": ["antsibull-changelog", "lint"],
        "readme-table": ["python", "scripts/variables_table.py", "--check"],
        "collection-build": build,
        "ansible-lint": ["ansible-lint", "--offline", "--profile", "production", "--strict"],
    }
    stages = [Stage(name, [str(BIN / command[0]), *command[1:]]) for name, command in commands.items()]
    return [*stages, pytest_stage("drift", "tests/lint")]


def scenario_stages(names: list[str]) -> list[Stage]:
    """One stage for each of the scenarios, `default` first; all of them when none is named."""
    found = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    found.sort(key=lambda name: name != "default")
    if unknown := sorted(set(names) - set(found)):
        sys.exit(f"There is no scenario {', '.join(unknown)}; there are: {', '.join(found)}.")
    molecule = [str(BIN / "molecule"), "test", "--scenario-name"]
    return [Stage(f"molecule-{name}", [*molecule, name], name) for name in names or found]


def environment(stage: Stage) -> dict[str, str]:
    """The environment of a stage: the tools first in PATH, plain output, and where to leave results."""
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "PY_COLORS": "0",
        "PYTHONUNBUFFERED": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
        "FLOWERBED_JUNIT_DIR": str(stage.junit),
    }


class Runner:
    """Runs commands, and can end all that run."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, stage: Stage, command: list[str]) -> int:
        """Run a command into the stage's log and return its exit code; 1 after the time limit."""
        with stage.log.open("ab") as log, self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(stage), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            self._processes.add(process)
        try:
            return process.wait(STAGE_SECONDS)
        except subprocess.TimeoutExpired:
            end(process)
            with stage.log.open("a") as log:
                log.write(f"\nstopped after {STAGE_SECONDS // 60} minutes\n")
            return 1
        finally:
            with self._lock:
                self._processes.discard(process)

    def stop(self) -> None:
        """End what runs and start nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def read_junit(stage: Stage, result: Result) -> None:
    """Count pytest's test cases."""
    for file in sorted(stage.junit.glob("*.xml")):
        for case in ElementTree.parse(file).getroot().iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                result.failed += 1
                result.failures.append(f"{case.get('classname', '')}::{case.get('name', '')}")
            elif case.find("skipped") is not None:
                result.skipped += 1
            else:
                result.passed += 1


def read_steps(stage: Stage, result: Result) -> None:
    """Count Molecule's steps, from the summary at the end of its output."""
    for found in STEP.finditer(stage.log.read_text(errors="replace")):
        if found["scenario"] != stage.scenario:
            continue
        if found["result"] == "Failed":
            result.failed += 1
            result.failures.append(f"step {found['step']}")
        elif found["result"] == "Successful" and found["step"] not in FRAME_STEPS:
            result.passed += 1


def run_stage(stage: Stage, runner: Runner) -> Result:
    """Run a stage and say in one line how it ended."""
    stage.junit.mkdir(parents=True)
    started = time.monotonic()
    code = runner.run(stage, stage.command)
    result = Result()
    read_junit(stage, result)
    if stage.scenario:
        read_steps(stage, result)
        if code:
            # `molecule test` removes its hosts, unless it was stopped itself.
            runner.run(stage, [str(BIN / "molecule"), "destroy", "--scenario-name", stage.scenario])
    counted = result.passed + result.failed
    if code and not result.failed:
        result.failed += 1
        result.failures.append(f"exit code {code}")
    elif not counted:
        result.passed += 1
    report(stage, result, time.monotonic() - started)
    return result


def report(stage: Stage, result: Result, seconds: float) -> None:
    """Print one line, and for a failure what failed and the end of the log."""
    word = "FAIL" if result.failed else "ok  "
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    lines = [f"{word}  {stage.name:<24} {result.passed} passed, {result.failed} failed{skipped}  ({seconds:.0f} s)"]
    if result.failed:
        lines += [f"        {failure}" for failure in result.failures]
        tail = stage.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        lines += [f"    | {line}" for line in tail] + [f"    | (all of it: {stage.log.relative_to(ROOT)})"]
    print("\n".join(lines), flush=True)


def chosen_stages(arguments: argparse.Namespace) -> list[Stage]:
    """The stages in the order in which they start: the longest first, so that both cores stay busy."""
    if arguments.scenario:
        return scenario_stages(arguments.scenario)
    lint = lint_stages()
    if arguments.lint:
        return lint
    unit = pytest_stage("unit", "tests/unit")
    if arguments.quick:
        return [unit, *lint]
    first, *others = scenario_stages([])
    collector = pytest_stage("collector", "tests/collector", "tests/history", "tests/metrics")
    return [first, *lint, unit, pytest_stage("addon", "tests/addon"), collector, *others]


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--quick", action="store_true", help="linters and unit tests")
    what.add_argument("--lint", action="store_true", help="linters only")
    what.add_argument("--scenario", action="append", metavar="NAME", help="one Molecule scenario")
    stages = chosen_stages(parser.parse_args())
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir()
    runner = Runner()
    started = time.monotonic()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures: list[Future[Result]] = [pool.submit(run_stage, stage, runner) for stage in stages]
        try:
            results = [future.result() for future in futures]
        except KeyboardInterrupt:
            runner.stop()
            pool.shutdown(cancel_futures=True)
            return 130
    passed = sum(result.passed for result in results)
    failed = sum(result.failed for result in results)
    print(f"\n{time.monotonic() - started:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
