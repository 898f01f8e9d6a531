"""What is kept, how long, and how it is erased: for every table of the state database, the pictures, and nothing elsewhere.

    config.py     `[keep]`: how long, of each kind
    kinds.py      the kinds: what is of them, and which function forgets what is too old
    held.py       every table: whose it can be, of which kind it is. A table that is not there fails a test
    places.py     forgetting where tags were
    erase.py      forgetting one person, contact or tag, everywhere, now
    ledger.py     what was erased, in a file beside the database: done again after a restore
    late.py       what is past its retention when it comes
    retention.py  the chore
    register.py, sign.py    drafts of the 個人情報ファイル簿 and of the notice before cameras

Names, numbers and places stand in the state database only; here nothing of them is logged.
"""

from gateway.keeping.erase import Erased, NotErased, erase_contact, erase_tag, erase_watched, erasing

__all__ = ["Erased", "NotErased", "erase_contact", "erase_tag", "erase_watched", "erasing"]
