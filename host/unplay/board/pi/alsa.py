"""`machine.I2S` over ALSA: blocking, 32-bit stereo, one card both ways, so that both share its clock."""

from __future__ import annotations

import importlib
from typing import Any

from unplay.errors import DeviceUnreachableError

PERIOD_FRAMES = 256
FRAME_BYTES = 8


class AlsaI2S:
    """card: ALSA's name of the card that plays and records, as in `aplay -L`; set before the first."""

    RX, TX, MONO, STEREO = 0, 1, 0, 1
    card = "default"

    def __init__(
        self,
        number: int,
        *,
        sck: Any,
        ws: Any,
        sd: Any,
        mode: int,
        bits: int,
        format: int,
        rate: int,
        ibuf: int,
    ) -> None:
        import alsaaudio  # pyright: ignore[reportMissingImports]

        kind = alsaaudio.PCM_PLAYBACK if mode == self.TX else alsaaudio.PCM_CAPTURE
        try:
            self._pcm = alsaaudio.PCM(
                kind,
                alsaaudio.PCM_NORMAL,
                device=self.card,
                rate=rate,
                channels=2,
                format=alsaaudio.PCM_FORMAT_S32_LE,
                periodsize=PERIOD_FRAMES,
                periods=ibuf // FRAME_BYTES // PERIOD_FRAMES,
            )
        except alsaaudio.ALSAAudioError as error:
            raise OSError(19, f"ALSA cannot open {self.card}: {error}") from error
        self._left = b""

    def readinto(self, buffer: bytearray) -> int:
        """Wait until the buffer is full. What an overrun lost is told by the time that it took."""
        view = memoryview(buffer)
        done = 0
        while done < len(view):
            if not self._left:
                _, self._left = self._pcm.read()  # a negative length is an overrun; ALSA goes on
            part = self._left[: len(view) - done]
            view[done : done + len(part)] = part
            self._left = self._left[len(part) :]
            done += len(part)
        return done

    def write(self, buffer: bytearray) -> int:
        """Wait until the ring has taken it."""
        data = bytes(buffer)
        while data:
            written = self._pcm.write(data)
            if written < 0:  # an underrun: the ring begins again with this
                written = self._pcm.write(data)
            data = data[max(written, 0) * FRAME_BYTES :]
        return len(buffer)

    def deinit(self) -> None:
        self._pcm.close()


def require_alsa() -> None:
    """Raises DeviceUnreachableError where the extra is missing."""
    try:
        importlib.import_module("alsaaudio")
    except ImportError as error:
        raise DeviceUnreachableError(
            "this computer has no pyalsaaudio, through which a Raspberry Pi plays and records: "
            "pip install 'unplay[pi]', or give a --scene for a computed room."
        ) from error
