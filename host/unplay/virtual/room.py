"""A room that is computed while a virtual device plays into it: frame in, frame out, on one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.signal
from numpy.typing import NDArray

Signal = NDArray[np.float64]

MOST_DRIFT_SAMPLES = 4096
"""That two clocks may move apart in a recording."""

LOOP_SAMPLES = 160
"""From the microphone to the loudspeaker, where that is fed back: what a sound card's mixer takes."""


@dataclass
class Room:
    """What a microphone hears, full scale = 1.

    echo_path (n_taps,): from the loudspeaker's sample to the microphone's. near_end: samples (n,) of what
    else is heard from a frame on. curve: the loudspeaker's, sample by sample. noise_rms: of the microphone.
    start_offset_samples: how much later than asked for the sound comes out; `restart` adds up to
    most_random_offset to it. player_ppm: by how much the player's clock is faster than the recorder's, where
    they do not share one. feedback: the loudspeaker also gives what the microphone hears, times this.
    """

    echo_path: Signal
    near_end: Callable[[int, int], Signal]
    noise_rms: float
    start_offset_samples: int
    most_random_offset: int = 0
    player_ppm: float = 0.0
    seed: int = 0
    feedback: float = 0.0
    curve: Callable[[Signal], Signal] | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.restart()

    def restart(self) -> None:
        """Silence, and a new start offset."""
        self.offset_samples = self.start_offset_samples + int(self.rng.integers(self.most_random_offset + 1))
        drifts = MOST_DRIFT_SAMPLES if self.player_ppm else 0
        self.past = np.zeros(self.offset_samples + len(self.echo_path) - 1 + drifts)
        self.n_played = 0
        self.heard = np.zeros(LOOP_SAMPLES + len(self.echo_path) - 1)

    def hear(self, played: Signal, first: int) -> tuple[Signal, Signal]:
        """Microphone and near end (n_samples,) while the next samples (n_samples,) from `first` on play."""
        if not self.feedback:
            return self._hear(played, first)
        pieces = [  # so short that none depends on itself
            self._hear(played[at : at + LOOP_SAMPLES], first + at)
            for at in range(0, len(played), LOOP_SAMPLES)
        ]
        microphone, near_end = map(np.concatenate, zip(*pieces, strict=True))
        return microphone, near_end

    def _hear(self, played: Signal, first: int) -> tuple[Signal, Signal]:
        emitted = self.curve(played) if self.curve is not None else played
        known = np.concatenate([self.past, emitted])
        self.past = known[len(played) :]
        late = self._late(known, len(played))
        self.n_played += len(played)
        if self.feedback:
            late = np.clip(late + self.feedback * self.heard[: len(late)], -1.0, 1.0)
        echo = scipy.signal.oaconvolve(late, self.echo_path, mode="valid")
        near_end = self.near_end(first, len(played))
        noise = self.noise_rms * self.rng.standard_normal(len(played))
        microphone = np.clip(echo + near_end + noise, -1.0, 1.0 - 2.0**-23)
        if self.feedback:
            self.heard = np.concatenate([self.heard[len(played) :], microphone])
        return microphone, near_end

    def _late(self, known: Signal, n: int) -> Signal:
        """What comes out of the loudspeaker in the last n samples, and as many before as the path is long."""
        if not self.player_ppm:
            return known[: len(known) - self.offset_samples]
        times = np.arange(self.n_played - len(self.echo_path) + 1, self.n_played + n)
        first = self.n_played + n - len(known)
        wanted = times * (1 + 1e-6 * self.player_ppm) - self.offset_samples
        return np.interp(wanted, np.arange(first, first + len(known)), known)
