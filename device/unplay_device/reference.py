"""A stored reference, read block by block, and what is played around it."""

from unplay_shared import marker

SAMPLE_BYTES = 2

REFERENCE_AT_SAMPLES = 36864
"""The reference begins so long after the marker does: past the end of what is searched for the marker."""

QUIET_SAMPLES = 8192
"""Silence between the reference and the second marker: the room rings out."""

NEVER = 1 << 40


class ReferenceReader:
    """Blocks of a reference, zero before and after it.

    file: 16-bit samples, mono, little-endian; nobody else reads it: on FAT going back in a long file is
    slow. position: of the next block's first sample, counted from the reference's first; may be negative.
    """

    def __init__(self, file, n_samples, position, silence):
        self.file = file
        self.n_samples = n_samples
        self.silence = silence
        self.go_to(position)

    def go_to(self, position):
        self.position = position
        self.file.seek(SAMPLE_BYTES * max(position, 0))

    def played_samples(self):
        """How much of the reference has been read."""
        return min(max(self.position, 0), self.n_samples)

    def fill(self, out):
        """The next len(out) samples. `silence`: as many zeros."""
        n = len(out)
        out[:] = self.silence
        first = max(0, -self.position)
        last = min(n, self.n_samples - self.position)
        if first < last:
            read_whole(self.file, memoryview(out)[first:last])
        self.position += n


def read_whole(file, view):
    """Fill a view of 16-bit samples from a file, as far as the file goes."""
    done = file.readinto(view)
    while 0 < done < SAMPLE_BYTES * len(view) and done % SAMPLE_BYTES == 0:
        more = file.readinto(view[done // SAMPLE_BYTES :])
        if not more:
            break
        done += more


class Programme:
    """All that is played: marker, silence, reference, silence, a shorter marker.

    reference: `ReferenceReader` that stands at −REFERENCE_AT_SAMPLES. level: of the markers. ends_itself:
    when the reference is over, not before `cut`. Positions are samples from the first marker's first.
    """

    def __init__(self, kernels, reference, level, ends_itself):
        self.kernels = kernels
        self.reference = reference
        self.level = level
        self.position = 0
        self.state = marker.FIRST_STATE
        self.end_at = REFERENCE_AT_SAMPLES + reference.n_samples + QUIET_SAMPLES if ends_itself else NEVER

    def cut(self):
        """End the reference with the block that was filled last, unless it is over."""
        if self.end_at > self.position + QUIET_SAMPLES:
            reference = self.reference
            reference.n_samples = reference.played_samples()
            self.end_at = self.position + QUIET_SAMPLES

    def is_closing(self):
        """Whether the silence before the second marker has begun."""
        return self.position >= self.end_at - QUIET_SAMPLES

    def fill(self, out):
        """The next block."""
        self.reference.fill(out)
        self._mark(out, 0, marker.PERIODS)
        self._mark(out, self.end_at, marker.END_PERIODS)
        self.position += len(out)

    def _mark(self, out, begin, n_periods):
        """Write what falls into the block of a marker that begins at `begin`."""
        first = max(begin - self.position, 0)
        last = min(begin + n_periods * marker.PERIOD - self.position, len(out))
        if first < last:
            if begin >= self.position:
                self.state = marker.FIRST_STATE
            self.state = self.kernels.chips(out, first, last - first, self.state, self.level)
