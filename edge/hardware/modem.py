"""The mobile modem's signal, asked of ModemManager through its own command, `mmcli`. None where there is no such thing."""

import asyncio
import json
import logging
import shutil

log = logging.getLogger(__name__)

PATIENCE_S = 5.0


async def mobile_rssi_dbm() -> float | None:
    """RSSI of the first modem, whichever radio it uses now (mmcli(1), `--signal-get`)."""
    command = shutil.which("mmcli")
    if command is None:
        return None
    said = await _ask(command, "--modem", "any", "--output-json", "--signal-get")
    try:
        signal = json.loads(said)["modem"]["signal"]
        for radio in ("5g", "lte", "umts", "gsm"):
            for kind in ("rssi", "rsrp"):
                text = signal.get(radio, {}).get(kind, "--")
                if text not in ("--", ""):
                    return float(text)
        if float(signal.get("refresh", {}).get("rate") or 0) == 0:  # it measures only when it was told to
            await _ask(command, "--modem", "any", "--signal-setup", "30")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # no modem: mmcli says so in other words
    return None


async def _ask(*command: str) -> str:
    """What the command prints; "" when it fails or hangs."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate()
    except TimeoutError:
        log.warning("%s does not answer within %g s; is ModemManager well?", command[0], PATIENCE_S)
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode(errors="replace")
