"""Upgrade and rollback; and the three ways to have the collection are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fingerprint import fingerprint
from tests.hosts import Host
from tests.lifecycle.looks import NEW, OLD, WORKLOAD, assert_serves, main_pid, release
from tests.plays import ROOT, environment, run_play

INCLUDE = """
- name: A larger infrastructure
  hosts: flower
  become: true
  gather_facts: false
  tasks:
    - name: Flower is a part of it
      ansible.builtin.include_role:
        name: flowerbed.celery.flower
"""


def call(*command: str, cwd: Path = ROOT) -> str:
    """Run a command of the controller, which has this Python's tools and not the checkout's collections."""
    env = environment({"ANSIBLE_COLLECTIONS_PATH": None})
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def galaxy(*arguments: str) -> str:
    """Run ansible-galaxy."""
    return call(str(Path(sys.executable).parent / "ansible-galaxy"), "collection", *arguments)


@pytest.fixture
def infrastructure(tmp_path: Path) -> Path:
    """A playbook of somebody else's, with its own folder of collections."""
    (tmp_path / "collections").mkdir()
    playbook = tmp_path / "infrastructure.yml"
    playbook.write_text(INCLUDE, encoding="utf-8")
    return playbook


def only(folder: Path) -> dict[str, str | None]:
    """Collections are looked for there and nowhere else; those that came with Ansible are always found."""
    return {"ANSIBLE_COLLECTIONS_PATH": str(folder)}


def test_the_old_version_serves(host: Host) -> None:
    assert release(host).startswith("2.1.0-")
    assert_serves(host)


def test_check_mode_of_an_upgrade_changes_nothing(host: Host) -> None:
    before, pid = fingerprint(host), main_pid(host)
    run_play("site.yml", NEW, "--check", "--diff").well()
    assert before.changes(fingerprint(host), ignore=WORKLOAD) == []
    assert main_pid(host) == pid


def test_upgrade_from_an_installed_collection(host: Host, infrastructure: Path, tmp_path: Path) -> None:
    galaxy("build", str(ROOT), "--output-path", str(tmp_path))
    (tarball,) = tmp_path.glob("flowerbed-celery-*.tar.gz")
    # Offline: nothing but this file is needed; forced, since one may be installed on this machine already.
    galaxy("install", str(tarball), "--offline", "--force", "--collections-path", str(tmp_path / "collections"))
    play = run_play(infrastructure, NEW, env=only(tmp_path / "collections")).well()
    assert play.changed_tasks
    assert release(host).startswith("2.2.0-")
    assert_serves(host)


def test_a_clone_under_collections_is_the_same(host: Host, infrastructure: Path, tmp_path: Path) -> None:
    clone = tmp_path / "collections/ansible_collections/flowerbed/celery"
    clone.parent.mkdir(parents=True)
    call("git", "clone", "--quiet", str(ROOT), str(clone))
    # What is not committed yet is tested as well.
    git = ["git", f"--git-dir={clone}/.git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    call(*git, f"--work-tree={ROOT}", "add", "--all")
    call(*git, f"--work-tree={ROOT}", "commit", "--quiet", "--allow-empty", "--no-verify", "--message=now")
    call("git", "reset", "--quiet", "--hard", cwd=clone)
    play = run_play(infrastructure, NEW, env=only(tmp_path / "collections")).well()
    assert play.changed_tasks == []
    assert release(host).startswith("2.2.0-")


def test_the_checkout_is_the_same(host: Host) -> None:
    play = run_play("site.yml", NEW, env={"ANSIBLE_COLLECTIONS_PATH": None}).well()
    assert play.changed_tasks == []


def test_rollback_goes_back_and_serves(host: Host) -> None:
    run_play("rollback.yml", NEW).well()
    assert release(host).startswith("2.1.0-")
    assert_serves(host)


def test_a_rollback_to_what_is_not_there_is_refused(host: Host) -> None:
    pid = main_pid(host)
    play = run_play("rollback.yml", {**NEW, "rollback_release": "1.9.9-0123456789ab"})
    assert play.code != 0
    assert "1.9.9-0123456789ab" in play.message
    assert "2.2.0-" in play.message, "and says which are there"
    assert main_pid(host) == pid


def test_after_a_rollback_the_inventorys_version_decides(host: Host) -> None:
    """The old version in the inventory changes nothing; the new one goes forward without building again."""
    assert run_play("site.yml", OLD).well().changed_tasks == []
    play = run_play("site.yml", NEW).well()
    assert "Fill the release" not in play.output
    assert release(host).startswith("2.2.0-")
    assert_serves(host)
