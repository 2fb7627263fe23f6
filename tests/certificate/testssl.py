"""Runs testssl.sh (Debian's package) on one host against another, and reads what it finds."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from tests.hosts import Host

# What cannot be well with an authority that exists for minutes, and what says nothing of the server.
EXCEPTIONS = {
    "cert_revocation": "it publishes neither CRL nor OCSP",
    "certificate_transparency": "no log takes a made-up authority's certificates",
    "WARN engine_problem": "the examiner's own OpenSSL knows no GOST",
    # "check failed because of connect problem", now and then on a busy machine; every other connection works.
    "WARN sessionresumption_ticket": "the examiner's client could not tell; they are off, as TLS_session_ticket says",
}
GRAVE = {"MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}
RESULT = "/tmp/testssl.json"
ROOT = "/tmp/testssl-root.pem"


@dataclass(frozen=True)
class Examination:
    """A testssl.sh that is at work."""

    examiner: Host
    process: subprocess.Popen[str]

    @classmethod
    def begin(cls, examiner: Host, host: Host, root: str) -> Examination:
        """Start it; it takes about a minute."""
        examiner.run("rm", "-f", RESULT)
        examiner.run("install", "-m", "0644", "/dev/stdin", ROOT, stdin=root)
        command = [
            "testssl", "--quiet", "--color", "0", "--warnings", "off", "--add-ca", ROOT, "--jsonfile", RESULT,
            "--ip", host.address, f"{host.server_name}:443",
        ]  # fmt: skip
        return cls(
            examiner,
            subprocess.Popen(
                ["docker", "exec", examiner.name, *command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            ),
        )  # fmt: skip

    def findings(self) -> list[dict[str, str]]:
        """Wait for its end; all that it found, each with id, severity and finding."""
        output = self.process.communicate(timeout=400)[0]
        found: list[dict[str, str]] = json.loads(self.examiner.run("cat", RESULT))
        assert len(found) > 100, output[-2000:]
        return found

    def grave(self) -> list[str]:
        """Findings above LOW, and checks that could not be made, which are not among the exceptions."""
        return [
            f"{entry['severity']} {entry['id']}: {entry['finding']}"
            for entry in self.findings()
            if entry["severity"] in GRAVE
            and not {(name := entry["id"].split(" ")[0]), f"{entry['severity']} {name}"} & set(EXCEPTIONS)
        ]
