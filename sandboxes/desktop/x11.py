"""A small client of the X protocol: keys and pointer through XTEST, the names and places of windows.

Runs inside a desktop's box, standard library only. The requests are those of the core protocol and of XTEST 2.2; a
display is a connection over the server's Unix socket, little-endian, without authorisation.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

KEY_PRESS, KEY_RELEASE, BUTTON_PRESS, BUTTON_RELEASE, MOTION = 2, 3, 4, 5, 6
SHIFT = 0xFFE1
NAMES = {
    "backspace": 0xFF08, "tab": 0xFF09, "return": 0xFF0D, "enter": 0xFF0D, "escape": 0xFF1B, "esc": 0xFF1B,
    "delete": 0xFFFF, "del": 0xFFFF, "insert": 0xFF63, "home": 0xFF50, "left": 0xFF51, "up": 0xFF52, "right": 0xFF53,
    "down": 0xFF54, "pageup": 0xFF55, "page_up": 0xFF55, "pgup": 0xFF55, "pagedown": 0xFF56, "page_down": 0xFF56,
    "pgdn": 0xFF56, "end": 0xFF57, "shift": SHIFT, "shiftleft": SHIFT, "shiftright": 0xFFE2, "ctrl": 0xFFE3,
    "control": 0xFFE3, "ctrlleft": 0xFFE3, "ctrlright": 0xFFE4, "alt": 0xFFE9, "altleft": 0xFFE9, "altright": 0xFFEA,
    "super": 0xFFEB, "win": 0xFFEB, "menu": 0xFF67, "space": 0x20, "printscreen": 0xFF61, "capslock": 0xFFE5,
    **{f"f{n}": 0xFFBD + n for n in range(1, 13)},
}  # fmt: skip
NEWLINES = {"\n": 0xFF0D, "\r": 0xFF0D, "\t": 0xFF09}
REMAPPED_S = 0.1
"""Seconds for programs to read a keyboard that has got new keys."""


def keysym(name: str) -> int:
    """The X key symbol of a key's name or of one character. Raises ValueError."""
    if len(name) == 1:
        code = ord(name)
        return NEWLINES.get(name) or (code if 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xFF else 0x01000000 + code)
    if name.lower() not in NAMES:
        raise ValueError(f"no key is named {name!r}")
    return NAMES[name.lower()]


class Display:
    """One connection to the server of the box."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        status, length = struct.unpack("<BxxxxxH", self._exactly(8))
        body = self._exactly(length * 4)
        if status != 1:
            raise OSError(f"the display refuses: {body!r}")
        vendor, formats = struct.unpack_from("<HxxxB", body, 16)
        self._low, self._high = body[26], body[27]
        (self.root,) = struct.unpack_from("<I", body, 32 + (vendor + 3) // 4 * 4 + 8 * formats)
        self._xtest = self._extension(b"XTEST")
        self._atoms: dict[str, int] = {}
        self._keys: dict[int, tuple[int, bool]] = {}
        self._spare: list[int] = []
        self._read_keys()

    # --- requests

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                chunk = self._socket.recv(count - len(data))
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise OSError("the display is gone")
            data += chunk
        return data

    def _send(self, opcode: int, detail: int, body: bytes = b"") -> None:
        body += bytes(-len(body) % 4)
        try:
            self._socket.sendall(struct.pack("<BBH", opcode, detail, 1 + len(body) // 4) + body)
        except ConnectionError as error:
            raise OSError("the display is gone") from error

    def _reply(self) -> bytes | None:
        """The next reply; None for an error. Events are passed over."""
        while True:
            head = self._exactly(32)
            if head[0] == 0:
                return None
            if head[0] == 1:
                return head + self._exactly(struct.unpack_from("<I", head, 4)[0] * 4)

    def _ask(self, opcode: int, detail: int, body: bytes = b"") -> bytes | None:
        self._send(opcode, detail, body)
        return self._reply()

    def _extension(self, name: bytes) -> int:
        reply = self._ask(98, 0, struct.pack("<Hxx", len(name)) + name)
        if reply is None or not reply[8]:
            raise OSError(f"the display has no {name.decode()}")
        return reply[9]

    def sync(self) -> None:
        """Wait until the server has done all that was asked."""
        self._ask(43, 0)

    # --- input

    def fake(self, kind: int, detail: int = 0, x: int = 0, y: int = 0) -> None:
        """One event of the keyboard or the pointer."""
        body = struct.pack("<BBHIIIIhhIHBB", kind, detail, 0, 0, 0, 0, 0, x, y, 0, 0, 0, 0)
        self._send(self._xtest, 2, body)

    def key(self, symbol: int, *, down: bool) -> None:
        """Press or release the key of a symbol, without regard to shift."""
        self.fake(KEY_PRESS if down else KEY_RELEASE, self._key_of(symbol)[0])

    def tap(self, symbol: int) -> None:
        """Press and release a key, with shift where the symbol needs it."""
        code, shifted = self._key_of(symbol)
        shift = self._keys[SHIFT][0]
        if shifted:
            self.fake(KEY_PRESS, shift)
        self.fake(KEY_PRESS, code)
        self.fake(KEY_RELEASE, code)
        if shifted:
            self.fake(KEY_RELEASE, shift)

    def type(self, text: str) -> None:
        """Type a text; characters that the keyboard has not are given keys first."""
        symbols = [keysym(char) for char in text]
        missing = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self._keys]
        if len(missing) > len(self._spare):
            most = f"at most {len(self._spare)}"
            raise ValueError(f"the text has {len(missing)} characters that the keyboard has not; {most}")
        for symbol in missing:
            self._map(symbol)
        if missing:
            self.sync()
            time.sleep(REMAPPED_S)
        for symbol in symbols:
            self.tap(symbol)
        self.sync()

    def _key_of(self, symbol: int) -> tuple[int, bool]:
        if symbol not in self._keys:
            if not self._spare:
                raise ValueError(f"the keyboard has no key for symbol {symbol:#x}")
            self._map(symbol)
            self.sync()
            time.sleep(REMAPPED_S)
        return self._keys[symbol]

    def _map(self, symbol: int) -> None:
        code = self._spare.pop()
        self._send(100, 1, struct.pack("<BBxxII", code, 2, symbol, symbol))
        self._keys[symbol] = (code, False)

    def _read_keys(self) -> None:
        count = self._high - self._low + 1
        reply = self._ask(101, 0, struct.pack("<BBxx", self._low, count))
        if reply is None:
            raise OSError("the display has no keyboard")
        width = reply[1]
        symbols = struct.unpack_from(f"<{width * count}I", reply, 32)
        for index in range(count):
            row = symbols[index * width : (index + 1) * width]
            if not any(row):
                self._spare.append(self._low + index)
            for level, symbol in enumerate(row[:2]):
                if symbol and (symbol not in self._keys or (self._keys[symbol][1] and level == 0)):
                    self._keys[symbol] = (self._low + index, level == 1)

    # --- windows

    def _atom(self, name: str) -> int:
        if name not in self._atoms:
            data = name.encode()
            reply = self._ask(16, 0, struct.pack("<Hxx", len(data)) + data)
            self._atoms[name] = struct.unpack_from("<I", reply, 8)[0] if reply else 0
        return self._atoms[name]

    def _property(self, window: int, name: str) -> bytes:
        reply = self._ask(20, 0, struct.pack("<IIIII", window, self._atom(name), 0, 0, 1024))
        if reply is None:
            return b""
        count, unit = struct.unpack_from("<I", reply, 16)[0], reply[1] // 8
        return reply[32 : 32 + count * unit]

    def property_set(self, window: int, name: str) -> bool:
        """True where a window has a property."""
        return bool(self._property(window, name))

    def windows(self) -> list[dict[str, Any]]:
        """Windows as the window manager lists them: title, place in pixels, and whether it has the keyboard."""
        data = self._property(self.root, "_NET_CLIENT_LIST")
        active = self._property(self.root, "_NET_ACTIVE_WINDOW")[:4]
        rows = []
        for (window,) in struct.iter_unpack("<I", data[: len(data) // 4 * 4]):
            title = self._property(window, "_NET_WM_NAME") or self._property(window, "WM_NAME")
            shape = self._ask(14, 0, struct.pack("<I", window))
            place = self._ask(40, 0, struct.pack("<IIhh", window, self.root, 0, 0))
            if shape is None or place is None:
                continue
            x, y = struct.unpack_from("<hh", place, 12)
            width, height = struct.unpack_from("<HH", shape, 16)
            focused = struct.pack("<I", window) == active
            row = {"title": title.decode("utf-8", "replace"), "box": [x, y, width, height], "active": focused}
            rows.append({"id": window, **row})
        return rows

    def activate(self, window: int) -> None:
        """Ask the window manager to bring a window to the front and give it the keyboard."""
        event = struct.pack("<BBHIIIIIII", 33, 32, 0, window, self._atom("_NET_ACTIVE_WINDOW"), 2, 0, 0, 0, 0)
        self._send(25, 0, struct.pack("<II", self.root, 0x180000) + event)

    def pointer(self) -> tuple[int, int]:
        """Where the pointer is."""
        reply = self._ask(38, 0, struct.pack("<I", self.root))
        return struct.unpack_from("<hh", reply, 16) if reply else (0, 0)
