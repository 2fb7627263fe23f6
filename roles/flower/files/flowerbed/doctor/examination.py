"""What all checks share: the order, what was seen already, and what to say when nothing answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flowerbed.doctor import programs
from flowerbed.doctor.door import BODY_LIMIT, METRICS_LIMIT, Answer, Door, UnreachableError, UsageError, is_loopback
from flowerbed.doctor.inside import Inside
from flowerbed.doctor.masking import Masker
from flowerbed.doctor.report import CHECKS, COLLECTOR_CHECKS, EXIT_OF, Finding

CLOSE_API = "Set flower_users, and take FLOWER_UNAUTHENTICATED_API out of Flower's environment."


class Examination:
    """Looks at one door; `inside` is there when the doctor stands on the host itself."""

    def __init__(self, door: Door, mask: Masker, inside: Inside | None = None, direct: Door | None = None) -> None:
        self.door, self.mask, self.inside = door, mask, inside
        #: Flower itself, past the web server, when the inside knows it
        self.direct = direct
        self.down: UnreachableError | None = None
        self.refused = False
        self._entered: Answer | None = None
        self._seen: dict[tuple[str, str], Answer] = {}

    def usual(self) -> tuple[str, ...]:
        """The checks that can be made here."""
        collects = self.inside is not None and self.inside.settings.collector.enabled
        return tuple(name for name in CHECKS if collects or name not in COLLECTOR_CHECKS)

    def run(self, only: Iterable[str] | None = None) -> list[Finding]:
        """All findings of the wanted checks (the usual ones when not given), in the order of CHECKS."""
        wanted = set(self.usual() if only is None else only)
        # the broker is looked at before the workers, since it explains their absence
        order = sorted(wanted, key=lambda name: (name == "workers", CHECKS.index(name)))
        found: dict[str, Finding] = {name: self._guarded(name, wanted) for name in order}
        return [found[name] for name in CHECKS if name in wanted]

    def _guarded(self, name: str, wanted: set[str]) -> Finding:
        check: Callable[[], Finding] = getattr(self, f"check_{name}")
        # these are seen from the host even when the page is not
        if self.down and name != "ui" and not (name in ("broker", *COLLECTOR_CHECKS) and self.inside):
            if "ui" in wanted:
                return Finding(name, "skip", "Flower is not reachable")
            return self._fail(name, self.down.reason, self.down.hint, 1)
        try:
            finding = check()
        except UnreachableError as error:
            if self.down is None and name != "ui" and error.kind == "timeout":
                finding = self._fail(name, error.reason, error.hint, 1)
            else:
                self.down = error
                finding = self._unreachable(name, error)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001  # one check that stumbles must not hide the others
            text = f"the doctor stumbled: {type(error).__name__}: {error}"
            finding = self._fail(name, text[:240], "Please report this, with the command that you gave.", 1)
        finding.message, finding.hint = self.mask(finding.message), self.mask(finding.hint)
        return finding

    def _fail(self, name: str, message: str, hint: str, code: int | None = None) -> Finding:
        return Finding(name, "fail", message, hint, code or EXIT_OF[name])

    def _unreachable(self, name: str, error: UnreachableError) -> Finding:
        hint = error.hint
        if self.inside:
            hint = self.inside.why_down(error, self._local_port()) or hint
        elif error.kind == "closed" and self.door.speaks_tls():
            hint = "It speaks TLS there: write https:// in the URL."
        elif error.kind in ("closed", "tls"):
            hint = self._holder() or hint
        return self._fail(name, error.reason, hint, 1)

    def _local_port(self) -> int | None:
        """The TCP port of this machine that the door or Flower itself should have, if it is one."""
        if self.inside and not self.inside.settings.unix_socket:
            return self.inside.settings.port
        return None if self.door.unix_socket else (self.door.connect or (self.door.host, self.door.port))[1]

    def _holder(self) -> str:
        port = self._local_port()
        if port is None or not (is_loopback(self.door.peer or self.door.host)):
            return ""
        holder = programs.port_holder(port)
        return f"Port {port} is held by {holder}: stop that program or give Flower another port." if holder else ""

    def _anonymous(self, path: str) -> Answer:
        """What a passer-by gets, asked for once: the web server limits how often one may ask."""
        key = (self.door.scheme, path)
        if key not in self._seen:
            limit = METRICS_LIMIT if path == "/metrics" else BODY_LIMIT
            self._seen[key] = self.door.get(path, login=False, limit=limit)
        return self._seen[key]

    def _enter(self) -> Answer:
        """The first page with the login, asked for once: a wrong password is slowed down, and counted, by the door."""
        if self._entered is None:
            self._entered = self.door.get("/")
        return self._entered

    def _cannot_enter(self, name: str) -> Finding | None:
        """A skip when we know that we are not let in, so that one wrong password is one failure and not three."""
        if self.door.distrust and self.door.login:
            return Finding(name, "skip", "no login is sent over TLS that is not trusted")
        if self.refused or (not self.door.login and self._anonymous("/").asks_login):
            return Finding(name, "skip", "needs a login that works")
        return None
