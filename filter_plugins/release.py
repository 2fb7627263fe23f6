"""Filters for building a release: the add-on as an archive, and what pip said, in one sentence."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

from .credentials import mask_text, plain_text

# ---------------------------------------------------------------- the add-on


def _is_packed(path: Path, root: Path) -> bool:
    """Not what Python, editors and checkers leave behind."""
    parts = path.relative_to(root).parts
    return not any(part.startswith(".") or part == "__pycache__" for part in parts) and not path.name.endswith(
        (".pyc", ".pyo", "~")
    )


def _tar(directory: Any) -> bytes:
    """The tree as a tar under its own name; the same bytes for the same files, whoever owns them and wherever."""
    root = Path(plain_text(directory, "package_tree"))
    if not root.is_dir():
        raise AnsibleFilterError(f"package_tree: {root} is not a directory.")
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
            if (path.is_dir() and not path.is_symlink()) or not _is_packed(path, root):
                continue
            if path.is_symlink() or not path.is_file():
                raise AnsibleFilterError(f"package_tree: {path} is not a regular file.")
            content = path.read_bytes()
            entry = tarfile.TarInfo(f"{root.resolve().name}/{path.relative_to(root).as_posix()}")
            entry.size = len(content)
            entry.mode = 0o644  # Python is told what to run: nothing here needs to be executable
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def package_tree(directory: Any) -> str:
    """A directory as base64 of a .tar.gz, the same for the same files: no owner, time, mode, or __pycache__.

    The compressed bytes can differ between versions of zlib: name a release by package_digest, not by these.
    """
    return base64.b64encode(gzip.compress(_tar(directory), mtime=0)).decode()


def package_digest(directory: Any) -> str:
    """SHA-256, in hexadecimal, of what package_tree packs before it is compressed."""
    return hashlib.sha256(_tar(directory)).hexdigest()


# ---------------------------------------------------------------- pip

_REQUIREMENT = r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?(?P<pin>[^\s(;]*)"
_NOT_FOUND = re.compile(rf"No matching distribution found for {_REQUIREMENT}")
_VERSIONS = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")
_TLS = re.compile(r"SSLCertVerificationError|CERTIFICATE_VERIFY_FAILED|SSLError|problem confirming the ssl certificate")
_UNREACHABLE = re.compile(
    r"Failed to establish a new connection|NewConnectionError|ConnectTimeoutError|ReadTimeoutError|NameResolutionError"
    r"|Read timed out|Connection timed out|Connection refused|connection broken|Network is unreachable"
    r"|Remote end closed connection|Connection reset|Temporary failure in name resolution|Name or service not known"
)
_MISMATCH = re.compile(r"^\s+" + _REQUIREMENT + r" from ", re.MULTILINE)


def _last_error(text: str) -> str:
    """The last line that pip marked as an error, else the last line of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [re.sub(r"(?i)^error:\s*", "", line) for line in lines if re.match(r"(?i)error:\s*\S", line)]
    return (errors or lines or ["it said nothing"])[-1][:300].rstrip(".")


def _not_found(text: str, version: str) -> str | None:
    """The sentence for a package that pip did not find although it reached an index."""
    missing = _NOT_FOUND.search(text)
    if not missing:
        return None
    package, pin = missing["package"], missing["pin"]
    listed = _VERSIONS.search(text)
    versions = [v.strip() for v in listed["versions"].split(",")] if listed else []
    if versions in ([], ["none"]):
        return (
            f"flower_pip_index_url: the package index has no {package} for this Python, or wants a login: "
            "check the index, its user and password."
        )
    newest = ", ".join(reversed(versions[-3:]))
    if package.lower() == "flower":
        wanted = version or pin.lstrip("=")
        return f"flower_version: there is no Flower {wanted} on the package index: the newest there are {newest}."
    return f"The package index has no {package}{pin}: the newest there are {newest}; check flower_extra_packages."


def pip_failure(text: Any, version: Any = "") -> str:
    """One sentence for what pip printed when it failed; credentials in URLs are masked.

    text: standard output and error, in any order; version: the flower_version that was asked for.
    """
    said = mask_text(plain_text(text or "", "pip_failure"))
    asked = plain_text(version or "", "pip_failure: version")
    if re.search(r"No space left on device|\[Errno 28\]|Disk quota exceeded", said):
        return "The disk of the host is full: make room where /opt/flower and /tmp are, then run the play again."
    if re.search(r"DO NOT MATCH THE HASHES", said):
        package = _MISMATCH.search(said)
        what = f"{package['package']}{package['pin']}" if package else "a package"
        return (
            f"{what} from the package index does not match the hash in the lock: somebody changed the file, "
            "or flower_pip_index_url is a mirror that rebuilds packages; nothing of it was installed."
        )
    if "Hashes are required in --require-hashes mode" in said:
        return "The lock has no hash for a package that is needed: make the lock again with all hashes."
    if _TLS.search(said):
        return (
            "The certificate of the package index is not trusted by the host: "
            "set flower_pip_cert to a file with the issuer's certificate."
        )
    if re.search(r"ProxyError|Tunnel connection failed|407 Proxy", said):
        return "The proxy to the package index does not answer or refuses: check flower_pip_proxy."
    if _UNREACHABLE.search(said) and "No matching distribution found" not in said.partition("(from versions: none)")[0]:
        return (
            "The package index cannot be reached from the host: check flower_pip_index_url and flower_pip_proxy, "
            "and the host's network."
        )
    if re.search(r"\b40[13] (Client Error|Unauthorized|Forbidden)", said):
        return "The package index refuses the login: check the user and password in flower_pip_index_url."
    if sentence := _not_found(said, asked):
        return sentence
    if re.search(r"[Rr]equires a different Python|Requires-Python", said):
        return f"A package does not support the host's Python: {_last_error(said)}."
    return f"pip failed: {_last_error(said)}."


class FilterModule:
    """Names of the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {"package_digest": package_digest, "package_tree": package_tree, "pip_failure": pip_failure}
