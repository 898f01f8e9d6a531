"""Who speaks when a bearer token comes in: by the file of tokens, or by what else is asked. Kept and compared as SHA-256 only."""

import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

from gateway.errors import ConfigError
from gateway.policy import ROLES, Actor
from gateway.secret_files import read_secret_text

SHORTEST = 20
HOW_TO_MAKE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


class Tokens:
    """The actors of a gateway by their tokens."""

    def __init__(self, actors: dict[str, Actor], lookup: Callable[[str], Actor | None] | None = None) -> None:
        """`actors`: token -> who has it. `lookup` is asked for all others, by the SHA-256 of the token in hex; it may block."""
        self._actors = [(_digest(token), actor) for token, actor in actors.items()]
        self._lookup = lookup

    def actor(self, token: str) -> Actor | None:
        """Who has this token. Takes as long for a wrong one as for a right one."""
        digest, found = _digest(token), None
        for known, actor in self._actors:
            if hmac.compare_digest(known, digest):
                found = actor
        if found is None and self._lookup is not None:
            return self._lookup(digest.hex())
        return found


def read_tokens(path: Path) -> Tokens:
    """Reads `<actor> <roles> <token>` lines; empty lines and `# ...` are left out. ConfigError names file and line."""
    text = read_secret_text(path, "api.tokens_file")
    actors: dict[str, Actor] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"api.tokens_file: {path} line {number}"
        if len(words) != 3:
            raise ConfigError(f"{where} has {len(words)} words, not `<actor> <roles> <token>`")
        name, roles, token = words
        for role in roles.split(","):
            if role not in ROLES:
                raise ConfigError(f"{where}: {role[:40]!r} is no role; there are {', '.join(ROLES)}")
        if len(token) < SHORTEST or not token.isascii():
            raise ConfigError(f"{where}: the token of {name[:40]} is too short or not ASCII. Make one: {HOW_TO_MAKE}")
        if token in actors:
            raise ConfigError(f"{where}: {name[:40]} has the same token as {actors[token].name[:40]}")
        actors[token] = Actor(name, frozenset(roles.split(",")))
    if not actors:
        raise ConfigError(f"api.tokens_file: {path} holds no token. Make one: {HOW_TO_MAKE}")
    return Tokens(actors)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
