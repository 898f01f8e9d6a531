"""Traps beyond their alarm: who was there, what was caught, and what the municipality's form needs of it.

visits.py     somebody was there: by the box's button, the trap's QR, or a form
captures.py   the dossier of a capture, and when it is whole
state.py      how a trap stands now: what the API shows of it
"""
