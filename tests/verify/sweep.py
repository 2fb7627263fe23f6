"""Looks for secrets where none may be: command lines, environments, the journal, readable files, Ansible's output.

A secret is searched as it is, in base64, and by each longer run of plain letters in it: whatever quoting a leak went
through, a run such as `Zk3-q_8LmX0a` comes out of it unchanged.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from tests.hosts import Host

RUN = re.compile(r"[A-Za-z0-9_-]{10,}")

ROOT_PLACES = """
import json, os, subprocess, sys
needles = {name: [form.encode() for form in forms] for name, forms in json.load(sys.stdin).items()}
found = []
def search(place, data):
    found.extend([place, name] for name, forms in needles.items() if any(form in data for form in forms))
looked = {"processes": 0, "journal": 0}
for pid in filter(str.isdigit, os.listdir("/proc")):
    for kind in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{kind}", "rb") as file:
                search(f"/proc/{pid}/{kind}", file.read().replace(b"\\0", b" "))
                looked["processes"] += 1
        except OSError:
            pass  # it ended meanwhile
journal = subprocess.run(["journalctl", "--no-pager", "-o", "export"], capture_output=True, check=True).stdout
looked["journal"] = len(journal)
search("journal", journal)
print(json.dumps({"found": found, "looked": looked}))
"""

NOBODY_PLACES = """
import json, os, stat, sys
needles = {name: [form.encode() for form in forms] for name, forms in json.load(sys.stdin).items()}
overlap = max(len(form) for forms in needles.values() for form in forms)
found, looked = [], 0
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for name in names:
        path = os.path.join(folder, name)
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            with open(path, "rb") as file:
                looked += 1
                tail = b""
                while chunk := file.read(1 << 24):
                    data = tail + chunk
                    found.extend([path, key] for key, forms in needles.items() if any(form in data for form in forms))
                    tail = chunk[-overlap:]
        except OSError:
            pass  # not readable to nobody, which is what we want
print(json.dumps({"found": found, "looked": looked}))
"""


def forms(secret: str) -> list[str]:
    """What a secret looks like when it leaks: itself, base64 at each of three offsets, and its plain runs."""
    found = {secret, *RUN.findall(secret)}
    for offset in range(3):
        code = base64.b64encode(b"\0" * offset + secret.encode()).decode().rstrip("=")
        found.add(code[4 if offset else 0 : -2])  # without the characters that the neighbours have a part in
    return sorted(form for form in found if len(form) >= 10)


def needles(secrets: dict[str, str]) -> dict[str, list[str]]:
    """The forms of each secret by its name, so that a finding can be told without the secret."""
    return {name: forms(secret) for name, secret in secrets.items()}


def sweep_processes_and_journal(host: Host, secrets: dict[str, str]) -> dict[str, object]:
    """Findings in all command lines, environments and the journal, and how much was looked at."""
    result: dict[str, object] = host.python(ROOT_PLACES, needles(secrets))
    return result


def sweep_files(host: Host, secrets: dict[str, str]) -> dict[str, object]:
    """Findings in every file that `nobody` can read, and how many those were."""
    result: dict[str, object] = host.python(NOBODY_PLACES, needles(secrets), user="nobody")
    return result


def sweep_text(path: Path, secrets: dict[str, str]) -> list[tuple[int, str]]:
    """Line numbers of a text on this machine, with the name of the secret in each."""
    wanted = needles(secrets)
    with path.open(encoding="utf-8", errors="replace") as lines:
        return [
            (number, name)
            for number, line in enumerate(lines, 1)
            for name, looks in wanted.items()
            if any(look in line for look in looks)
        ]


def secrets_of_host(host: Host) -> dict[str, str]:
    """What the host itself keeps secret: cookie secret, hashes, broker URL, private key."""
    credentials = host.python("import json; print(open('/etc/flower/main/credentials/flower.json').read())")
    key = host.run("cat", "/etc/flower/main/tls/private_key.pem").splitlines()
    return {
        "cookie_secret": credentials["cookie_secret"],
        "broker_url": credentials["celery"]["broker_url"],
        "private_key": key[1],
        **{f"hash of {user['name']}": user["hash"] for user in credentials["users"]},
    }
