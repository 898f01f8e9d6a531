"""The language edge and gateway speak: names, topics, metrics, events, messages, ranges.

Standard library and pydantic only, no I/O, no clock. The one part of `edge` that `gateway` may import.
"""
