"""Bytes -> values. Pure: no I/O, no clock, no logging; whatever bytes come, nothing here raises."""
