"""Sound, rooms and devices that exist only as numbers, so that the truth is known."""
