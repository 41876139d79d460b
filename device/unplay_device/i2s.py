"""Play and record with two ids of machine.I2S that share a clock: ESP32, ESP32-S3, and RP2 as a fallback."""

import machine

from unplay_device import frames

RING_BYTES = 40960
"""Of each direction: 0.32 s at 16 kHz. A card may be busy for 0.25 s."""


class I2SAudio:
    """Both directions, block by block. microphone, amplifier: id and pins (sck, ws, sd)."""

    def __init__(self, microphone, amplifier, settings):
        self.microphone, self.amplifier, self.settings = microphone, amplifier, settings
        self.block = settings["block"]
        self.frames = bytearray(frames.FRAME_BYTES * self.block)
        self.lead_blocks = RING_BYTES // len(self.frames)
        self.player = self.recorder = None

    def start(self):
        """Open both as the settings say; fill the player's ring with silence, which a stall may use up."""
        self.slot = 1 if self.settings["slot"] == "right" else 0
        self.shift = self.settings["microphone_shift"]
        self.volume_q15 = self.settings["volume_q15"]
        self.player = self._open(self.amplifier, machine.I2S.TX)
        self.recorder = self._open(self.microphone, machine.I2S.RX)
        for _ in range(self.lead_blocks):
            self._write_silence()

    def _open(self, wires, mode):
        return machine.I2S(
            wires["id"],
            sck=machine.Pin(wires["sck"]),
            ws=machine.Pin(wires["ws"]),
            sd=machine.Pin(wires["sd"]),
            mode=mode,
            bits=32,
            format=machine.I2S.STEREO,
            rate=self.settings["rate_hz"],
            ibuf=RING_BYTES,
        )

    def read(self, samples):
        """Wait for the next block of the microphone. Returns how many samples were clipped."""
        self.recorder.readinto(self.frames)
        return frames.pick(self.frames, self.block, self.slot, self.shift, samples)

    def write(self, samples):
        """Play a block after those given before."""
        frames.spread(samples, self.block, self.frames, self.volume_q15)
        self.player.write(self.frames)

    def stop(self):
        """Silence first: what the ring holds when it is closed is played on by some ports."""
        if self.player is not None:
            self._write_silence()
            self.player.deinit()
        if self.recorder is not None:
            self.recorder.deinit()
        self.player = self.recorder = None

    def _write_silence(self):
        frames.spread(self.frames, self.block, self.frames, 0)
        self.player.write(self.frames)
