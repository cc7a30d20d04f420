"""Which addresses a policy may open: pages of the episode's own site, and nothing of the browser or the machine."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from agenthub.errors import UserError

__all__ = ["allowed"]

_MOST = 4000


def allowed(url: str, origin: str) -> str:
    """The whole address; a path is taken to be of the origin.

    Raises:
        UserError: it is of another scheme (javascript, file, data, blob, chrome, devtools, view-source and all others),
            of another origin, or no address.
    """
    # The browser drops these before it reads an address, so that `java\\nscript:` is one of the refused ones.
    plain = "".join(character for character in url.strip() if character > " " and character != "\x7f")
    if len(plain) > _MOST:
        raise UserError(f"an address has at most {_MOST} characters")
    if plain == "about:blank":
        return plain
    try:
        whole = urlsplit(urljoin(origin + "/", plain.replace("\\", "/")))
    except ValueError as error:
        raise UserError(f"{url!r:.200} is no address: {error}") from error
    if whole.scheme not in ("http", "https"):
        raise UserError(f"addresses of the kind {whole.scheme}: are refused; expected one of {origin}")
    if f"{whole.scheme}://{whole.netloc}" != origin:
        raise UserError(f"{url!r:.200} is outside of {origin}")
    return whole.geturl()
