"""The sign-in in front of every handler of Flower's, by replacing methods of its BaseHandler.

Closed unless said otherwise: a handler that is not in the short list of open ones needs a signed-in user, whether or
not it carries Tornado's `authenticated`, and one that is not in the list for viewers needs an operator.  Checking a
password takes a quarter of a second, so it happens in `prepare`, which may wait, and not in `get_current_user`, which
may not.
"""

# ruff: noqa: PLC0415  # late imports: Flower and Celery act when imported, and not every command needs them
from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlparse

import tornado.web

from flowerbed import audit
from flowerbed.auth import COOKIE, SignIn, session_person
from flowerbed.headers import header_person, on_unix_socket
from flowerbed.identity import OPERATOR, Doctor, Person

SIGN_IN = "flowerbed_sign_in"
#: the class that answers /login
LOGIN_CLASS = "flowerbed_login_class"
CHALLENGE = 'Basic realm="flower", charset="UTF-8"'
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: what a viewer may ask of Flower's handlers; a handler that is not here is closed to viewers.  The table of tasks is
#: read by POST, since its query is long.  Handlers of one's own say it themselves: `viewer_methods = ("GET",)`.
VIEWER_METHODS: dict[str, tuple[str, ...]] = {
    "flower.views.workers.WorkersView": ("GET",),
    "flower.views.workers.WorkerView": ("GET",),
    "flower.views.tasks.TasksView": ("GET",),
    "flower.views.tasks.TasksDataTable": ("GET", "POST"),
    "flower.views.tasks.TaskView": ("GET",),
    "flower.views.broker.BrokerView": ("GET",),
    "flower.views.monitor.Metrics": ("GET",),
    "flower.api.workers.ListWorkers": ("GET",),
    "flower.api.tasks.ListTasks": ("GET",),
    "flower.api.tasks.ListTaskTypes": ("GET",),
    "flower.api.tasks.GetQueueLengths": ("GET",),
    "flower.api.tasks.TaskInfo": ("GET",),
    "flower.api.tasks.TaskResult": ("GET",),
}


def guard_flower() -> None:
    """Puts the guard into Flower's handlers; raises AttributeError when they are not as expected."""
    from flower.api import BaseApiHandler
    from flower.views import BaseHandler

    flowers_xsrf_check, flowers_api_prepare = BaseHandler.check_xsrf_cookie, BaseApiHandler.prepare
    flowers_render = BaseHandler.render

    async def prepare(handler: Any) -> None:
        await guard(handler)

    async def api_prepare(handler: Any) -> None:
        await guard(handler)
        if not handler._finished:
            flowers_api_prepare(handler)

    def check_xsrf_cookie(handler: Any) -> None:
        # without a session there is nothing to misuse; the guard then says 401, which a script understands
        if current_session(handler) is not None:
            flowers_xsrf_check(handler)

    def render(handler: Any, *args: Any, **kwargs: Any) -> Any:
        # Flower's templates leave the buttons out
        if "read_only" in kwargs and may_not(handler, "POST"):
            kwargs["read_only"] = True
        return flowers_render(handler, *args, **kwargs)

    def on_finish(handler: Any) -> None:
        if changes(handler) and not is_open(handler):
            write_audit(handler)

    audit.start()
    BaseHandler.render = render
    BaseHandler.on_finish = on_finish
    BaseHandler.get_current_user = current_session
    BaseHandler.check_xsrf_cookie = check_xsrf_cookie
    BaseHandler.prepare = prepare
    BaseApiHandler.prepare = api_prepare


def is_guarded() -> bool:
    """Whether Flower's handlers still have our `get_current_user`."""
    from flower.views import BaseHandler

    return BaseHandler.get_current_user is current_session


def unguarded(handlers: Iterable[Any]) -> list[str]:
    """The paths of handlers that do not come from Flower's BaseHandler and so ask nobody who they are.

    Static files may stay as they are: they hold nothing about anybody.
    """
    from flower.views import BaseHandler

    found = []
    for entry in handlers:
        path, kind = (entry.matcher.regex.pattern, entry.target) if hasattr(entry, "target") else entry[:2]
        if not (isinstance(kind, type) and issubclass(kind, (BaseHandler, tornado.web.StaticFileHandler))):
            found.append(path)
    return found


async def guard(handler: Any) -> None:
    """Signs the request in, or answers it: 302 to the login page, 401, 403, 429 or 503."""
    method = handler.request.method
    if method == "OPTIONS" or is_open(handler):
        return
    if method not in SAFE_METHODS and is_cross_site(handler.request):
        refuse(handler, 403, "Cross-site request forbidden")
        return
    if has_basic(handler.request):
        await sign_in_with_basic(handler)
        if handler._finished:
            return
    if handler.current_user is None:
        send_to_login(handler)
    elif reason := may_not(handler, method):
        refuse(handler, 403, reason)


def may_not(handler: Any, method: str) -> str | None:
    """Why the signed-in user may not use this method here; None when they may."""
    person = handler.current_user
    if isinstance(person, Doctor):
        return None if method in SAFE_METHODS else "The doctor may only look"
    allowed = method in viewer_methods(handler)
    if not allowed and getattr(person, "role", None) != OPERATOR:
        return "Viewers may look, and change nothing"
    if not allowed and method not in SAFE_METHODS and sign_in_of(handler).settings.read_only:
        return "This Flower is read-only"
    return None


def viewer_methods(handler: Any) -> tuple[str, ...]:
    """The methods of a handler that change nothing; none for a handler that nobody has looked at."""
    kind = type(handler)
    said: tuple[str, ...] | None = getattr(handler, "viewer_methods", None)
    methods = VIEWER_METHODS.get(f"{kind.__module__}.{kind.__qualname__}", ()) if said is None else tuple(said)
    return (*methods, "HEAD") if "GET" in methods else methods


def changes(handler: Any) -> bool:
    """Whether this request would change something."""
    method = handler.request.method
    return method not in SAFE_METHODS and method not in viewer_methods(handler)


def write_audit(handler: Any) -> None:
    """Writes down who sent this request."""
    person = handler.current_user
    role = "doctor" if isinstance(person, Doctor) else getattr(person, "role", None)
    via = getattr(person, "via", None)
    audit.change(handler, None if person is None else str(person), role, client_address(handler.request), via)


def sign_in_of(handler: Any) -> SignIn:
    """The one sign-in of this Flower."""
    value: SignIn = handler.application.settings[SIGN_IN]
    return value


def current_session(handler: Any) -> Person | None:
    """The person of the request's session cookie or headers; None with HTTP Basic, which takes time to check."""
    sign_in = sign_in_of(handler)
    if has_basic(handler.request):
        return None
    for value in cookie_values(handler.request):
        if (person := session_person(sign_in.settings, sign_in.credentials, value)) is not None:
            return person
    if sign_in.settings.auth == "header":
        return header_person(handler.request, sign_in.settings)
    return None


async def sign_in_with_basic(handler: Any) -> None:
    """Checks the Authorization header and sets the current user, or answers."""
    sign_in = sign_in_of(handler)
    pair = basic_pair(handler.request.headers["Authorization"])
    if pair is None:
        challenge(handler)
        return
    answer = await sign_in.attempt(*pair, client_address(handler.request))
    if answer.signed_in:
        user = next(user for user in sign_in.credentials.users if user.name == pair[0])
        handler.current_user = Person(user.name, user.role, "basic")
    elif answer.status == 401:
        challenge(handler)
    else:
        handler.set_header("Retry-After", str(answer.retry_after))
        refuse(handler, answer.status, busy_text(answer.status, answer.retry_after))


def is_open(handler: Any) -> bool:
    """Whether Flower lets everybody in here: the login itself, probes, and the page for unknown addresses."""
    from flower.views.auth import LoginHandler as FlowersLogin
    from flower.views.error import NotFoundErrorHandler
    from flower.views.monitor import Healthcheck, Metrics

    from flowerbed.web.login import LogoutHandler

    login = handler.application.settings[LOGIN_CLASS]
    open_handlers = (FlowersLogin, login, LogoutHandler, NotFoundErrorHandler, Healthcheck, Metrics)
    # `Metrics.get = authenticated(Metrics.get)` is Flower's documented way to close its metrics
    closed_by_user = hasattr(getattr(handler, handler.request.method.lower(), None), "__wrapped__")
    return isinstance(handler, open_handlers) and not closed_by_user


def send_to_login(handler: Any) -> None:
    """A browser that opens a page is redirected; a script is told 401."""
    from flower.api import BaseApiHandler

    request = handler.request
    opens_page = request.method in SAFE_METHODS and "text/html" in request.headers.get("Accept", "")
    if opens_page and not is_script(request) and not isinstance(handler, BaseApiHandler):
        handler.redirect(handler.get_login_url() + "?" + urlencode({"next": request.uri}))
    elif is_script(request):
        # no challenge for a page's own script: the browser would open its password box over the page
        refuse(handler, 401, "Sign in again")
    else:
        challenge(handler)


def challenge(handler: Any) -> None:
    """Answers 401 and asks for HTTP Basic."""
    handler.set_header("WWW-Authenticate", CHALLENGE)
    refuse(handler, 401, "Access denied")


def refuse(handler: Any, status: int, text: str) -> None:
    """Answers with one line of plain text."""
    handler.set_status(status)
    handler.set_header("Content-Type", "text/plain; charset=UTF-8")
    handler.set_header("Cache-Control", "no-store")
    handler.finish(text + "\n")


def busy_text(status: int, seconds: int) -> str:
    """What a person is told instead of being let in."""
    if status == 429:
        minutes = -(-seconds // 60)
        return f"Too many failed attempts. Try again in {minutes} minute{'s' if minutes != 1 else ''}."
    return "Too many people are signing in. Try again in a few seconds."


def has_basic(request: Any) -> bool:
    """Whether the request brings a name and a password; other schemes are not ours."""
    return bool(request.headers.get("Authorization", "")[:6].lower() == "basic ")


def basic_pair(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic header: RFC 7617 with UTF-8, or Latin-1 as old clients send it."""
    try:
        raw = base64.b64decode(header[6:].strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


def cookie_values(request: Any) -> list[str]:
    """Every value of our cookie: an instance under / and one under /prefix may both have set one for this page."""
    values: list[str] = []
    for part in ";".join(request.headers.get_list("Cookie")).split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            try:
                morsel = SimpleCookie(f"{COOKIE}={value}").get(COOKIE)
            except CookieError:
                continue
            if morsel is not None:
                values.append(morsel.value)
    return values[:8]


def is_script(request: Any) -> bool:
    """Whether a page's script sent this, not the address bar or a command line."""
    if request.headers.get("X-Requested-With"):
        return True
    return bool(request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate")


def is_cross_site(request: Any) -> bool:
    """Whether another site's page sent this; Flower 2.2 checks the same, Flower 2.1 does not."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site:
        return site not in ("same-origin", "none")
    return bool(origin) and urlparse(origin).netloc != request.host


def client_address(request: Any) -> str:
    """The client's address: nginx's word for it on the unix socket, which only nginx reaches, else the connection's."""
    if not on_unix_socket(request):
        return str(request.remote_ip)
    # the last entry of X-Forwarded-For is the proxy's own; those before it are the client's claims
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2]
    for text in (request.headers.get("X-Real-IP", ""), forwarded):
        try:
            return str(ipaddress.ip_address(text.strip()))
        except ValueError:
            continue
    return "the unix socket"


def session_path(handler: Any) -> str:
    """The path of the session cookie, so that instances under different prefixes of one host keep apart."""
    prefix = (handler.application.options.url_prefix or "").strip("/")
    return f"/{prefix}" if prefix else "/"


def raw_xsrf_check(handler: Any) -> None:
    """Tornado's own check of the form's token, whatever Flower makes of it."""
    tornado.web.RequestHandler.check_xsrf_cookie(handler)
