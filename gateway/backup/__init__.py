"""A gateway's backup, made beside it while it runs, and its way back onto an empty machine.

A backup is a folder; `manifest.json` is written last and names everything else in it, so what has none is no backup:

    manifest.json            gateway.backup.manifest
    gateway.toml             as it was
    state.db | state.dump    SQLite's file, or what pg_dump made
    series.db                the series store where it is a file; a server has tools of its own
    media/<sha256>           pictures that are on record
    settings/<setting>       files of keys and secrets, and folders of them, each under the setting that names it

It is as secret as the gateway itself. What is the machine's own (the town's log of erasures, caches, process ids) is not in it.
"""
