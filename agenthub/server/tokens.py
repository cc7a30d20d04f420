"""Tokens: the file that names them, and who stands behind one that is shown.

    tokens:
      alice:
        sha256: 5e88...
        scopes: [play]
        quotas: {live_episodes: 64, steps_per_s: 200, sandbox_seconds_per_day: 360000}

A token is 32 random bytes that this module made. Their plain SHA-256 is as good as a slow salted hash: nobody tries
2^256 of them, and no two are equal. A password of a person's would need the slow one, and is not taken.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from ruamel.yaml import YAML

from agenthub.config import ConfigModel, load_yaml, parse_yaml
from agenthub.errors import ConfigError, UnknownName, UserError
from agenthub.server.access import Principal, Scope
from agenthub.server.quotas import Accounts, Quotas

__all__ = ["LOCAL", "OPERATOR", "Keyring", "TokenEntry", "TokenFile", "add_token", "read_tokens", "remove_token"]

LOCAL = "local"
"""Who asks a hub on loopback that has no token."""
OPERATOR = "operator"
"""Who shows the one token of AGENTHUB_TOKEN, --token-file or --token auto."""
_PREFIX = "aht_"
_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class TokenEntry(ConfigModel):
    """One token, without the token."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    quotas: Quotas = Quotas()


class TokenFile(ConfigModel):
    """A file of tokens by name; the name is the owner of what the token opens."""

    tokens: dict[Annotated[str, Field(pattern=_NAME)], TokenEntry] = Field(default_factory=dict)


def read_tokens(path: Path) -> TokenFile:
    """The tokens of a file.

    Raises:
        ConfigError: it cannot be read, others may read or write it, or it is not as it must be; with its place.
    """
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise ConfigError(str(path), f"the tokens cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigError(str(path), f"others may read or write it (mode {mode:04o}); do: chmod 600 {path}")
    found = load_yaml(path, TokenFile)
    _check(found, str(path))
    return found


def _check(found: TokenFile, path: str) -> None:
    by_hash: dict[str, str] = {}
    for name, entry in found.tokens.items():
        if name in (LOCAL, OPERATOR):
            raise ConfigError(path, f"tokens.{name}: the name is the hub's own; choose another")
        twin = by_hash.setdefault(entry.sha256, name)
        if twin != name:
            raise ConfigError(path, f"tokens.{name}: has the hash of tokens.{twin}")


class Keyring:
    """The tokens of one hub: one of the operator's, those of a file, or both."""

    def __init__(self, accounts: Accounts, *, shared: str | None = None, file: Path | None = None) -> None:
        """
        Args:
            shared: the operator's own token, with every scope and no quota.
            file: of named tokens.

        Raises:
            ConfigError: as `read_tokens`.
        """
        self._accounts, self._file = accounts, file
        self._shared: dict[bytes, Principal] = {}
        if shared is not None:
            who = Principal(OPERATOR, frozenset(Scope), accounts.of(OPERATOR), True)
            self._shared = {hashlib.sha256(shared.encode()).digest(): who}
        self._by_hash: dict[bytes, Principal] = dict(self._shared)
        self._seen: tuple[int, int, int] | None = None
        self.reload()

    def find(self, token: str) -> Principal | None:
        """Who has this token; None for nobody.

        What is looked up and compared is its hash, so that no time taken says anything of a token.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        for known, who in self._by_hash.items():
            if hmac.compare_digest(known, digest):
                return who
        return None

    def changed(self) -> bool:
        """True where the file is another than the one last read."""
        return self._file is not None and _stamp(self._file) != self._seen

    def reload(self) -> list[Principal]:
        """Read the file again; gives those who are no longer who they were: revoked, or of other scopes.

        Raises:
            ConfigError: as `read_tokens`; the tokens are as they were.
        """
        if self._file is None:
            return []
        self._seen = _stamp(self._file)
        before = self._by_hash
        after = dict(self._shared)
        for name, entry in read_tokens(self._file).tokens.items():
            digest = bytes.fromhex(entry.sha256)
            scopes = frozenset(entry.scopes)
            known = before.get(digest)
            account = self._accounts.of(name)
            if account.quotas != entry.quotas:
                account.set(entry.quotas)
            same = known is not None and (known.name, known.scopes) == (name, scopes)
            after[digest] = known if known and same else Principal(name, scopes, account, Scope.ADMIN in scopes)
        self._by_hash = after
        still = set(after.values())
        return [who for who in before.values() if who not in still]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def add_token(path: Path, name: str, scopes: tuple[Scope, ...], quotas: Quotas) -> str:
    """Make a token, add its hash to the file (made where there is none), and give the token: it is kept nowhere.

    Raises:
        ConfigError: the file or the name cannot be used, or the name is taken.
    """
    if path.exists() and name in read_tokens(path).tokens:
        raise ConfigError(str(path), f"has a token named {name!r}; revoke it first")
    token = _PREFIX + secrets.token_urlsafe(32)
    limits = quotas.model_dump(exclude_none=True)
    row = {"sha256": hashlib.sha256(token.encode()).hexdigest(), "scopes": [scope.value for scope in scopes]}
    document = _editable(path)
    document["tokens"] = document.get("tokens") or {}
    document["tokens"][name] = row | ({"quotas": limits} if limits else {})
    _write(path, document)
    return token


def remove_token(path: Path, name: str) -> None:
    """Take a token out of the file.

    Raises:
        UnknownName: there is none of that name.
        ConfigError: as `read_tokens`.
    """
    known = read_tokens(path).tokens
    if name not in known:
        raise UnknownName("token", name, known, str(path))
    document = _editable(path)
    del document["tokens"][name]
    _write(path, document)


def _editable(path: Path) -> Any:
    """The file with its comments."""
    return (YAML().load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}


def _write(path: Path, document: Any) -> None:
    """Put the file in place whole, readable by its owner alone."""
    text = io.StringIO()
    YAML().dump(document, text)
    _check(parse_yaml(text.getvalue(), str(path), TokenFile), str(path))
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text.getvalue())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
