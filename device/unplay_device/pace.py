"""Whether the application keeps up with the microphone, and the microphone's samples with time.

Ports drop what nobody reads in time and say nothing. What shows it is when blocks can be read: one that had
to be waited for is read the moment it is complete. When such blocks in a row all come later than those before
them promised, samples are missing, as many as the earliest of them is late; one alone was only fetched late.
"""

import time

SLIP_US = 4000
"""Waking up takes less, nearly always; the clocks of samples and ticks differ by less between two blocks."""

CONFIRMING_BLOCKS = 8


class Pace:
    """Lateness of blocks of block_us each."""

    def __init__(self, block_us):
        self.block_us = block_us
        self.late_us = self.slips = self.missing_us = 0
        self.asked = self.got = time.ticks_us()
        self.first = True
        self.suspected_us = self.suspicions = 0
        self.busy_64us = self.blocks = 0
        self.took_us = self.counted = 0  # µs, and blocks, from one that was waited for to another
        self.since_us = self.since = 0  # the same since the last of them

    def ask(self):
        """A block is about to be read."""
        self.asked = time.ticks_us()
        self.busy_64us += time.ticks_diff(self.asked, self.got) >> 6
        self.blocks += 1

    def load_percent(self):
        """Of a block's time, what passes between two blocks, on average: the rest is waited for sound."""
        return (self.busy_64us << 6) * 100 // (max(self.blocks, 1) * self.block_us)

    def rate_ppm(self):
        """By how much the clock of the samples is faster than it should be, by that of the ticks."""
        took_us = self.took_us - self.missing_us
        return self.counted * self.block_us * 1000000 // took_us - 1000000 if took_us > 0 else 0

    def get(self):
        """It has been read. Returns how late it is, in µs: 0 where it was waited for and is as promised."""
        now = time.ticks_us()
        self.late_us += time.ticks_diff(now, self.got) - self.block_us
        self.since_us += time.ticks_diff(now, self.got)
        self.since += 1
        self.got = now
        if time.ticks_diff(now, self.asked) > self.block_us >> 2:
            self._judge()
        return self.late_us

    def _judge(self):
        """A block that was waited for: its lateness is that of the samples, or of the waking up."""
        if not self.first:
            self.took_us += self.since_us
            self.counted += self.since
        self.since_us = self.since = 0
        late_us = self.late_us
        if self.first or abs(late_us) <= SLIP_US:
            self.late_us = self.suspicions = 0
            self.first = False
            return
        if not self.suspicions or abs(late_us) < abs(self.suspected_us):
            self.suspected_us = late_us
        self.suspicions += 1
        if self.suspicions == CONFIRMING_BLOCKS:
            self.slips += 1
            self.missing_us += self.suspected_us
            self.late_us -= self.suspected_us
            self.suspicions = 0
