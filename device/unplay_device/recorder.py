"""One session: play a programme, record, cancel, store, block by block.

Storage and canceller work between two blocks. When that took too long the canceller leaves blocks out until
the application has caught up: a late block costs the canceller, never the recording.
"""

import gc

from unplay_device import frames
from unplay_device.canceller import kernels, new_canceller
from unplay_device.pace import Pace
from unplay_device.reference import REFERENCE_AT_SAMPLES, Programme, ReferenceReader
from unplay_shared import marker
from unplay_shared.faults import BAD_ARGUMENT, DeviceError
from unplay_shared.settings import CANCELLER

LEAD_SAMPLES = 64
"""The canceller's reference comes so much before the first strong path, to follow what is before it, too."""

LATE_BLOCKS = 1.5
"""The canceller stands aside from so many blocks of backlog on; the ring holds five."""

MOST_LATE_NOTED = 100
LEAST_SECONDS = 10
"""What a recording without a set length must have room for."""

AROUND_SECONDS = 4
"""Markers and silence around a reference."""

UNKNOWN = -(1 << 40)
"""Position of what is heard before the marker has told: silence for long."""

RESERVE_BYTES = 12288
"""What open files and the link need beside the recorder."""

HALF_PERIOD = marker.PERIOD // 2

IDLE, MARKER, RECORDING, CLOSING = "idle", "marker", "recording", "closing"


class Recorder:
    """States marker → recording → closing → idle; without a reference only recording.

    All big buffers are taken once, here, before memory is in pieces. audio: as `unplay_device.i2s.I2SAudio`.
    settings: of device and canceller, complete.
    """

    def __init__(self, audio, settings):
        self.audio, self.settings = audio, settings
        self.cancelling = {entry[0]: settings[entry[0]] for entry in CANCELLER}
        self.rate_hz, self.n = settings["rate_hz"], settings["block"]
        self.listener = marker.Listener(kernels)
        self.microphone, self.played, self.left, self.silence = (kernels.samples(self.n) for _ in range(4))
        self.canceller = self._new_canceller() if settings["cancel"] else None
        self.session, self.files = None, []
        self.state = IDLE

    def _new_canceller(self):
        """None where it leaves too little memory for all else: recordings can be cleaned later."""
        try:
            canceller = new_canceller(self.cancelling)
            _ = [bytearray(RESERVE_BYTES // 3) for _ in range(3)]
            return canceller
        except MemoryError:
            gc.collect()
            return None

    def lacks_canceller(self):
        return self.canceller is None and self.settings["cancel"] == 1

    def begin(self, store, reference, seconds, facts):
        """Open everything; throw the microphone's beginning away. Records from the next `step` on.

        reference: its sidecar, or None to record without playing. seconds: when to stop; 0: when the
        reference has ended, or never. facts: what the sidecar shall say besides. Raises DeviceError where the
        store has no room or the reference has another sample rate, OSError where audio or storage fail.
        """
        self.store, self.reference, self.facts = store, reference, facts
        if reference is not None and reference["rate_hz"] != self.rate_hz:
            raise DeviceError(BAD_ARGUMENT, {"name": "rate_hz", "value": reference["rate_hz"]})
        self.cancels = self.canceller is not None and reference is not None
        self.free_bytes = store.require(self._needed_bytes(seconds))
        self._reset(seconds)
        if self.cancels:
            self.canceller.restart()
        if reference is not None:
            reader, level = self._reader(-REFERENCE_AT_SAMPLES), self.settings["marker_q15"]
            self.programme = Programme(kernels, reader, level, not seconds)
            self.heard = self._reader(UNKNOWN)
            self._listen(marker.PERIODS, marker.LISTENING_PERIODS, 0)
        self.session = store.new_session(self._facts(), self.cancels)
        self.audio.start()
        for _ in range(1 + self.settings["settle_ms"] * self.rate_hz // (1000 * self.n)):
            self.audio.read(self.microphone)
            self.audio.write(self.silence)
        self.pace = Pace(self.n * 1000000 // self.rate_hz)
        self.state = RECORDING if reference is None else MARKER

    def _needed_bytes(self, seconds):
        if not seconds:
            length = self.reference["samples"] // self.rate_hz if self.reference else LEAST_SECONDS
            seconds = length + AROUND_SECONDS
        return seconds * 2 * self.rate_hz * (2 if self.cancels else 1)

    def _reset(self, seconds):
        self.heard = None
        self.programme = self.arrival = self.ended = None
        self.listens = False
        self.stop_after = -(-seconds * self.rate_hz // self.n) if seconds else None
        self.session, self.files = None, []
        self.blocks = self.loudest = 0
        self.before = self.after = 1

    def _facts(self):
        """What the sidecar says before anything is known."""
        facts = self.facts
        facts["rate_hz"] = self.rate_hz
        facts["reference"] = self.reference
        facts["canceller"] = self.cancelling if self.cancels else None
        for name in ("start_offset", "reference_delay", "canceller_delay", "end_marker_at", "slip"):
            facts[name + "_samples"] = None
        for name in ("clipped_samples", "late_blocks", "slips", "dropped_frames"):
            facts[name] = 0
        facts["late"] = []
        facts["reference_at_samples"] = REFERENCE_AT_SAMPLES
        facts["reference_played_samples"] = self.reference["samples"] if self.reference else 0
        return facts

    def _listen(self, n_periods, n_listening, wait):
        self.listener.restart(n_periods, n_listening, wait)
        self.listens = True

    def _reader(self, position):
        file = self.store.open_reference(self.reference["name"])
        self.files.append(file)
        return ReferenceReader(file, self.reference["samples"], position, self.silence)

    def stop(self, why):
        """End with the marker that tells whether samples were lost, or at once where there was none."""
        if self.ended is None:
            self.ended = why
            if self.programme is None or self.state == MARKER:
                self.state = IDLE
            else:
                self.programme.cut()
                self.heard.n_samples = self.programme.reference.n_samples

    def step(self):
        """One block. Returns whether there is more to come; after the last the session is whole."""
        late_us = self._exchange()
        residual = self._cancel(late_us) if self.cancels else None
        self.session.write(self.microphone, residual)
        self.blocks += 1
        if self.listens and self.listener.take(self.microphone, self.n):
            self._take_arrival()
        self._look_ahead()
        if self.state == IDLE:
            self.close()
        return self.state != IDLE

    def _exchange(self):
        """The next block of the microphone, and in turn a block to play. Returns the lateness in µs."""
        self.pace.ask()
        self.facts["clipped_samples"] += self.audio.read(self.microphone)
        late_us = self.pace.get()
        if self.programme is not None:
            self.programme.fill(self.played)
            self.audio.write(self.played)
        else:
            self.audio.write(self.silence)
        self.loudest |= frames.loudest(self.microphone, self.n)
        return late_us

    def _cancel(self, late_us):
        """The residual of the block; the block itself where there is no time."""
        self.heard.fill(self.played)
        if late_us > LATE_BLOCKS * self.pace.block_us:
            self.canceller.skip(self.played)
            self.facts["late_blocks"] += 1
            if len(self.facts["late"]) < MOST_LATE_NOTED:
                self.facts["late"].append(self.blocks)
            return self.microphone
        self.canceller.process(self.played, self.microphone, self.left)
        sums = self.canceller.sums
        self.before += (int(sums[0]) - self.before) >> 3
        self.after += (int(sums[1]) - self.after) >> 3
        return self.left

    def _take_arrival(self):
        """A marker has been listened for long enough."""
        arrival = self.listener.arrival()
        self.listens = False
        if self.state == CLOSING:
            if arrival is not None:
                self.facts["slip_samples"] = arrival.delay_samples - HALF_PERIOD
            self.state = IDLE
        elif self.state == MARKER:
            self.state = RECORDING
            self.arrival = arrival
            if arrival is not None:
                self._follow(arrival)

    def _follow(self, arrival):
        """From here on it is known when the microphone hears the reference."""
        facts = self.facts
        delay = REFERENCE_AT_SAMPLES + arrival.direct_samples
        facts["start_offset_samples"] = arrival.direct_samples
        facts["marker_quality"] = arrival.quality
        facts["reference_delay_samples"] = delay
        facts["canceller_delay_samples"] = delay - LEAD_SAMPLES
        self.heard.go_to(self.blocks * self.n - delay + LEAD_SAMPLES)
        self.session.note()

    def _look_ahead(self):
        """What has to happen by itself: the second marker, the end of time or room."""
        if self.stop_after is not None and self.blocks >= self.stop_after:
            self.stop("length")
        if self.free_bytes - self.session.written_bytes < 2 * AROUND_SECONDS * self.rate_hz:
            self.stop("storage")
        if self.state == RECORDING and self.programme is not None and self.programme.is_closing():
            self._listen_again()

    def _listen_again(self):
        """Search half a period around where the second marker is expected."""
        if self.arrival is None:
            self.state = IDLE
            return
        expected = self.programme.end_at + self.arrival.delay_samples
        wait = expected - HALF_PERIOD - self.programme.position
        self._listen(marker.END_PERIODS, marker.END_PERIODS + 1, wait)
        self.state = CLOSING

    def close(self):
        """Stop the sound, complete the sidecar, close the files."""
        self.audio.stop()
        facts = self.facts
        facts["frames"] = self.blocks * self.n
        facts["slips"] = self.pace.slips
        facts["rate_ppm"] = self.pace.rate_ppm()
        facts["load_percent"] = self.pace.load_percent()
        facts["dropped_frames"] = self.pace.missing_us * self.rate_hz // 1000000
        if self.programme is not None:
            facts["reference_played_samples"] = self.programme.reference.played_samples()
            if self.programme.position > self.programme.end_at:
                facts["end_marker_at_samples"] = self.programme.end_at
        self.session.finish(self.ended or "length")
        self._close_references()

    def _close_references(self):
        for file in self.files:
            file.close()
        self.files = []

    def listen(self, n_blocks):
        """Hear so many blocks while silence plays, for a test. Returns what they were like.

        peak: bits collected of the loudest sample, as in `status`.
        """
        self.loudest = clipped = 0
        self.pace = Pace(self.n * 1000000 // self.rate_hz)
        self.audio.start()
        try:
            for _ in range(n_blocks):
                self.pace.ask()
                clipped += self.audio.read(self.microphone)
                self.pace.get()
                self.audio.write(self.silence)
                self.loudest |= frames.loudest(self.microphone, self.n)
        finally:
            self.audio.stop()
        return {"peak": self.loudest, "clipped_samples": clipped, "slips": self.pace.slips}

    def abandon(self):
        """Close what can be closed after a failure; what was flushed stays, ended by "power"."""
        self.state = IDLE
        self.audio.stop()
        if self.session is not None:
            self.session.abandon()
        self._close_references()

    def status(self):
        """What a host sees live.

        peak: bits collected of the loudest sample since the last status. before, after: smoothed magnitudes
        of microphone and residual; their ratio is the echo reduction.
        """
        loudest, self.loudest = self.loudest, 0
        return {
            "state": self.state,
            "id": self.session.id,
            "samples": self.blocks * self.n,
            "peak": loudest,
            "clipped": self.facts["clipped_samples"],
            "late": self.facts["late_blocks"],
            "late_us": self.pace.late_us,
            "before": self.before,
            "after": self.after,
        }
