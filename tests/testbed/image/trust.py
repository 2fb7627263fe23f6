"""Trust the certificates of the machine that are not Debian's own (a company's CA, for example)."""

import re
import subprocess
from pathlib import Path

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def certificates(path: str) -> list[str]:
    """Certificates of a PEM file."""
    return CERTIFICATE.findall(Path(path).read_text(errors="replace"))


known = {"".join(certificate.split()) for certificate in certificates("/etc/ssl/certs/ca-certificates.crt")}
for number, certificate in enumerate(certificates("/usr/local/lib/testbed/ca-bundle.pem")):
    if "".join(certificate.split()) not in known:
        Path(f"/usr/local/share/ca-certificates/testbed-{number}.crt").write_text(certificate + "\n")
subprocess.run(["update-ca-certificates"], check=True)
