"""The sign-in page of a Flower whose people are named by a proxy's headers."""

from __future__ import annotations

from flowerbed import audit
from flowerbed.headers import header_profile
from flowerbed.web import guard
from flowerbed.web.login import Page


class LoginHandler(Page):
    """Where somebody comes whom the proxy's headers do not let in: there is nothing to fill in here."""

    def get(self) -> None:
        """Says so: 403 for a name that no rule lets in, 401 where the proxy gave none."""
        if self.current_user is not None:
            self.redirect(self.next_page())
            return
        profile = header_profile(self.request, self.sign_in.settings)
        if profile is None:
            guard.refuse(self, 401, "The proxy before this Flower gave no name that can be used: sign in there.")
            return
        address = guard.client_address(self.request)
        reason = "no rule of access fits"
        audit.write("sign-in refused", user=profile.name, reason=reason, address=address, via="header")
        guard.refuse(self, 403, f"{profile.name} may not use this Flower. Ask its operator for access.")
