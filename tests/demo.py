"""`make demo`: a throw-away Debian host with a real Flower that watches real workers.

    python tests/demo.py          make it, or make it anew
    python tests/demo.py stop     remove it

Wants a Docker engine and the test bed's images (`make demo` sees to both) and runs in the tools' virtual environment.
FLOWERBED_PORT (8443) and FLOWERBED_DEMO_IMAGE (flowerbed-debian13) may be set.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.make_secrets import write as write_secrets  # noqa: E402

NAME = "flowerbed-demo"
IMAGE = os.environ.get("FLOWERBED_DEMO_IMAGE", "flowerbed-debian13")
PORT = os.environ.get("FLOWERBED_PORT", "8443")
USER = "demo"
URL = f"https://localhost:{PORT}"
FOLDER = ROOT / ".demo"
SECRETS = FOLDER / "secrets.json"
LOG = FOLDER / "play.log"
CERTIFICATE = FOLDER / "certificate.pem"


class DemoError(Exception):
    """One sentence for the user."""


def on_host(*command: str) -> str:
    """Run a command on the host and return what it printed."""
    done = subprocess.run(["docker", "exec", NAME, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"`{' '.join(command)}` failed on the host: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done, and how many seconds it took."""
    print(f"{what} …", end=" ", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.0f} s", flush=True)


def play(playbook: str, **extra: object) -> None:
    """Run a playbook against the demo's inventory, as a user would. The output goes into a file."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory/demo", playbook]
    if extra:
        command += ["-e", json.dumps(extra)]
    environment = {
        **os.environ,
        "FLOWERBED_SECRETS": str(SECRETS),
        "FLOWERBED_PORT": PORT,
        # Found beside the playbooks anyway, but not by a playbook elsewhere.
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
        # docker exec starts a process for each task; pipelining halves what that costs.
        "ANSIBLE_PIPELINING": "1",
    }
    with LOG.open("a", encoding="utf-8") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        tail = "\n".join(LOG.read_text(encoding="utf-8").splitlines()[-25:])
        raise DemoError(f"{tail}\n\nThe play failed; all of its output is in {LOG}.")


def start_host() -> None:
    """A new host in place of an old one, booted; the same play starts the hosts of Molecule's scenarios."""
    platform = {"name": NAME, "image": IMAGE, "published_ports": [f"127.0.0.1:{PORT}:443"]}
    play(
        "tests/testbed/molecule/create.yml",
        molecule_yml={"platforms": [platform]},
        ansible_python_interpreter=sys.executable,
    )


def ask(path: str) -> Any:
    """Ask the API through the front door, with the login, and trusting nothing but the host's certificate."""
    password = json.loads(SECRETS.read_text(encoding="utf-8"))["user_password"]
    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Basic {login}"})
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return json.load(answer)


def look() -> tuple[int, dict[str, int]]:
    """Online workers, and tasks by state."""
    workers = sum(bool(online) for online in ask("/api/workers?status=1").values())
    states = {state: len(ask(f"/api/tasks?state={state}")) for state in ("SUCCESS", "FAILURE", "RETRY")}
    return workers, states


def wait_for_tasks(seconds: float = 90) -> str:
    """Wait until two workers and finished, failed and retried tasks are to be seen, and tell how many."""
    CERTIFICATE.write_text(on_host("cat", "/etc/flower/main/tls/certificate.pem"), encoding="utf-8")
    deadline = time.monotonic() + seconds
    seen = "nothing"
    while time.monotonic() < deadline:
        try:
            workers, states = look()
        except (OSError, urllib.error.URLError) as error:
            seen = str(error)
        else:
            seen = f"{workers} workers, " + ", ".join(f"{count} {state}" for state, count in states.items())
            if workers == 2 and all(states.values()):
                return seen
        time.sleep(1)
    raise DemoError(f"After {seconds:.0f} s Flower shows {seen}; two workers and tasks in each state were expected.")


def start() -> None:
    """All of the demo."""
    started = time.monotonic()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    LOG.unlink(missing_ok=True)
    SECRETS.unlink(missing_ok=True)
    write_secrets(SECRETS)
    with step(f"Booting a Debian host ({IMAGE})"):
        start_host()
    with step("Redis, two Celery workers and work for them"):
        play("tests/workload/workload.yml")
    with step("Flower: playbooks/site.yml"):
        play("playbooks/site.yml")
    with step("Waiting for finished, failed and retried tasks"):
        on_host("systemctl", "restart", "celery-feeder")
        seen = wait_for_tasks()
    secrets = json.loads(SECRETS.read_text(encoding="utf-8"))
    password = secrets["user_password"]
    relative = CERTIFICATE.relative_to(ROOT)
    print(f"""
Flower runs, made in {time.monotonic() - started:.0f} s: {seen}.

    {URL}/        (its certificate is self-signed: {relative})
    user      {USER}      password  {password}      may do all that Flower can
    user      viewer    password  {secrets["viewer_password"]}      may look and change nothing

    Test it:  scripts/test-flower.sh https://{USER}:{password}@localhost:{PORT} --cacert {relative}
    Look in:  docker exec -it {NAME} bash
    Stop it:  make demo-stop
""")


def stop() -> None:
    """Remove the host and all that was on it."""
    subprocess.run(["docker", "rm", "-f", "-v", NAME], capture_output=True, check=False)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["start", "stop"], default="start")
    try:
        {"start": start, "stop": stop}[parser.parse_args().command]()
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
