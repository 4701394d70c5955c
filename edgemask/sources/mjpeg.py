"""Motion JPEG over HTTP, as IP cameras, ESP32-CAMs and mjpg-streamer send it."""

from __future__ import annotations

import http.client
import io
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from edgemask.errors import SourceError, SourceTimeout
from edgemask.images import load_image
from edgemask.sources.base import LiveSource, Pixels
from edgemask.sources.jpegs import split_jpegs
from edgemask.sources.uri import redact

__all__ = ["HttpJpegs", "open_http"]


def open_http(url: str, timeout: float = 5.0) -> HttpJpegs | None:
    """Ask a server for a stream of JPEG images.

    Parameters
    ----------
    url : str
        May hold a user name and password, for basic or digest authentication.
    timeout : float
        Seconds to wait for the answer, and later for data.

    Returns
    -------
    HttpJpegs or None
        None if the server sends something else than JPEG images.

    Raises
    ------
    SourceError, SourceTimeout
        The server cannot be reached or refuses. No message has the password.
    """
    name = redact(url)
    parts = urllib.parse.urlsplit(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    place = parts.netloc.rpartition("@")[2]
    plain = urllib.parse.urlunsplit(parts._replace(netloc=place))
    if parts.username is not None:
        user, password = map(urllib.parse.unquote, (parts.username, parts.password or ""))
        passwords.add_password(None, f"{parts.scheme}://{place}/", user, password)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
    )
    # Causes are cut off: some of them quote the URL.
    try:
        answer = opener.open(plain, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer, and the connection would be open while it is kept
        cure = "check the URL"
        if error.code in (401, 403):
            cure = "check user name and password, http://USER:PASSWORD@host/…"
        raise SourceError(f"{name} answers {error.code} {error.reason}: {cure}") from None
    except TimeoutError:
        raise _silent(name, timeout) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None)
        if isinstance(reason, TimeoutError):
            raise _silent(name, timeout) from None
        told = getattr(reason, "strerror", None) or reason or type(error).__name__
        raise SourceError(
            f"{name} cannot be reached ({told}): check host, port and network"
        ) from None
    kind = answer.headers.get_content_type()
    if kind.startswith("multipart/") or kind == "image/jpeg":
        return HttpJpegs(answer, name, parts.hostname or "http", timeout)
    answer.close()
    return None


def _silent(name: str, timeout: float) -> SourceTimeout:
    return SourceTimeout(f"{name} sent nothing for {timeout:g} s: check its power and network")


class HttpJpegs(LiveSource[bytes]):
    """The JPEG images of one HTTP answer. Those that nobody takes are never decoded.

    Parameters
    ----------
    answer : http.client.HTTPResponse
        The open answer.
    name : str
        For messages, without password.
    host : str
        Begins the names of the frames.
    timeout : float
        Seconds after which the answer itself gives up waiting for data, for messages.
    """

    def __init__(self, answer: Any, name: str, host: str, timeout: float) -> None:
        super().__init__(name, host)
        self._answer, self._timeout = answer, timeout
        self._images = split_jpegs(answer)
        # Who says beforehand how long the answer is has all of it; and a picture is only one.
        kind = answer.headers.get_content_type()
        self.finite = answer.length is not None or kind == "image/jpeg"
        self.start()

    def _fetch(self) -> tuple[bytes, int | None] | None:
        try:
            image = next(self._images, None)
        except TimeoutError:
            raise _silent(self.name, self._timeout) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(
                f"{self.name} broke off ({type(error).__name__}): open it again"
            ) from None
        return None if image is None else (image, None)

    def _convert(self, raw: bytes) -> Pixels:
        content = io.BytesIO(raw)
        content.name = f"an image of {self.name}"
        return load_image(content)

    def _shut_down(self) -> None:
        self._answer.close()
