"""The add-on's archive is reproducible, and what pip says becomes one sentence.

The files in pip/ are what real pip 23.2 and 25.1 printed; names of hosts were replaced.
"""

from __future__ import annotations

import base64
import io
import os
import tarfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from filter_plugins.release import package_digest, package_tree, pip_failure

PIP = Path(__file__).parent / "pip"


def tree(where: Path) -> Path:
    package = where / "flowerbed"
    (package / "web").mkdir(parents=True)
    (package / "__init__.py").write_text("one\n")
    (package / "web" / "page.html").write_text("two\n")
    return package


def members(packed: str) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed)), mode="r:gz") as archive:
        return {entry.name: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]


def test_the_files_are_under_the_name_of_the_directory(tmp_path: Path) -> None:
    assert members(package_tree(str(tree(tmp_path)))) == {
        "flowerbed/__init__.py": "one\n",
        "flowerbed/web/page.html": "two\n",
    }


def test_the_same_files_elsewhere_give_the_same_archive(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    os.utime(second / "__init__.py", (1, 1))
    (second / "__init__.py").chmod(0o755)
    assert package_tree(str(first)) == package_tree(str(second))


def test_caches_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    package = tree(tmp_path)
    before = package_digest(str(package))
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.cpython-311.pyc").write_text("x")
    (package / ".mypy_cache").mkdir()
    (package / ".mypy_cache" / "y").write_text("y")
    (package / "old.py~").write_text("z")
    assert package_digest(str(package)) == before


@pytest.mark.parametrize("name", ["__init__.py", "web/new.py"])
def test_a_change_gives_another_digest(tmp_path: Path, name: str) -> None:
    package = tree(tmp_path)
    before = package_digest(str(package))
    (package / name).write_text("changed\n")
    assert package_digest(str(package)) != before


def test_a_link_is_refused(tmp_path: Path) -> None:
    package = tree(tmp_path)
    (package / "link.py").symlink_to("__init__.py")
    with pytest.raises(AnsibleFilterError, match="is not a regular file"):
        package_tree(str(package))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match="is not a directory"):
        package_tree(str(tmp_path / "none"))


SENTENCES = {
    "no_version": "flower_version: there is no Flower 99.99.99 on the package index: the newest there are 2.2.0, ",
    "index_down": "The package index cannot be reached from the host: check flower_pip_index_url and flower_pip_proxy",
    "dns": "The package index cannot be reached from the host: check flower_pip_index_url and flower_pip_proxy",
    "proxy": "The proxy to the package index does not answer or refuses: check flower_pip_proxy.",
    "tls": "The certificate of the package index is not trusted by the host: set flower_pip_cert to a file",
    "refused": "flower_pip_index_url: the package index has no flower for this Python, or wants a login",
    "hash": "humanize==4.9.0 from the package index does not match the hash in the lock",
    "hash_missing": "The lock has no hash for a package that is needed",
    "disk_full": "The disk of the host is full: make room where /opt/flower and /tmp are",
}


@pytest.mark.parametrize("said", sorted(PIP.glob("*.txt")), ids=lambda path: path.stem)
def test_what_real_pip_said_becomes_its_sentence(said: Path) -> None:
    sentence = pip_failure(said.read_text(), "99.99.99")
    assert sentence.startswith(SENTENCES[said.name.split(".")[0]])
    assert "\n" not in sentence


def test_every_failure_was_provoked() -> None:
    assert {path.name.split(".")[0] for path in PIP.glob("*.txt")} == set(SENTENCES)


def test_an_extra_package_that_is_not_there_names_its_variable() -> None:
    said = (PIP / "no_version.pip25.txt").read_text().replace("flower==", "our-tasks==")
    assert pip_failure(said).endswith("check flower_extra_packages.")


def test_any_other_failure_is_its_last_error_line() -> None:
    said = "ERROR: first\nCollecting x\nERROR: Failed building wheel for x.\n"
    assert pip_failure(said) == "pip failed: Failed building wheel for x."


def test_a_login_in_a_url_is_masked() -> None:
    assert "hush" not in pip_failure("ERROR: HTTP error 500 while getting https://user:hush@index.example/simple/x/")


@pytest.mark.parametrize("said", [None, "", "\n"])
def test_silence_is_a_sentence_too(said: str | None) -> None:
    assert pip_failure(said) == "pip failed: it said nothing."
