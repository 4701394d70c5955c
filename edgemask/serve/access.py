"""Who may see the page: the token, and what keeps other web sites out.

Without a token only programs on the same machine can connect, but a browser on that machine runs
the code of every site its user visits. Three things keep those out: the name in Host must be of
this machine (a site can make its own name point here), requests that a browser marks as coming
from another site are refused, and a change must be JSON from a page of this very server.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgemask.errors import OutputError, SourceError
from edgemask.outputs import sync_folder

__all__ = ["Access", "Verdict", "default_token_file", "is_loopback", "load_token"]

_SHORTEST = 16
_PLAIN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what may stand in an address and in a cookie


def is_loopback(host: str) -> bool:
    """Return whether an address or name is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def default_token_file(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the token is kept: the service's state folder, else the user's."""
    values = os.environ if environment is None else environment
    service = values.get("STATE_DIRECTORY", "").partition(":")[0]
    if service:
        return Path(service) / "token"
    home = values.get("XDG_STATE_HOME") or Path(values.get("HOME") or Path.home()) / ".local/state"
    return Path(home) / "edgemask" / "token"


def load_token(path: Path) -> tuple[str, bool]:
    """Read the token, or make one that only this user can read.

    Returns
    -------
    token : str
    new : bool
        Whether it was made just now.

    Raises
    ------
    SourceError
        The file cannot be read, others can read it, or it holds no token.
    OutputError
        It cannot be written.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text("utf-8").strip()
    except FileNotFoundError:
        return _make_token(path), True
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SourceError(f"the token file {path} cannot be read: {reason}") from error
    if not token:  # touched by somebody
        return _make_token(path), True
    # Group may read: that is how systemd shows a credential to a service.
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SourceError(f"others can read the token file {path}: run chmod 600 {path}")
    if len(token) < _SHORTEST or not _PLAIN.fullmatch(token):
        raise SourceError(
            f"the token file {path} holds no token of {_SHORTEST} or more letters, digits and "
            "- _ . ~ + / =: delete it, and a new one is made"
        )
    return token, False


def _make_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Complete or not at all: half a token would be refused at every later start.
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(token + "\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(beside, path)
            sync_folder(path.parent)  # it is shown only once, so it must not be lost
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"the token file {path} cannot be written ({error.strerror}): name another with "
            "--token-file"
        ) from error
    return token


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a request.

    Attributes
    ----------
    status : int
        200 to go on, else the answer.
    message : str
        For a person.
    explicit : bool
        Whether the request itself brought the token, which no other site could have made it do.
    in_query : bool
        Whether it did so in the URL.
    """

    status: int = 200
    message: str = ""
    explicit: bool = False
    in_query: bool = False


class Access:
    """Judges requests.

    Parameters
    ----------
    token : str or None
        None lets in whoever can connect.
    port : int
        Part of the cookie's name: cookies of two servers on one machine would mix.
    """

    def __init__(self, token: str | None, port: int) -> None:
        self._token = token
        self.cookie_name = f"edgemask_{port}"

    def cookie(self) -> str:
        """Return the value of Set-Cookie that keeps the token.

        Lax and not Strict: a link to the page from a mail or chat would not bring a Strict cookie
        along, not even after the redirect that sets it.
        """
        year = 365 * 24 * 3600
        return f"{self.cookie_name}={self._token}; Path=/; Max-Age={year}; HttpOnly; SameSite=Lax"

    def judge(self, method: str, headers: Message, query: str) -> Verdict:
        """Return what is to be done with a request.

        Parameters
        ----------
        method : str
        headers : Message
            As :mod:`http.server` gives them.
        query : str
            What follows the question mark.
        """
        explicit = in_query = False
        if self._token is None:
            host = headers.get("Host")
            if host is not None and not is_loopback(_hostname(host)):
                return Verdict(
                    421,
                    f"This server answers to localhost only, not to {host!r}. To reach it under "
                    "another name start it with --token-file.",
                )
        else:
            in_query = any(self._same(t) for t in _tokens(query))
            explicit = in_query or self._same(_bearer(headers))
            if not explicit and not self._same(self._from_cookie(headers)):
                return Verdict(401, "This page needs its token: open the address that edgemask "
                    "serve printed when it was first started.")  # fmt: skip
        site = headers.get("Sec-Fetch-Site", "same-origin")
        navigation = method == "GET" and headers.get("Sec-Fetch-Mode") == "navigate"
        if site not in ("same-origin", "none") and not explicit and not navigation:
            return Verdict(403, "Another web site may not use this page.")
        if method != "GET" and not _same_origin(headers):
            return Verdict(403, "Settings can be changed by this server's own page only.")
        return Verdict(explicit=explicit, in_query=in_query)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    def _from_cookie(self, headers: Message) -> str:
        # Not by http.cookies, which gives up at the first cookie it does not understand: those of
        # all servers on this host come along, whatever they look like.
        for pair in headers.get("Cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == self.cookie_name:
                return value.strip('"')
        return ""


def _tokens(query: str) -> list[str]:
    """The tokens in a query; a + is one, as people paste it, and not a space."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [unquote(value) for key, _, value in pairs if key == "token"]


def _bearer(headers: Message) -> str:
    kind, _, value = headers.get("Authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def _same_origin(headers: Message) -> bool:
    """Programs send no Origin; browsers always do with a POST, and with the scheme in front."""
    origin = headers.get("Origin")
    if origin is None:
        return True
    place = origin.partition("://")[2].lower()
    return bool(place) and place == headers.get("Host", "").lower()


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that are no address
        return ""
