"""The mobile modem's signal, asked of ModemManager through its own command, `mmcli`. None where there is no such thing."""

import asyncio
import json
import logging
import shutil

log = logging.getLogger(__name__)

PATIENCE_S = 5.0


class Modem:
    """The first modem there is, looked for anew each time it is asked."""

    def __init__(self) -> None:
        self._down = False  # `mmcli` hangs or can't be run, and that was said

    async def rssi_dbm(self) -> float | None:
        """RSSI, whichever radio it uses now (mmcli(1), `--signal-get`)."""
        command = shutil.which("mmcli")
        if command is None:
            return None
        said = await self._ask(command, "--modem", "any", "--output-json", "--signal-get")
        try:
            signal = json.loads(said)["modem"]["signal"]
            for radio in ("5g", "lte", "umts", "gsm"):
                for kind in ("rssi", "rsrp"):
                    text = signal.get(radio, {}).get(kind, "--")
                    if text not in ("--", ""):
                        return float(text)
            if float(signal.get("refresh", {}).get("rate") or 0) == 0:  # it measures only when it was told to
                await self._ask(command, "--modem", "any", "--signal-setup", "30")
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # no modem: mmcli says so in other words
        return None

    async def _ask(self, *command: str) -> str:
        """What the command prints; "" when it can't be run or hangs, which is said once, as is its end."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                async with asyncio.timeout(PATIENCE_S):
                    out, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        except OSError as error:  # TimeoutError is one
            if not self._down:
                why = f"does not answer within {PATIENCE_S:g} s" if isinstance(error, TimeoutError) else f"can't be run: {error}"
                log.warning("%s %s; is ModemManager well? The modem's signal is unknown until then", command[0], why)
            self._down = True
            return ""
        if self._down:
            log.warning("%s answers again", command[0])
            self._down = False
        return out.decode(errors="replace")
