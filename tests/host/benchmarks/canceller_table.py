"""Print how deep the device's canceller goes, beside SpeexDSP's in the same run, and what is expected of it.

    python tests/host/benchmarks/canceller_table.py            three minutes
    python tests/host/benchmarks/canceller_table.py --cases 'lti_*'

Corpus cases are brought to 16 kHz and 16 bits. Both cancellers hear the reference from its first arrival on,
to the whole sample, with a tail of 128 ms (2048 taps); neither has a suppressor behind it, neither undoes
drift. Ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from statistics import median

import numpy as np
import scipy.signal
import soxr
from cases import Case, Signal, case_folders, corpus_folder, load_case
from numpy.typing import NDArray
from peers import speexdsp_canceller, why_no_speexdsp

from unplay.metrics import energy_ratio_db, si_sdr_db
from unplay.removal.canceller import cancel
from unplay.virtual.scene import room_response

RATE_HZ = 16_000
N_TAPS = 2048

MEDIAN_OVER_SPEEX_DB, WORST_OVER_SPEEX_DB = 4.0, -1.0
SHORT_BLOCK_DB = -1.5
"""Block 1024 against block 256, median."""
TIMES_REAL_TIME = 20.0
RECOVERY_DB = -0.1
"""What recovery may cost where the path stands still."""
LOUDER_DB = 0.5
"""By how much the residual may exceed the recording in any second."""
SOON_DB, SOON_S = 20.0, 2.5
END_DB = 27.0
AGAIN_DB, AGAIN_S = 20.0, 4.0

MUSIC = ("lti_clean", "ser_m10", "ser_m20_pop", "noise20")
"""References of the scenes without a talker."""
ROOMS_T60_S = (0.15, 0.2)
PATH_MOVES = ("move_crossfade", "move_continuous")

Samples16 = NDArray[np.int16]


@dataclass(frozen=True)
class Heard:
    """A case at 16 kHz and 16 bits; reference and recording begin together."""

    name: str
    reference: Samples16
    recording: Samples16
    near_end: Signal | None


@dataclass(frozen=True)
class Row:
    """Gains in SI-SDR, dB; None without a truth. loudest_db: residual over recording in the worst second."""

    name: str
    recording_db: float | None
    speex_db: float | None
    gain_db: float | None
    gain_256_db: float | None
    gain_still_db: float | None
    loudest_db: float
    seconds: float
    duration_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", default="*", metavar="PATTERN", help="of the corpus, e.g. 'lti_*'")
    pattern = parser.parse_args().cases
    if reason := why_no_speexdsp():
        sys.exit(reason)
    print(f"{'case':26} recording  SpeexDSP  gain 1024  gain 256  still  loudest second")
    rows = []
    for case in map(load_case, case_folders(corpus_folder())):
        if fnmatch(case.name, pattern) and case.facts["reference_audible"]:
            rows.append(row_of(heard(case)))
            print(formatted(rows[-1]), flush=True)
    failed = 0
    for what, target, measured, passed in verdicts(rows):
        print(f"{'pass' if passed else 'FAIL'}  {what}: {measured:+.1f}, expected {target}")
        failed += not passed
    return 1 if failed else 0


def heard(case: Case) -> Heard:
    truth = case.true_near_end if case.facts["talker_present"] else None
    signals = [case.reference_from(case.first_arrival_s), case.recording]
    signals += [] if truth is None else [truth]
    at_rate = [soxr.resample(s, case.sample_rate_hz, RATE_HZ) for s in signals]
    return Heard(
        case.name, _int16(at_rate[0]), _int16(at_rate[1]), None if truth is None else at_rate[2] * 32768
    )


def row_of(case: Heard) -> Row:
    started = time.perf_counter()
    ours = cancel(case.reference, case.recording)
    seconds, duration_s = time.perf_counter() - started, len(ours) / RATE_HZ
    loudest_db = loudest_second_db(case.recording, ours)
    truth = case.near_end
    if truth is None:
        return Row(case.name, None, None, None, None, None, loudest_db, seconds, duration_s)
    before_db = si_sdr_db(truth, case.recording.astype(np.float64))

    def gain_db(out: Samples16) -> float:
        return si_sdr_db(truth, out.astype(np.float64)) - before_db

    speex = speexdsp_canceller(case.reference, case.recording, RATE_HZ, N_TAPS)
    short = cancel(case.reference, case.recording, {"block": 256})
    still = None
    if case.name not in PATH_MOVES:
        still = gain_db(cancel(case.reference, case.recording, {"recovery": 0}))
    return Row(
        case.name,
        before_db,
        gain_db(speex),
        gain_db(ours),
        gain_db(short),
        still,
        loudest_db,
        seconds,
        duration_s,
    )


def loudest_second_db(recording: Samples16, residual: Samples16) -> float:
    """The greatest level of the residual over that of the recording, over any second (in steps of 0.1 s)."""
    step = RATE_HZ // 10
    n = len(recording) // step * step

    def energy(x: Samples16) -> Signal:
        steps = np.square(x[:n].astype(np.float64)).reshape(-1, step).sum(1)
        return np.asarray(np.convolve(steps, np.ones(10), "valid"), np.float64)

    floor = RATE_HZ * 4.0  # 2 units of a sample
    return float(np.max(10 * np.log10((energy(residual) + floor) / (energy(recording) + floor))))


def verdicts(rows: list[Row]) -> Iterator[tuple[str, str, float, bool]]:
    talkers = [r for r in rows if r.gain_db is not None]
    if talkers:
        over = [r.gain_db - r.speex_db for r in talkers]  # type: ignore[operator]
        yield _at_least("over SpeexDSP, median of the double-talk cases", median(over), MEDIAN_OVER_SPEEX_DB)
        yield _at_least("over SpeexDSP, worst of them", min(over), WORST_OVER_SPEEX_DB)
        blocks = [r.gain_db - r.gain_256_db for r in talkers]  # type: ignore[operator]
        yield _at_least("block 1024 over block 256, median", median(blocks), SHORT_BLOCK_DB)
        recovery = [r.gain_db - r.gain_still_db for r in talkers if r.gain_still_db is not None]  # type: ignore[operator]
        if recovery:
            yield _at_least("recovery on a still path, worst", min(recovery), RECOVERY_DB)
    if rows:
        speed = sum(r.duration_s for r in rows) / sum(r.seconds for r in rows)
        yield _at_least("times real time on this machine", speed, TIMES_REAL_TIME)
        loudest = max(r.loudest_db for r in rows)
        yield (
            "residual over recording, loudest second",
            f"at most {LOUDER_DB:+}",
            loudest,
            loudest <= LOUDER_DB,
        )
    for name in MUSIC:
        played = heard(load_case(corpus_folder() / "semisynthetic" / name)).reference
        for t60_s in ROOMS_T60_S:
            soon_db, end_db, again_db = far_end_db(played, t60_s)
            room = f"music of {name}, T60 {t60_s} s"
            yield _at_least(f"{room}, after {SOON_S} s", soon_db, SOON_DB)
            yield _at_least(f"{room}, at the end", end_db, END_DB)
            yield _at_least(f"{room}, {AGAIN_S} s after the path changed", again_db, AGAIN_DB)


def _at_least(what: str, measured: float, target: float) -> tuple[str, str, float, bool]:
    return what, f"at least {target:+}", measured, measured >= target


def far_end_db(played: Samples16, t60_s: float) -> tuple[float, float, float]:
    """Echo reduction without a talker: in the half second before 2.5 s, in the last 2 s, and in the half
    second before 4 s after another room took over. Noise 50 dB below the echo, and known here: what counts
    is the echo left, not the noise that goes with it."""
    rng = np.random.default_rng(1)
    active = int(np.argmax(np.abs(played) > 300))
    x = played[active : active + 10 * RATE_HZ].astype(np.float64)
    echoes = [scipy.signal.oaconvolve(x, room_response(rng, RATE_HZ, t60_s))[: len(x)] for _ in range(2)]
    half = len(x) // 2
    scale = 0.7 * 32768 / np.max(np.abs(echoes))
    still = scale * echoes[0]
    moved = np.concatenate([still[:half], scale * echoes[1][half:]])
    end_s, half_s = len(x) / RATE_HZ, half / RATE_HZ
    removed, removed_moved = (_removed(x, echo, rng) for echo in (still, moved))
    return (
        _reduction_db(still, removed, SOON_S - 0.5, SOON_S),
        _reduction_db(still, removed, end_s - 2, end_s),
        _reduction_db(moved, removed_moved, half_s + AGAIN_S - 0.5, half_s + AGAIN_S),
    )


def _removed(x: Signal, echo: Signal, rng: np.random.Generator) -> Signal:
    noise = rng.standard_normal(len(echo)) * np.std(echo) * 10 ** (-50 / 20)
    recording = _int16((echo + noise) / 32768)
    return recording - cancel(x.astype(np.int16), recording).astype(np.float64)


def _reduction_db(echo: Signal, removed: Signal, start_s: float, stop_s: float) -> float:
    here = slice(round(start_s * RATE_HZ), round(stop_s * RATE_HZ))
    return energy_ratio_db(echo[here], (echo - removed)[here])


def _int16(x: Signal) -> Samples16:
    return np.clip(np.round(x * 32768), -32768, 32767).astype(np.int16)


def formatted(row: Row) -> str:
    figures = (row.recording_db, row.speex_db, row.gain_db, row.gain_256_db, row.gain_still_db)
    cells = [" " * 10 if v is None else f"{v:10.1f}" for v in figures]
    return f"{row.name:26}{''.join(cells)}{row.loudest_db:10.1f}"


if __name__ == "__main__":
    sys.exit(main())
