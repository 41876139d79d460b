"""To the sample: where each stretch begins and ends, and where the direct sound lies.

One least-squares echo path (a Wiener filter) predicts the echo that stretches would make; the borders whose
echo leaves the least of the recording are the right ones. Between two stretches there was a seek (the
reference goes on at once, elsewhere), a pause (it goes on later where it stopped), or an end and a start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from unplay.removal.clock import Stretch, on_recording_clock

_LEAD_S = 0.064
_TAIL_S = 0.25
_PATH_FROM_S = 20.0
_SEARCH_S = 2.5
_STEPS_S = (0.128, 0.016, 0.002, 0.0)
_RIDGE = 1e-3
_ONSET = 0.2
_ABOVE_NOISE = 8.0
# where echo is expected but missing, the prediction adds all of its own energy to what is left
_MISSING = 0.3
# standard deviations of that, given how coloured the rest of the recording is
_BY_CHANCE = 6.0
_INAUDIBLE = 1e-3
# a border of two parameters explains a little more than one of one, by chance alone
_SIMPLER = 0.99


def sharpened(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    rate: float,
    stretches: Sequence[Stretch],
) -> tuple[Stretch, ...]:
    """The stretches, in the order of the recording, with every border where the recording says it is.

    reference (n,) and recording (m,) at `rate`, the rate of the stretches.
    """
    found: list[Stretch] = list(stretches)
    for k in range(len(found) + 1):
        left = found[k - 1] if k > 0 else None
        right = found[k] if k < len(found) else None
        if left and right and right.start - left.stop < 2 * _SEARCH_S * rate:
            stop, start = _Junction(reference, recording, rate, found, left, right).both()
            found[k - 1], found[k] = replace(left, stop=stop), replace(right, start=start)
            continue
        if left:
            stop = _Junction(reference, recording, rate, found, left, None).stop()
            found[k - 1] = replace(left, stop=stop)
        if right:
            start = _Junction(reference, recording, rate, found, None, right).start()
            found[k] = replace(right, start=start)
    return tuple(s for s in found if s.stop > s.start)


def direct_sound(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    rate: float,
    stretches: Sequence[Stretch],
) -> int:
    """Lag of the echo path's first arrival in samples, 0 where none stands out."""
    longest = max(stretches, key=lambda s: s.stop - s.start)
    path = np.abs(_path(reference, recording, rate, stretches, (longest.start + longest.stop) // 2))
    threshold = max(_ONSET * path.max(), _ABOVE_NOISE * float(np.median(path)))
    arrivals = np.flatnonzero(path >= threshold)
    return int(arrivals[0]) - int(_LEAD_S * rate) if len(arrivals) else 0


def _path(
    reference: NDArray[np.floating],
    recording: NDArray[np.floating],
    rate: float,
    stretches: Sequence[Stretch],
    around: int,
) -> NDArray[np.floating]:
    """Echo path (n_taps,) from `_LEAD_S` ahead on, by least squares over the seconds around a sample."""
    reach = int(_PATH_FROM_S * rate)
    lo, hi = max(0, around - reach), min(len(recording), around + reach)
    x = on_recording_clock(reference, stretches, lo, hi)
    lead, n_taps = int(_LEAD_S * rate), int((_LEAD_S + _TAIL_S) * rate)
    n_fft = 1 << int(np.ceil(np.log2(len(x) + n_taps)))
    spectrum = np.fft.rfft(x, n_fft)
    power = np.fft.irfft(np.abs(spectrum) ** 2, n_fft)[:n_taps].astype(np.float64)
    cross = np.fft.irfft(np.fft.rfft(recording[lo:hi], n_fft) * spectrum.conj(), n_fft)
    power[0] = power[0] * (1 + _RIDGE) + 1e-20
    target = np.roll(cross, lead)[:n_taps].astype(np.float64)
    return np.asarray(scipy.linalg.solve_toeplitz(power, target), np.float64)


class _Junction:
    """What is left of the recording around a border, as a function of where the border lies."""

    def __init__(
        self,
        reference: NDArray[np.floating],
        recording: NDArray[np.floating],
        rate: float,
        stretches: Sequence[Stretch],
        left: Stretch | None,
        right: Stretch | None,
    ) -> None:
        self.rate, self.left, self.right = rate, left, right
        before = left.stop if left else right.start if right else 0
        after = right.start if right else before
        self._before, self._after = before, after
        search, self._tail = int(_SEARCH_S * rate), int(_TAIL_S * rate)
        path = _path(reference, recording, rate, stretches, before)
        self._lead = int(_LEAD_S * rate)
        self._lo = before - search - 2 * self._tail
        hi = min(after + search + 2 * self._tail, len(recording))
        self._target = recording[max(self._lo, 0) : hi]
        self._skip = max(0, -self._lo)
        length = hi - self._lo
        self._n = np.arange(self._lo, hi)
        self._n_fft = 1 << int(np.ceil(np.log2(length + len(path))))
        self._path = np.fft.rfft(path, self._n_fft)
        self._stops = self._starts = (before, before)
        self._played_left = self._played_right = np.zeros(length)
        if left:
            natural = left.within_reference(len(reference), len(recording))
            self._stops = (max(left.start + 1, before - search), min(natural[1], after + search))
            self._played_left = self._played(reference, replace(left, stop=self._stops[1]))
        if right:
            natural = right.within_reference(len(reference), len(recording))
            self._starts = (max(natural[0], before - search), min(right.stop - 1, after + search))
            self._played_right = self._played(reference, replace(right, start=self._starts[0]))
        others = [s for s in stretches if s is not left and s is not right]
        self._played_others = on_recording_clock(reference, others, self._lo, hi)

    def _played(self, reference: NDArray[np.floating], stretch: Stretch) -> NDArray[np.floating]:
        return on_recording_clock(reference, [stretch], self._lo, self._lo + len(self._n))

    def _echo(self, stop: int, start: int) -> NDArray[np.floating]:
        played = self._played_others + self._played_left * (self._n < stop)
        played = played + self._played_right * (self._n >= start)
        echo = np.fft.irfft(np.fft.rfft(played, self._n_fft) * self._path, self._n_fft)
        return echo[self._lead :][: len(self._n)]

    def _left_over(self, stop: int, start: int) -> float:
        inside = slice(max(self._tail, self._skip), None)
        return float(
            np.sum((self._target[inside.start - self._skip :] - self._echo(stop, start)[inside]) ** 2)
        )

    def stop(self) -> int:
        """Where the left stretch stops: its natural end, unless echo is missing before."""
        natural = self._stops[1]
        _, best = _lowest(lambda n: self._left_over(n, self._starts[0]), self._stops, self.rate)
        return natural if self._as_good(natural, best, stop=True) else best

    def start(self) -> int:
        """Where the right stretch starts: its natural beginning, unless echo is missing there."""
        natural = self._starts[0]
        _, best = _lowest(lambda n: self._left_over(self._stops[1], n), self._starts, self.rate)
        return natural if self._as_good(natural, best, stop=False) else best

    def _as_good(self, natural: int, best: int, *, stop: bool) -> bool:
        """The natural border leaves hardly more than the best one, measured by the echo in between."""

        def borders(n: int) -> tuple[int, int]:
            return (n, self._starts[0]) if stop else (self._stops[1], n)

        between = np.sum((self._echo(*borders(natural)) - self._echo(*borders(best))) ** 2)
        gain = self._left_over(*borders(natural)) - self._left_over(*borders(best))
        rest = self._left_over(*borders(best))
        by_chance = _BY_CHANCE * np.sqrt(between * rest / len(self._target))
        return bool(gain <= _MISSING * between + by_chance + _INAUDIBLE * rest)

    def both(self) -> tuple[int, int]:
        """Where the left stretch stops and the right one starts: a seek, a pause, or an end and a start."""
        gap = self._pause()
        seek_left, seek = self._shifted(0)
        pause_left, pause = self._shifted(gap) if gap > 0 else (np.inf, 0)
        _, stop = _lowest(lambda n: self._left_over(n, self._after), self._stops, self.rate)
        apart_left, start = _lowest(
            lambda n: self._left_over(min(stop, n), n), (self._starts[0], self._starts[1]), self.rate
        )
        apart_left /= _SIMPLER
        if pause_left <= min(seek_left, apart_left):
            return pause, pause + gap
        return (seek, seek) if seek_left <= apart_left else (min(stop, start), start)

    def _pause(self) -> int:
        """Samples after which the right clock shows what the left one shows at its stop."""
        if self.left is None or self.right is None:
            return 0
        here = np.array(float(self._before))
        behind = self.left.position_at(here) - self.right.position_at(here)
        return round(float(behind) / float(self.right.rates[0]))

    def _shifted(self, gap: int) -> tuple[float, int]:
        """Energy left and stop of the left stretch when the right one starts `gap` samples after it."""
        range_ = max(self._stops[0], self._starts[0] - gap), min(self._stops[1], self._starts[1] - gap)
        return _lowest(lambda n: self._left_over(n, n + gap), range_, self.rate)


def _lowest(cost: Callable[[int], float], bounds: tuple[int, int], rate: float) -> tuple[float, int]:
    """Minimum and argument of a cost over whole numbers in [lo, hi], on finer and finer grids."""
    lo, hi = bounds
    best = (np.inf, lo)
    for step_s in _STEPS_S:
        if hi < lo:
            return best
        step = max(1, round(step_s * rate))
        best = min((cost(int(n)), int(n)) for n in np.unique(np.append(np.arange(lo, hi + 1, step), hi)))
        lo, hi = max(lo, best[1] - step), min(hi, best[1] + step)
    return best
