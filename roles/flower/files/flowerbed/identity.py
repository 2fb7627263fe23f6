"""Who somebody is and what they may do: two roles, and the rules that give them to people of a sign-in service.

A viewer sees all and changes nothing; an operator may do all that Flower can.  Users with a password have their role
in the credentials.  For people who come from elsewhere (OpenID Connect, GitHub, a proxy's headers) there are rules: a
rule fits when each kind of condition that it names fits, and somebody whom no rule fits is not let in.  The rules are
read at every request and not only when somebody signs in, so that a changed rule counts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VIEWER, OPERATOR = "viewer", "operator"
ROLES = (VIEWER, OPERATOR)
EVERYBODY = "*"


class Person(str):
    """The name of somebody who has signed in; to Flower it is a plain text."""

    role: str
    #: how they proved it: session, basic or header
    via: str

    def __new__(cls, name: str, role: str, via: str = "session") -> Person:
        """A name with a role."""
        person = super().__new__(cls, name)
        person.role, person.via = role, via
        return person


class Doctor(Person):
    """The doctor's session, which may only look; a real user named `doctor` is a plain Person."""


@dataclass(frozen=True)
class Profile:
    """What a sign-in service says of somebody: a name, a verified e-mail address, groups, and other claims."""

    name: str
    email: str = ""
    groups: tuple[str, ...] = ()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """Gives a role to those who fit every kind of condition named; within a kind one of the values is enough.

    `users` are names or e-mail addresses, and `*` is everybody; `domains` are those of e-mail addresses.  Both are
    compared without regard to case, groups and claims exactly.
    """

    role: str
    users: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fits(self, profile: Profile) -> bool:
        """Whether the rule is about somebody with this profile."""
        return self.may_fit(profile.name, profile.email) and (
            (not self.groups or not set(self.groups).isdisjoint(profile.groups))
            and all(not set(values).isdisjoint(profile.claims.get(name, ())) for name, values in self.claims.items())
        )

    def may_fit(self, name: str, email: str) -> bool:
        """Whether it could be about somebody with this name and address, whatever their groups and claims."""
        names = {name.casefold(), email.casefold()} - {""}
        users = {user.casefold() for user in self.users}
        domain = email.casefold().rpartition("@")[2] if "@" in email else ""
        return (not users or EVERYBODY in users or not users.isdisjoint(names)) and (
            not self.domains or domain in {item.casefold() for item in self.domains}
        )


def role_of(rules: Sequence[Rule], profile: Profile) -> str | None:
    """The highest role that any rule gives; None when no rule fits, which is nobody who is let in."""
    roles = {rule.role for rule in rules if rule.fits(profile)}
    return OPERATOR if OPERATOR in roles else VIEWER if roles else None


def without_the_rest(rules: Sequence[Rule], profile: Profile) -> Profile:
    """The profile with only those groups and claims that some rule asks for, so that a cookie can hold it."""
    groups = {group for rule in rules for group in rule.groups}
    asked: dict[str, set[str]] = {}
    for rule in rules:
        for name, values in rule.claims.items():
            asked.setdefault(name, set()).update(values)
    claims = {name: tuple(v for v in profile.claims.get(name, ()) if v in values) for name, values in asked.items()}
    kept = {name: values for name, values in claims.items() if values}
    return Profile(profile.name, profile.email, tuple(g for g in profile.groups if g in groups), kept)


def texts(value: Any) -> tuple[str, ...]:
    """A claim as texts: a list's items, or the one value; true and numbers as JSON writes them."""
    items = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return tuple(
        str(item).lower() if isinstance(item, bool) else str(item) for item in items if not isinstance(item, dict)
    )
