"""Running a playbook against the scenario's hosts, and what came of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.hosts import Host

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOKS = ROOT / "playbooks"
PLAY_SECONDS = 600
FATAL = re.compile(r"^fatal: \[[^\]]+\]: (?:FAILED|UNREACHABLE)! => ", re.MULTILINE)
RECAP = re.compile(r"^\S+\s+: (ok=\d+ .*)$", re.MULTILINE)

# Ends what a killed play left running on the host: Ansible's modules, and what they started.
END_LEFTOVERS = """
import json, os, sys
ended = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        continue
    ours = int(pid) not in (os.getpid(), os.getppid(), 1)
    if ours and (b"/opt/flower/releases/" in command or b"ansible" in command.lower()):
        try:
            os.kill(int(pid), 9)
            ended.append(int(pid))
        except ProcessLookupError:
            pass
print(json.dumps(ended))
"""


@dataclass(frozen=True)
class Play:
    """A play that ended."""

    code: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, int]:
        """The numbers of PLAY RECAP, added up over the hosts."""
        total: dict[str, int] = {}
        for line in RECAP.findall(self.output):
            for word in line.split():
                name, number = word.split("=")
                total[name] = total.get(name, 0) + int(number)
        return total

    @property
    def message(self) -> str:
        """What the failure that ended the play says; empty when there was none."""
        found = list(FATAL.finditer(self.output))
        if not found:
            return ""
        result: dict[str, Any] = json.JSONDecoder().raw_decode(self.output, found[-1].end())[0]
        return str(result.get("msg", result))

    @property
    def changed_tasks(self) -> list[str]:
        """Names of the tasks that changed something, in order."""
        task, found = "", []
        for line in self.output.splitlines():
            if line.startswith("TASK ["):
                task = line[6 : line.rindex("]")]
            elif line.startswith("changed: ") and task not in found:
                found.append(task)
        return found

    def well(self) -> Play:
        """The same; fails the test when the play did."""
        assert self.code == 0, self.message or self.output[-3000:]
        assert self.recap.get("ok", 0) > 0, "no host was in the play"
        return self


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Molecule's environment with plain, readable output; None takes a variable away."""
    wanted: dict[str, str | None] = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "ANSIBLE_LOG_PATH": None,
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        **(changes or {}),
    }
    return {name: value for name, value in wanted.items() if value is not None}


def run_play(
    playbook: Path | str,
    variables: Mapping[str, Any] | None = None,
    *options: str,
    env: Mapping[str, str | None] | None = None,
) -> Play:
    """Run a playbook of the project, or a path, to its end."""
    with TemporaryDirectory() as folder:
        process = _start(playbook, variables, options, env, Path(folder))
        started = time.monotonic()
        try:
            output = process.communicate(timeout=PLAY_SECONDS)[0]
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            raise
        return Play(process.returncode, output, time.monotonic() - started)


def kill_play_at(
    task: str, host: Host, playbook: Path | str, variables: Mapping[str, Any] | None = None, running: str = ""
) -> None:
    """Start a play and kill it, hard, with all that it runs here and on the host, when it comes to the task.

    running: a part of a command line on the host that must be there before.
    """
    with TemporaryDirectory() as folder:
        process = _start(playbook, variables, (), None, Path(folder))
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("TASK [") and task in line:
                break
        else:
            raise AssertionError(f"the play ended before '{task}': {''.join(lines)[-2000:]}")
        deadline = time.monotonic() + 60
        while running and not host.shell(f"pgrep -f -- '{running}' | grep -vx $$ || true").strip():
            assert time.monotonic() < deadline, f"'{running}' did not run on the host"
            time.sleep(0.1)
        kill_tree(process.pid)
        process.stdout.close()
        process.wait(30)
        host.python(END_LEFTOVERS)


def _start(
    playbook: Path | str,
    variables: Mapping[str, Any] | None,
    options: tuple[str, ...],
    env: Mapping[str, str | None] | None,
    folder: Path,
) -> subprocess.Popen[str]:
    extra = folder / "variables.json"
    extra.touch(mode=0o600)
    extra.write_text(json.dumps(dict(variables or {})), encoding="utf-8")
    path = PLAYBOOKS / playbook  # an absolute path stays what it is
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", os.environ["MOLECULE_INVENTORY_FILE"],
         "-e", f"@{extra}", *options, str(path)],
        cwd=ROOT, env=environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def kill_tree(pid: int) -> None:
    """Kill a process and all that descend from it; Ansible's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    tree = [pid]
    for member in tree:
        tree += children.get(member, [])
    for member in tree:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
