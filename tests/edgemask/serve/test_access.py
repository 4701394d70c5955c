"""Who is let in: one request at a time, without a server."""

from __future__ import annotations

import errno
import os
import stat
from email.message import Message
from pathlib import Path

import pytest

from edgemask.errors import OutputError, SourceError
from edgemask.serve.access import Access, default_token_file, is_loopback, load_token

TOKEN = "a-token-of-some-length"
HOST = "192.168.1.5:8080"


def judge(token: str | None, method: str = "GET", query: str = "", **headers: str) -> int:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Access(token, 8080).judge(method, message, query).status


@pytest.mark.parametrize(
    "host", ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "127.3.2.1", "[::1]:8080", "[::1]"]
)
def test_without_a_token_this_machine_has_these_names(host: str) -> None:
    assert judge(None, Host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "localhost.evil.example", "192.168.1.5", "[", ""),
        *("[::2]", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "evil.example/127.0.0.1"),
    ],
)
def test_without_a_token_other_names_are_refused(host: str) -> None:
    assert judge(None, Host=host) == 421


def test_programs_without_a_host_header_are_no_browsers() -> None:
    assert judge(None) == 200


def test_ways_to_bring_the_token() -> None:
    assert judge(TOKEN, Host=HOST) == 401
    assert judge(TOKEN, Host=HOST, Authorization=f"Bearer {TOKEN}") == 200
    assert judge(TOKEN, Host=HOST, Authorization=f"bearer {TOKEN}") == 200
    assert judge(TOKEN, Host=HOST, Cookie=f"other=1; edgemask_8080={TOKEN}") == 200
    assert judge(TOKEN, query=f"token={TOKEN}", Host=HOST) == 200


def test_one_good_token_is_enough() -> None:
    assert judge(TOKEN, query=f"token=old&token={TOKEN}") == 200


@pytest.mark.parametrize(
    "other", ['prefs={"a":1}', "bare", "user=Jürgen", "x=a b", "a[b]=1", "edgemask_80=x", "=", ""]
)
def test_cookies_of_others_on_the_same_host_do_not_matter(other: str) -> None:
    assert judge(TOKEN, Host=HOST, Cookie=f"{other}; edgemask_8080={TOKEN}") == 200
    assert judge(TOKEN, Host=HOST, Cookie=f"edgemask_8080={TOKEN}; {other}") == 200
    assert judge(TOKEN, Host=HOST, Cookie=f"{other}; edgemask_8080={TOKEN}x") == 401


def test_a_token_of_ones_own(tmp_path: Path) -> None:
    """What `openssl rand -base64 24` makes can be pasted as it is, and encoded."""
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("Zm9v+mFy/mJheg~x.y-z==\n")
    token, _ = load_token(path)
    for text in (token, token.replace("+", "%2B").replace("=", "%3D")):
        assert judge(token, query=f"a=b&token={text}", Host=HOST) == 200
    kept = Access(token, 8080).cookie().partition(";")[0]
    assert judge(token, Host=HOST, Cookie=kept) == 200
    for wrong in (
        'quote"quote"quote"',
        "semi;semi;semi;semi",
        "per%20cent%20cent%20",
        "a&b&c&d&e&f&g&h&i",
    ):
        path.write_text(wrong)
        with pytest.raises(SourceError, match="letters, digits and"):
            load_token(path)


@pytest.mark.parametrize("wrong", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä", "\x00", " "])
def test_wrong_tokens(wrong: str) -> None:
    assert judge(TOKEN, Host=HOST, Authorization=f"Bearer {wrong}") == 401
    assert judge(TOKEN, Host=HOST, Authorization=f"Basic {TOKEN}") == 401
    assert judge(TOKEN, Host=HOST, Cookie=f"edgemask_8080={wrong}") == 401
    assert judge(TOKEN, Host=HOST, Cookie=f"edgemask_81={TOKEN}") == 401
    assert judge(TOKEN, query=f"token={wrong}", Host=HOST) == 401
    assert judge(TOKEN, query=f"Token={TOKEN}", Host=HOST) == 401


@pytest.mark.parametrize("token", [None, TOKEN])
def test_what_other_sites_make_a_browser_send(token: str | None) -> None:
    good = {"Host": "localhost:8080", "Cookie": f"edgemask_8080={TOKEN}"}
    for site in ("cross-site", "same-site"):
        assert judge(token, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors", **good) == 403
        # Following a link to the page is fine: the site that has it learns nothing.
        assert judge(token, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", **good) == 200
        assert judge(token, "POST", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", **good) == 403
    for site in ("same-origin", "none"):
        assert judge(token, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors", **good) == 200


def test_a_site_that_was_given_the_token_may_embed_the_stream() -> None:
    headers = {"Host": HOST, "Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    assert judge(TOKEN, query=f"token={TOKEN}", **headers) == 200


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:8080", 200),
        ("https://localhost:8080", 200),  # a proxy speaks TLS in front
        ("http://localhost", 403),
        ("http://localhost:8081", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_the_own_page_changes_settings(
    token: str | None, origin: str | None, status: int
) -> None:
    headers = {"Host": "localhost:8080", "Cookie": f"edgemask_8080={TOKEN}"}
    if origin is not None:
        headers["Origin"] = origin
    assert judge(token, "POST", **headers) == status


def test_names_have_no_case() -> None:
    assert is_loopback("LocalHost")
    assert judge(None, "POST", Host="Localhost:8080", Origin="http://localhost:8080") == 200


def test_a_page_without_an_origin_of_its_own_changes_nothing() -> None:
    """A sandboxed frame sends Origin: null, and something may have left out Host."""
    assert judge(None, "POST", Origin="null") == 403


def test_cookie() -> None:
    cookie = Access(TOKEN, 8080).cookie()
    assert cookie.startswith(f"edgemask_8080={TOKEN}; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))


def test_the_cookie_stays_and_may_come_back_in_quotes() -> None:
    cookie = Access(TOKEN, 8080).cookie()
    fields = dict(part.strip().partition("=")[::2] for part in cookie.split(";"))
    assert int(fields["Max-Age"]) > 30 * 24 * 3600
    assert judge(TOKEN, Cookie=f'edgemask_8080="{fields["edgemask_8080"]}"') == 200


def test_a_token_is_made_once_and_for_one_user(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    token, new = load_token(path)
    assert new
    assert len(token) >= 43  # 256 bits
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(path) == (token, False)
    assert load_token(tmp_path / "other")[0] != token


def test_the_folder_of_the_token_is_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        load_token(tmp_path / "state" / "token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    load_token(path)
    for mode, good in ((0o644, False), (0o620, False), (0o604, False), (0o440, True)):
        path.chmod(mode)
        if good:
            load_token(path)
        else:
            with pytest.raises(SourceError, match=f"chmod 600 {path}"):
                load_token(path)


@pytest.mark.parametrize("content", [b"short\n", b"a token with blanks", b"\xff" * 40])
def test_files_without_a_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SourceError, match="token file"):
        load_token(path)


def test_a_token_is_written_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            load_token(tmp_path / "token")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "token").touch()  # as a version before left it
    token, new = load_token(tmp_path / "token")
    assert new
    assert load_token(tmp_path / "token") == (token, False)


def test_a_power_cut_does_not_lose_a_token_that_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []

    def note(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", note)
    load_token(tmp_path / "token")
    assert synced == [False, True]  # the file, then the folder that names it


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, SourceError), match="token file"):
        load_token(tmp_path / "file" / "token")


def test_where_the_token_is(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert default_token_file(home) == tmp_path / ".local/state/edgemask/token"
    assert default_token_file({**home, "XDG_STATE_HOME": "/x"}) == Path("/x/edgemask/token")
    service = {**home, "STATE_DIRECTORY": "/var/lib/edgemask/door:/var/lib/other"}
    assert default_token_file(service) == Path("/var/lib/edgemask/door/token")


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.1.1", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "raspberrypi", "", "127.1")))


def test_the_message_says_where_the_token_is() -> None:
    verdict = Access(TOKEN, 8080).judge("GET", Message(), "")
    assert "edgemask serve printed" in " ".join(verdict.message.split())
    assert TOKEN not in verdict.message
    assert os.linesep not in verdict.message
