"""From alerts to pages to messages: who is told, who is asked next, what they answered. Each step is ONE transaction.

`escalation` decides, here it is carried out: a page is read, `escalation.next` plans, and the page, its messages and its alerts
are written together. Messages have ids that come from page, contact and step, so whatever is repeated changes nothing. A page is
looked at when something happened (`changed`) or its time has come (`due_us`).

paging.py    `Paging`: what the watch says, and time; the only one that others make
joining.py   an alert that fires -> its page
looking.py   a look at some pages: read, plan, say, write
reading.py   what a look reads, together for many pages; whom the book knows
messages.py  a plan -> messages, or one digest of many; into the delivery outbox
writing.py   what is written of a page, by compare-and-set; its alerts' moves
answers.py   what people say to a page
notices.py   pages that another room opens, words and ends
routes.py    which route an alert or a page takes
ids.py       what pages and messages are called
"""

from gateway.paging.answers import Answered, NotTaken, OnAnswer, Standing
from gateway.paging.ids import message_id
from gateway.paging.messages import More
from gateway.paging.notices import Notices
from gateway.paging.paging import Paging
from gateway.paging.reading import STAFF

__all__ = ["STAFF", "Answered", "More", "NotTaken", "Notices", "OnAnswer", "Paging", "Standing", "message_id"]
