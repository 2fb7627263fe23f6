"""Signs people in to Flower with tickets of a company's portal.

The portal is asked for a ticket at PORTAL?state=…, and sends the browser back to Flower's /login with

    state=…&user=ada%40acme.example&groups=ops%2Cstaff&ticket=…

where the ticket is the HMAC-SHA256, in hexadecimal, of everything before `&ticket`.  Its key is flower_oauth2_secret,
which the portal knows too.  The state makes a ticket good for one browser, and once.
"""

import hashlib
import hmac
import secrets
from urllib.parse import urlencode

from flower.views import BaseHandler
from tornado.web import HTTPError

PORTAL = "https://portal.acme.example/ticket"


class PortalLoginHandler(BaseHandler):
    """Answers /login: goes to the portal, or comes back with a ticket."""

    def get(self) -> None:
        """302 to the portal or into Flower; 403 for a ticket that is no good."""
        ticket = self.get_query_argument("ticket", "")
        if not ticket:
            state = secrets.token_urlsafe(32)
            self.set_secure_cookie("portal_state", state, expires_days=1 / 96)
            self.redirect(PORTAL + "?" + urlencode({"state": state}))
            return
        state = (self.get_secure_cookie("portal_state", max_age_days=1 / 96) or b"").decode()
        self.clear_cookie("portal_state")
        user, groups = self.get_query_argument("user", ""), self.get_query_argument("groups", "")
        signed = urlencode({"state": state, "user": user, "groups": groups})
        expected = hmac.new(self.settings["oauth"]["secret"].encode(), signed.encode(), hashlib.sha256).hexdigest()
        if not state or not hmac.compare_digest(ticket.encode(), expected.encode()):
            raise HTTPError(403, "This ticket is no good. Ask the portal for another one.")
        # optional: groups that rules of flower_access may name
        self.sign_in_groups = groups.split(",")
        # Flower's contract: from here on the browser is signed in, when a rule of flower_access fits
        self.set_secure_cookie("user", user)
        self.redirect(self.reverse_url("main"))
