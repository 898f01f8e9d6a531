"""What runs on the Pi. Never imports gateway or simulators."""
