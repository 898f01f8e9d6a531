"""What a running agent tells of itself to whoever asks on this machine, so that `check` need not disturb it.

An abstract socket (unix(7)) named by the state folder: it leaves no file behind and costs the card nothing. Anybody on the
machine may ask, so nothing secret is told.
"""

import asyncio
import hashlib
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PATIENCE_S = 5.0


def _address(state: Path) -> str:
    return "\0satomori-edge-" + hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:32]


async def tell(state: Path, said: Callable[[], dict[str, Any]]) -> None:
    """Answers each connection with one JSON object, until cancelled."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(said()).encode())
        try:
            await writer.drain()
        except ConnectionError:  # whoever asked has gone
            pass
        finally:
            writer.close()

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(_address(state))
    except OSError as error:
        listening.close()
        log.warning("nobody can ask this agent how it is (%s); it works all the same", error.strerror)
        await asyncio.Event().wait()
    server = await asyncio.start_unix_server(answer, sock=listening)
    async with server:
        await server.serve_forever()


def ask(state: Path) -> dict[str, Any] | None:
    """What the agent of this state folder tells, or None when none runs. OSError when it does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(_address(state))
        except ConnectionRefusedError:
            return None
        said = b""
        while part := connection.recv(65536):
            said += part
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise OSError("what answers is no agent of this version") from None
    return answer
