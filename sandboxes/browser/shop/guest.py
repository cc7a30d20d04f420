"""The shop's server in its box: requests in frames on descriptor 3, one at a time. Standard library only.

Runs as text given to `python3 -I -c`, with `store` and `pages` beside it. Nothing of a policy ever runs in this box.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agenthub.sandboxes.browser.shop import pages, store
else:
    import pages
    import store

CONTROL = 3
DATABASE = "shop.sqlite"


def exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(CONTROL, count - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def send(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(CONTROL, data) :]


def main() -> None:
    shop = pages.Shop(store.connect(DATABASE))
    while True:
        asked = json.loads(exactly(int.from_bytes(exactly(4), "big")))
        status, headers, text = shop.answer(asked["method"], asked["url"], asked["body"])
        send({"status": status, "headers": headers, "body": text})
