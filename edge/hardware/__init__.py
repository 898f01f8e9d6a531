"""The seams to the world: pins, serial ports, folders. Heavy imports live inside the functions that need them."""
