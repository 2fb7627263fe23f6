"""How a host is, so that two looks can be compared: every file, user, group, unit and port.

`python -m tests.fingerprint HOST FILE` writes one into a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.hosts import Host

# What changes by itself, or by the mere visit of Ansible.
RESTLESS = (
    "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/root/.ansible",
)  # fmt: skip

LOOK = """
import grp, json, os, pwd, stat, subprocess, sys
left_out = set(json.load(sys.stdin))
files = {}
def note(path):
    try:
        status = os.lstat(path)
    except OSError:
        return
    kind, size, when = stat.filemode(status.st_mode), status.st_size, status.st_mtime_ns
    if stat.S_ISLNK(status.st_mode):
        size = os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        size = when = 0  # a folder is what is in it
    files[path] = f"{kind} {status.st_uid}:{status.st_gid} {size} {when}"
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in left_out]
    for name in folders + names:
        note(os.path.join(folder, name))
def lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
sockets = [(row.split(), row.split("((")[-1].split(",")[0]) for row in lines("ss", "-Hlntup")]
ports = sorted({f"{row[0]} {row[4]} {program}" for row, program in sockets})
units = {row.split()[0]: row.split()[1] for row in lines("systemctl", "list-unit-files", "--no-legend", "--no-pager")}
active = "list-units --type=service,socket,path --state=active --no-legend --no-pager --plain".split()
running = sorted(row.split()[0] for row in lines("systemctl", *active))
users = sorted(":".join(map(str, entry)) for entry in pwd.getpwall())
groups = sorted(f"{entry.gr_name}:{entry.gr_gid}:{','.join(sorted(entry.gr_mem))}" for entry in grp.getgrall())
packages = sorted(lines("dpkg-query", "-W", "-f", "${Package}\\n"))
names = "files ports units running users groups packages".split()
print(json.dumps({name: globals()[name] for name in names}))
"""


@dataclass(frozen=True)
class Fingerprint:
    """A host at one moment. `files` holds kind, owner, size and time by path; links their target."""

    files: dict[str, str]
    ports: list[str]
    units: dict[str, str]
    running: list[str]
    users: list[str]
    groups: list[str]
    packages: list[str]

    def changes(self, later: Fingerprint, ignore: Sequence[str] = ()) -> list[str]:
        """What is different later, one line each; paths below those of `ignore` are left out."""
        found = [
            f"{path}: {self.files.get(path, 'absent')} -> {later.files.get(path, 'absent')}"
            for path in sorted({*self.files, *later.files})
            if self.files.get(path) != later.files.get(path) and not below(path, ignore)
        ]
        before, after = asdict(self), asdict(later)
        for kind in ("ports", "running", "users", "groups", "packages"):
            gone, new = set(before[kind]) - set(after[kind]), set(after[kind]) - set(before[kind])
            found += [f"{kind}: {entry} is gone" for entry in sorted(gone)]
            found += [f"{kind}: {entry} is new" for entry in sorted(new)]
        units = sorted({*self.units.items()} ^ {*later.units.items()})
        return found + [f"units: {name} ({state})" for name, state in units]


def below(path: str, folders: Sequence[str]) -> bool:
    """Whether a path is one of these, or in one of these."""
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def fingerprint(host: Host) -> Fingerprint:
    """Look at a host now."""
    return Fingerprint(**host.python(LOOK, RESTLESS))


def read(path: Path) -> Fingerprint:
    """A fingerprint that was written into a file."""
    return Fingerprint(**json.loads(path.read_text(encoding="utf-8")))


def main() -> None:
    """Command line."""
    name, file = sys.argv[1:]
    Path(file).write_text(json.dumps(asdict(fingerprint(Host(name)))), encoding="utf-8")


if __name__ == "__main__":
    main()
