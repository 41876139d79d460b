"""Whether the application keeps up with the microphone, and the microphone's samples with time.

Ports drop what nobody reads in time and say nothing. What shows it is when blocks can be read: one that had
to be waited for is read the moment it is complete. When such a block comes later than those before it
promised, samples are missing.
"""

import time

SLIP_US = 4000
"""Waking up takes less; the clocks of samples and ticks differ by less between two blocks."""


class Pace:
    """Lateness of blocks of block_us each."""

    def __init__(self, block_us):
        self.block_us = block_us
        self.late_us = self.slips = self.missing_us = 0
        self.asked = self.got = time.ticks_us()
        self.first = True

    def ask(self):
        """A block is about to be read."""
        self.asked = time.ticks_us()

    def get(self):
        """It has been read. Returns how late it is, in µs: 0 where it was waited for."""
        now = time.ticks_us()
        self.late_us += time.ticks_diff(now, self.got) - self.block_us
        self.got = now
        if time.ticks_diff(now, self.asked) > self.block_us >> 2:
            if abs(self.late_us) > SLIP_US and not self.first:
                self.slips += 1
                self.missing_us += self.late_us
            self.late_us = 0
            self.first = False
        return self.late_us
