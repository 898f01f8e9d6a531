"""Names of nodes and devices, and nothing else."""

import re
from typing import Annotated

from pydantic import StringConstraints

NAME_PATTERN = r"^[a-z0-9-]{1,32}\Z"
HEX_PATTERN = r"^[0-9a-f]{16}\Z"
SHA256_PATTERN = r"^[0-9a-f]{64}\Z"

# pydantic's own engine (Rust regex) has no \Z; `$` there matches only at the very end, so both engines agree.
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9-]{1,32}$")]
"""A node or device: 1 to 32 of `a-z 0-9 -`."""

Hex16 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{16}$")]
"""64 random bits as 16 lower-case hex digits: an epoch, a session, a boot."""

Sha256 = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 as 64 lower-case hex digits: the identity of a media file."""

_name = re.compile(NAME_PATTERN)
_hex16 = re.compile(HEX_PATTERN)


def is_name(text: object) -> bool:
    """Whether `text` may name a node or a device."""
    return isinstance(text, str) and _name.match(text) is not None


def is_hex16(text: object) -> bool:
    """Whether `text` may be an epoch, a session or a boot id."""
    return isinstance(text, str) and _hex16.match(text) is not None
