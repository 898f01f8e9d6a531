"""The town on a desk: what stands below the lowest seam of edge and gateway, so that their own code runs unchanged.

`world` says what is true in an invented town at any time; `hardware` and `pin_factory` make it felt on pins, serial
ports and memory cards; `phone` is the far end of a notification; `broker` starts real MQTT brokers. Nothing here is
imported by edge or gateway.
"""
