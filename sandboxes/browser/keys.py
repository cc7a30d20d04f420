"""Keys of a US keyboard, as the events that pressing them makes."""

from __future__ import annotations

from dataclasses import dataclass

from agenthub.errors import UserError, nearest

__all__ = ["MODIFIERS", "Key", "combination", "key_of", "typed"]

MODIFIERS = {"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}
_NAMED = {
    "Alt": (18, "AltLeft"),
    "ArrowDown": (40, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
    "ArrowUp": (38, ""),
    "Backspace": (8, ""),
    "CapsLock": (20, ""),
    "Control": (17, "ControlLeft"),
    "Delete": (46, ""),
    "End": (35, ""),
    "Enter": (13, ""),
    "Escape": (27, ""),
    "Home": (36, ""),
    "Insert": (45, ""),
    "Meta": (91, "MetaLeft"),
    "PageDown": (34, ""),
    "PageUp": (33, ""),
    "Shift": (16, "ShiftLeft"),
    "Tab": (9, ""),
    **{f"F{number}": (111 + number, "") for number in range(1, 13)},
}
_OTHER_NAMES = {
    "ControlOrMeta": "Control",
    "Ctrl": "Control",
    "Del": "Delete",
    "Down": "ArrowDown",
    "Esc": "Escape",
    "Left": "ArrowLeft",
    "Return": "Enter",
    "Right": "ArrowRight",
    "Space": " ",
    "Up": "ArrowUp",
}
_PUNCTUATION = {
    "`~": ("Backquote", 192),
    "-_": ("Minus", 189),
    "=+": ("Equal", 187),
    "[{": ("BracketLeft", 219),
    "]}": ("BracketRight", 221),
    "\\|": ("Backslash", 220),
    ";:": ("Semicolon", 186),
    "'\"": ("Quote", 222),
    ",<": ("Comma", 188),
    ".>": ("Period", 190),
    "/?": ("Slash", 191),
}
_DEVTOOLS = {("F12", 0), *((key, held) for key in "ijcu" for held in (2 | 8, 4 | 1)), ("u", 2), ("l", 2), ("F11", 0)}
_SHIFTED_DIGITS = ")!@#$%^&*("


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    key: str
    """What the event's `key` says."""
    code: str
    number: int
    """Windows virtual key code."""
    text: str = ""
    """What it types; empty for nothing."""
    shift: bool = False
    """It is typed with Shift."""

    @property
    def modifier(self) -> int:
        """Its bit where it is a modifier, else 0."""
        return MODIFIERS.get(self.key, 0)


def _table() -> dict[str, Key]:
    keys = {name: Key(name, code or name, number) for name, (number, code) in _NAMED.items()}
    keys["Enter"] = Key("Enter", "Enter", 13, "\r")
    keys[" "] = Key(" ", "Space", 32, " ")
    for letter in "abcdefghijklmnopqrstuvwxyz":
        upper = letter.upper()
        keys[letter] = Key(letter, f"Key{upper}", ord(upper), letter)
        keys[upper] = Key(upper, f"Key{upper}", ord(upper), upper, True)
    for digit in range(10):
        keys[str(digit)] = Key(str(digit), f"Digit{digit}", 48 + digit, str(digit))
        shifted = _SHIFTED_DIGITS[digit]
        keys[shifted] = Key(shifted, f"Digit{digit}", 48 + digit, shifted, True)
    for pair, (code, number) in _PUNCTUATION.items():
        keys[pair[0]] = Key(pair[0], code, number, pair[0])
        keys[pair[1]] = Key(pair[1], code, number, pair[1], True)
    return keys


_KEYS = _table()


def key_of(name: str) -> Key:
    """The key of a name such as `Enter`, `a` or `F5`.

    Raises:
        UserError: there is none.
    """
    name = _OTHER_NAMES.get(name, name)
    found = _KEYS.get(name)
    if found is None:
        raise UserError(f"no key is named {name!r:.40}{nearest(name[:40], _NAMED)}")
    return found


def combination(text: str) -> tuple[list[Key], Key]:
    """The held keys and the pressed one of `Control+Shift+a`.

    Raises:
        UserError: a name is not known, the held ones are no modifiers, or it is a key of the browser's own tools.
    """
    *held, last = [text] if text in ("+", "") else text.replace("++", "+Plus").split("+")
    keys = [key_of(name) for name in held]
    if not all(key.modifier for key in keys):
        raise UserError(f"{text!r:.40}: only Alt, Control, Meta and Shift can be held")
    key = key_of("+" if last == "Plus" else last)
    bits = sum({key.modifier for key in keys})
    if (key.key if len(key.key) > 1 else key.key.lower(), bits) in _DEVTOOLS:
        raise UserError(f"{text!r:.40} is a key of the browser and not of the page")
    return keys, key


def typed(text: str) -> list[Key | str]:
    """The keys that type a text; a character that has none stands for itself."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return [_KEYS["Enter"] if c == "\n" else _KEYS["Tab"] if c == "\t" else _KEYS.get(c, c) for c in lines]
