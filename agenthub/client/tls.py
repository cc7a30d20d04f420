"""What a client asks of a hub's certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from agenthub.errors import UserError

__all__ = ["tls_context"]


def tls_context(verify: Path | str | bool) -> ssl.SSLContext | bool:
    """TLS 1.2 or newer; as `Hub` says of `verify`.

    Raises:
        UserError: the file is not one of certificates.
    """
    if verify is False:
        return False
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify is not True:
        try:
            context.load_verify_locations(verify)
        except (OSError, ssl.SSLError) as error:
            raise UserError(f"verify: {verify}: no certificates to trust: {error.strerror or error}") from None
    return context
