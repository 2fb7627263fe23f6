#!/usr/bin/env python3
"""`make bench`: what a second, unchanged run of the whole role costs on one host.

The measure is a play of 30 unchanged `ansible.builtin.copy` tasks on the same host, over the same connection, in the
same run. Both are timed in turns, after one run of each that is not counted, and the medians are compared. Runs on the
demo's host, which is made when it is not there.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROUNDS = 3
GOAL = 1.0
PLAYS = {"role": "playbooks/site.yml", "copies": "tests/bench/copies.yml"}
LOG = ROOT / ".demo" / "bench.log"


def demo_runs() -> bool:
    """True when the demo's host is up."""
    state = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Running}}", "flowerbed-demo"], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() == "true"


def play(playbook: str) -> float:
    """Seconds that a play takes; ends the program when it fails."""
    command = [str(BIN / "ansible-playbook"), "-i", "inventory/demo", playbook]
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
        "FLOWERBED_SECRETS": str(ROOT / ".demo/secrets.json"),
    }
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    with LOG.open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode or not re.search(r"^flowerbed-demo\s+: ok=[1-9]", done.stdout, re.MULTILINE):
        sys.exit(f"{playbook} failed; all of its output is in {LOG.relative_to(ROOT)}.")
    return seconds


def changes() -> int:
    """Number of changed tasks in the last play of the log."""
    return int(re.findall(r"^flowerbed-demo\s+: ok=\d+\s+changed=(\d+)", LOG.read_text(), re.MULTILINE)[-1])


def main() -> int:
    """Measure and print."""
    if not demo_runs():
        subprocess.run([sys.executable, "tests/demo.py"], cwd=ROOT, check=True)
    LOG.unlink(missing_ok=True)
    for playbook in PLAYS.values():
        play(playbook)
    seconds: dict[str, list[float]] = {name: [] for name in PLAYS}
    for _ in range(ROUNDS):
        for name, playbook in PLAYS.items():
            seconds[name].append(play(playbook))
            if changed := changes():
                sys.exit(f"{playbook} changed {changed} tasks: this is not an unchanged run.")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, title in (("role", "unchanged run of the whole role"), ("copies", "30 unchanged copy tasks")):
        print(f"{title:<33} {medians[name]:6.2f} s   ({', '.join(f'{value:.2f}' for value in seconds[name])})")
    print(f"{'ratio':<33} {medians['role'] / medians['copies']:6.2f}     (goal: {GOAL:.1f} or less)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
