"""Who did what: an append-only trail whose entries chain over salted hashes, so that none can be changed or left out unseen.

`record` is the one way in. What an entry says stands beside the chain and can be erased; the chain holds without it.
"""

from gateway.audit.acts import came_of, noted, who_of
from gateway.audit.chain import record
from gateway.audit.erase import erase, erase_where, forget

__all__ = ["came_of", "erase", "erase_where", "forget", "noted", "record", "who_of"]
