"""The sign-in page of a Flower whose people are named by a proxy's headers."""

from __future__ import annotations

from flower.views import BaseHandler

from flowerbed.web import guard


class LoginHandler(BaseHandler):  # type: ignore[misc]
    """Where somebody comes whom the proxy's headers do not let in: there is nothing to fill in here."""

    def get(self) -> None:
        """Says so: 403 for a name that no rule lets in, 401 where the proxy gave none."""
        if self.current_user is not None:
            self.redirect((self.application.options.url_prefix or "") + "/")
            return
        name = self.request.headers.get(guard.sign_in_of(self).settings.header.user, "").strip()
        if name:
            guard.refuse(self, 403, f"{name} may not use this Flower. Ask its operator for access.")
        else:
            guard.refuse(self, 401, "The proxy before this Flower gave no name: sign in there.")
