"""Flower's own sign-in services, and a handler of one's own, with our sessions and rules.

The addresses are read from our settings: Flower's classes read them from the environment, some when imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import flower.views.auth
from flower.views import BaseHandler

from flowerbed.headers import is_address
from flowerbed.identity import Profile, texts
from flowerbed.install import imported
from flowerbed.settings import Credentials, Settings, SettingsError, rules
from flowerbed.web import contract
from flowerbed.web.service import RefusedError, Service, as_list, as_object, text_of


def prepare(config: dict[str, Any], settings: Settings, credentials: Credentials) -> None:
    """Gives Flower what its services read, and makes its handlers obey our rules and start our sessions."""
    for number, rule in enumerate(rules(settings), start=1):
        # such a rule would fit nobody
        for kind in ("groups", "claims") if settings.auth == "google" else ("claims",):
            if getattr(rule, kind):
                raise SettingsError(
                    f"access: rule {number} names {kind}, of which auth {settings.auth!r} says nothing."
                )
    given = {
        "oauth2_key": settings.client_id,
        "oauth2_secret": credentials.client_secret,
        "oauth2_redirect_uri": settings.redirect_uri,
    }
    config.update({name: value for name, value in given.items() if value})
    contract.use_rules(rules(settings))
    contract.use_sessions(settings)
    contract.tell_no_codes()
    if settings.auth == "custom":
        kind = imported(settings.provider.handler)
        if not (isinstance(kind, type) and issubclass(kind, BaseHandler)):
            raise SettingsError(f"{settings.provider.handler} must be a subclass of flower.views.BaseHandler.")


class GoogleLoginHandler(Service, flower.views.auth.GoogleAuth2LoginHandler):  # type: ignore[misc]
    """Google: a verified address, whose domain counts where Google itself gives the address out."""

    title = "Google"
    scopes = ("profile", "email")
    user_url = "https://www.googleapis.com/userinfo/v2/me"

    async def profiles(self, token: str) -> list[Profile]:
        """The one person.

        An address that is not Google's own and not of the Workspace domain `hd` was verified once, and may belong to
        somebody who has left that domain since: https://developers.google.com/identity/gsi/web/guides/verify-google-id-token
        """
        data = as_object(await self.ask(self.user_url, token))
        email = _verified(self.title, data, data.get("verified_email") is True)
        domain = email.casefold().rpartition("@")[2]
        is_theirs = domain in ("gmail.com", str(data.get("hd", "")).casefold())
        return [Profile(email, email if is_theirs else "")]


class GithubLoginHandler(Service, flower.views.auth.GithubLoginHandler):  # type: ignore[misc]
    """GitHub: each verified address, organisations as `acme` and teams as `acme/ops`."""

    title = "GitHub"
    scopes = ("user:email",)

    @property
    def domain(self) -> str:
        """The host of github.com or of one's own GitHub."""
        return self.sign_in.settings.provider.github_domain

    @property
    def api(self) -> str:
        """Where the API is: github.com and its ghe.com tenants have a host for it, GitHub Enterprise Server a path.

        https://docs.github.com/enterprise-server/rest/using-the-rest-api/getting-started-with-the-rest-api
        """
        own_host = self.domain == "github.com" or self.domain.endswith(".ghe.com")
        return f"https://api.{self.domain}" if own_host else f"https://{self.domain}/api/v3"

    @property
    def _OAUTH_AUTHORIZE_URL(self) -> str:  # noqa: N802 - Tornado's name, which Flower fills in when it is imported
        return f"https://{self.domain}/login/oauth/authorize"

    @property
    def _OAUTH_ACCESS_TOKEN_URL(self) -> str:  # noqa: N802
        return f"https://{self.domain}/login/oauth/access_token"

    def scopes_for_groups(self, asked: Sequence[str]) -> Sequence[str]:
        """Organisations and teams are told with `read:org` only."""
        return ("read:org",) if asked else ()

    async def profiles(self, token: str) -> list[Profile]:
        """One profile for each verified address, the primary one first."""
        found = [as_object(item) for item in as_list(await self.ask(f"{self.api}/user/emails", token))]
        found.sort(key=lambda item: item.get("primary") is not True)
        emails = [text_of(item, "email") for item in found if item.get("verified") is True]
        if not (emails := [email for email in emails if is_address(email)]):
            raise RefusedError("GitHub has no verified e-mail address of yours, and this Flower knows people by it.")
        groups = await self._groups(token)
        return [Profile(email, email, groups) for email in emails]

    async def _groups(self, token: str) -> tuple[str, ...]:
        asked, found = self.asked_groups(), set()
        if any("/" not in group for group in asked):
            async for item in self.pages(f"{self.api}/user/orgs", token):
                found.add(text_of(item, "login"))
        if any("/" in group for group in asked):
            async for item in self.pages(f"{self.api}/user/teams", token):
                found.add(f"{text_of(as_object(item.get('organization')), 'login')}/{text_of(item, 'slug')}")
        return _as_asked(asked, found)


class GitLabLoginHandler(Service, flower.views.auth.GitLabLoginHandler):  # type: ignore[misc]
    """GitLab: the confirmed primary address, and groups by their full path."""

    title = "GitLab"
    scopes = ("read_api",)

    @property
    def domain(self) -> str:
        """The host of gitlab.com or of one's own GitLab."""
        return self.sign_in.settings.provider.gitlab_domain

    @property
    def _OAUTH_AUTHORIZE_URL(self) -> str:  # noqa: N802
        return f"https://{self.domain}/oauth/authorize"

    @property
    def _OAUTH_ACCESS_TOKEN_URL(self) -> str:  # noqa: N802
        return f"https://{self.domain}/oauth/token"

    async def profiles(self, token: str) -> list[Profile]:
        """The one person."""
        api = f"https://{self.domain}/api/v4"
        data = as_object(await self.ask(f"{api}/user", token))
        email = _verified(self.title, data, bool(data.get("confirmed_at")))
        asked, found = self.asked_groups(), set()
        if asked:
            level = self.sign_in.settings.provider.gitlab_min_access_level
            async for item in self.pages(f"{api}/groups?min_access_level={level}", token):
                found.add(text_of(item, "full_path"))
        return [Profile(email, email, _as_asked(asked, found))]


class OktaLoginHandler(Service, flower.views.auth.OktaLoginHandler):  # type: ignore[misc]
    """Okta: a verified address, and the claim `groups` of its userinfo endpoint."""

    title = "Okta"
    scopes = ("openid", "email")

    @property
    def base_url(self) -> str:
        """The authorization server, such as https://x.okta.com/oauth2/default."""
        return self.sign_in.settings.provider.okta_base_url.rstrip("/")

    def scopes_for_groups(self, asked: Sequence[str]) -> Sequence[str]:
        """The claim `groups` comes with a scope of that name."""
        return ("groups",) if asked else ()

    async def exchange(self, code: str) -> Any:
        """Flower's name for it is another here."""
        return await self.get_access_token(redirect_uri=self.sign_in.settings.redirect_uri, code=code)

    async def profiles(self, token: str) -> list[Profile]:
        """The one person."""
        data = as_object(await self.ask(self._OAUTH_USER_INFO_URL, token))
        email = _verified(self.title, data, data.get("email_verified") is True)
        return [Profile(email, email, texts(data.get("groups")))]


def _verified(title: str, data: dict[str, Any], verified: bool) -> str:
    """The address in what a service says of somebody; raises RefusedError for none or a doubtful one."""
    email = data.get("email")
    if not isinstance(email, str) or not is_address(email):
        raise RefusedError(f"{title} gave no e-mail address for you, and this Flower knows people by it.")
    if not verified:
        raise RefusedError(f"{title} has not verified your e-mail address {email}: do that there first.")
    return email


def _as_asked(asked: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    """Those groups that rules ask for, as they write them: for GitHub and GitLab upper and lower case are the same."""
    known = {name.casefold() for name in found}
    return tuple(group for group in asked if group.casefold() in known)
