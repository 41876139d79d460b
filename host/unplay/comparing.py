"""Every method on one recording: how deep each goes, how long it takes, and why.

Each method runs as `unplay clean` would run it, from one alignment. With the talker alone as truth the
outputs are scored against it; without one by what can be measured blindly.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from unplay import cleaning, metrics
from unplay.audio import AudioReader, is_same_file, load_mono, write_whole
from unplay.errors import BadInputError, UnplayError
from unplay.removal.alignment import Alignment, aligned_reference

Signal = NDArray[np.floating]
Progress = Callable[[str, float], None]

FRAME_S = 0.1
"""Frame in which stretches without a talker are looked for."""

REFERENCE_ONLY_SHARE = 0.1
"""The share of the frames with a loud reference that count as without a talker."""

LEAD_S = 0.01
"""What the correlation with the reference allows before lag 0."""

DRIFT_MATTERS_SAMPLES = 0.1
"""A delay off by this much caps a subtraction at 20 dB where the spectrum is white."""


@dataclass(frozen=True)
class Entry:
    """A method as it is asked for; what it does to the echo, in a clause."""

    method: str
    does: str
    settings: tuple[tuple[str, Any], ...] = ()
    warp: bool = True

    @property
    def name(self) -> str:
        """As on the command line, after --method, without the names of files."""
        words = [self.method]
        for setting, value in self.settings:
            option = cleaning.OPTIONS[self.method][setting]
            words += [option] if value is True or isinstance(value, Path) else [option, str(value)]
        return " ".join(words if self.warp else [*words, "--no-warp"])


ENTRIES = (
    Entry("subtract", "one delay in whole samples and one gain", warp=False),
    Entry("subtract", "one delay in whole samples and one gain"),
    Entry("match", "one fractional delay, phase and gain, and no room"),
    Entry("spectral", "magnitudes only: where both sound, the talker goes with the music"),
    Entry("fir", "one path of 0.26 s for the whole file", warp=False),
    Entry("fir", "one path of 0.26 s for the whole file"),
    Entry("pursuit", "the strongest reflections, paths that fade into each other every 3 s"),
    Entry(
        "pursuit",
        "reflections and paths as in pursuit, the talker's spectrum as weight",
        (("weighted", True),),
    ),
    Entry("nmf", "patterns of magnitudes: what sounds like the music goes with it"),
    Entry("nmf", "patterns of powers: what sounds like the music goes with it", (("divergence", "is"),)),
    Entry("neural", "the path of fir, then gains by a network that has heard many echoes"),
    Entry("auto", "what helps by evidence"),
)

LINEAR_AND_STILL = ("subtract", "match", "fir")


@dataclass(frozen=True)
class Row:
    """One method's result. None where a figure cannot be known, and everywhere where a method failed.

    si_sdr_db, sdr_db, stoi: against the truth. reference_correlation: 0 to 1, chance near 0.
    echo_reduction_db: in the frames in which the reference is loud and the best output quietest.
    aecmos_echo, aecmos_degradation: 1 to 5. reason: why the
    result is what it is, in a line, or why there is none.
    """

    name: str
    seconds: float | None = None
    si_sdr_db: float | None = None
    sdr_db: float | None = None
    stoi: float | None = None
    reference_correlation: float | None = None
    echo_reduction_db: float | None = None
    aecmos_echo: float | None = None
    aecmos_degradation: float | None = None
    reason: str = ""


FIGURES = {
    "seconds": ("time, s", "{:.1f}"),
    "si_sdr_db": ("SI-SDR, dB", "{:+.1f}"),
    "sdr_db": ("SDR, dB", "{:+.1f}"),
    "stoi": ("STOI", "{:.2f}"),
    "reference_correlation": ("corr.", "{:.3f}"),
    "echo_reduction_db": ("red., dB", "{:+.1f}"),
    "aecmos_echo": ("MOS echo", "{:.2f}"),
    "aecmos_degradation": ("MOS degr.", "{:.2f}"),
}
"""Heading and form of each figure of a row; the table must fit 80 columns."""

BLIND_FIGURES = (
    "corr.: correlation with the reference, 0 to 1. red.: echo reduction where the reference most likely "
    "sounds alone.\nMOS: AECMOS, 1 to 5, of how little echo and how little other damage is heard."
)


@dataclass(frozen=True)
class Comparison:
    """rows: the recording itself first. notes: sentences on what could not be measured."""

    delay_s: float
    drift_ppm: float
    rows: list[Row]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Output:
    """What a method left, (n_samples,), and what the plan decided."""

    entry: Entry
    near_end: Signal | None
    seconds: float
    stages: list[dict[str, Any]]
    error: str = ""


def compare(
    reference: str | Path,
    recording: str | Path,
    *,
    truth: str | Path | None = None,
    playback_only: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Run every method on a recording and score what it leaves.

    reference, recording: as for `cleaning.clean`; channels are averaged before scoring. truth: the talker
    alone, aligned with the recording. playback_only: a recording of the playback alone, from which `nmf`
    learns once more. report: where to write the page on which all outputs can be seen and heard (HTML);
    force=True writes over one that exists. Raises BadInputError for a file that cannot be used, and
    ReferenceAbsentError where there is nothing to compare.
    """
    progress = progress or (lambda doing, share: None)
    reference, recording = Path(reference), Path(recording)
    page = None if report is None else Path(report)
    if page is not None:
        _check_page(page, [reference, recording, *(Path(p) for p in (truth, playback_only) if p)], force)
    progress("looking for the reference", 0.0)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(recording))
        rate_hz = reader.format.sample_rate_hz
        heard = reader.mono(rate_hz)
        true_near_end = None if truth is None else _load_truth(Path(truth), len(heard), rate_hz)
        if playback_only is not None:
            stack.enter_context(AudioReader(playback_only))
        alignments = {warp: cleaning.align_files(reference, reader, warp=warp) for warp in (True, False)}
    cleaning.check_found(alignments[True], reference, recording)
    entries = list(ENTRIES)
    if playback_only is not None:
        settings = (("playback_only", Path(playback_only)),)
        entries.insert(-1, Entry("nmf", "patterns learnt from the playback recorded alone", settings))
    outputs = []
    for k, entry in enumerate(entries):
        progress(entry.name, (k + 1) / (len(entries) + 1))
        outputs.append(_run(entry, reference, recording, alignments[entry.warp], rate_hz))
    played = aligned_reference(load_mono(reference, rate_hz), alignments[True], 0, len(heard))
    scorer = _Scorer(heard, played, true_near_end, rate_hz, outputs)
    as_it_is = scorer.row("the recording", heard, "as it is")
    rows = [as_it_is]
    for output in outputs:
        name, seconds = output.entry.name, output.seconds
        if output.near_end is None:
            rows.append(Row(name, seconds, reason=output.error))
        else:
            reason = _reason(output, outputs, alignments[True], rate_hz)
            rows.append(scorer.row(name, output.near_end, reason, seconds))
    comparison = Comparison(alignments[True].delay_s, alignments[True].drift_ppm, rows, scorer.notes)
    if page is not None:
        from unplay.report.page import compare_page

        progress("drawing the page", 1.0)
        sounds = {rows[0].name: heard} | {o.entry.name: o.near_end for o in outputs if o.near_end is not None}
        write_whole(page, compare_page(comparison, recording, sounds, rate_hz).encode())
    return comparison


def _check_page(page: Path, inputs: list[Path], force: bool) -> None:
    if any(is_same_file(page, path) for path in inputs):
        raise BadInputError(f"{page} would be written over an input: name another page.")
    if page.is_dir():
        raise BadInputError(f"{page} is a folder: name a file in it.")
    if page.exists() and not force:
        raise BadInputError(f"{page} exists already: name another page, or add --force.")


def _run(entry: Entry, reference: Path, recording: Path, alignment: Alignment, rate_hz: int) -> _Output:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "near_end.wav"
        started = time.perf_counter()
        try:
            result = cleaning.clean(
                reference,
                recording,
                target,
                method=entry.method,
                settings=dict(entry.settings),
                warp=entry.warp,
                alignment=alignment,
            )
        except UnplayError as error:
            return _Output(entry, None, time.perf_counter() - started, [], str(error))
        seconds = time.perf_counter() - started
        return _Output(entry, load_mono(target, rate_hz), seconds, result.stages)


class _Scorer:
    """Scores outputs of one recording, all (n_samples,); truth: the talker alone, or None."""

    def __init__(
        self, heard: Signal, played: Signal, truth: Signal | None, rate_hz: int, outputs: list[_Output]
    ) -> None:
        self.heard, self.played, self.truth, self.rate_hz = heard, played, truth, rate_hz
        self.notes: list[str] = []
        quiet = _reference_only(
            heard, played, [o.near_end for o in outputs if o.near_end is not None], rate_hz
        )
        self.reference_only = quiet
        absent = metrics.why_no_aecmos()
        self.with_aecmos = truth is None and absent is None
        if truth is None and absent is not None:
            self.notes.append(absent)

    def row(self, name: str, output: Signal, reason: str, seconds: float | None = None) -> Row:
        if self.truth is not None:
            truth = self.truth
            return Row(
                name,
                seconds,
                si_sdr_db=metrics.si_sdr_db(truth, output),
                sdr_db=metrics.sdr_db(truth, output),
                stoi=metrics.stoi(truth, output, self.rate_hz),
                reason=reason,
            )
        mos = metrics.aecmos(self.played, self.heard, output, self.rate_hz) if self.with_aecmos else None
        return Row(
            name,
            seconds,
            reference_correlation=metrics.reference_correlation(
                self.played, output, round(LEAD_S * self.rate_hz)
            ),
            echo_reduction_db=metrics.echo_reduction_db(
                self.heard[self.reference_only], output[self.reference_only]
            ),
            aecmos_echo=None if mos is None else mos.echo,
            aecmos_degradation=None if mos is None else mos.degradation,
            reason=reason,
        )


def _load_truth(path: Path, n_samples: int, rate_hz: int) -> Signal:
    truth = load_mono(path, rate_hz)
    if abs(len(truth) - n_samples) > 1:
        raise BadInputError(
            f"{path} is {len(truth) / rate_hz:.3f} s long and the recording {n_samples / rate_hz:.3f} s: "
            "give the talker alone as the same microphone heard him, from the same instant on."
        )
    if not truth.any():
        raise BadInputError(f"{path} is silent from end to end: name the file that holds the talker alone.")
    return np.pad(truth, (0, 1))[:n_samples]


def _reference_only(heard: Signal, played: Signal, outputs: list[Signal], rate_hz: int) -> NDArray[np.bool_]:
    """The samples (n_samples,) at which the reference most likely sounds alone.

    A frame in which the talker pauses is one that some output leaves nearly silent: of the louder half
    of the reference, the frames count in which the quietest output is farthest below the recording.
    """
    span = max(1, round(FRAME_S * rate_hz))

    def power(signal: Signal) -> Signal:
        return uniform_filter1d(np.square(signal, dtype=np.float64), span, mode="nearest")

    reference_power, before = power(played), power(heard)
    after = np.min([power(output) for output in [heard, *outputs]], axis=0)
    share = (after + 1e-12) / (before + 1e-12)
    loud = reference_power >= np.median(reference_power[reference_power > 0])
    return loud & (share <= np.quantile(share[loud], REFERENCE_ONLY_SHARE))


def _reason(output: _Output, outputs: list[_Output], alignment: Alignment, rate_hz: int) -> str:
    """What the method does, and what of this recording it does not follow."""
    entry = output.entry
    if entry.method == "auto":
        used = dict.fromkeys(stage["name"] for stage in output.stages if stage["used"])
        return f"used: {', '.join(used)}" if used else "nothing helped"
    seconds = sum(stretch.stop - stretch.start for stretch in alignment.stretches) / rate_hz
    slip_samples = abs(alignment.drift_ppm) * 1e-6 * seconds * rate_hz
    if not entry.warp and slip_samples > DRIFT_MATTERS_SAMPLES:
        return (
            f"drift {alignment.drift_ppm:+.1f} ppm, {slip_samples:.1f} samples over {seconds:.0f} s, "
            "not compensated by this method"
        )
    if entry.method in LINEAR_AND_STILL:
        found = _found_by_the_plan(outputs)
        if found:
            return f"{entry.does}; does not follow what auto found: {', '.join(found)}"
    return entry.does


def _found_by_the_plan(outputs: list[_Output]) -> list[str]:
    """What auto found in the way of the echo besides a still path, with what it gained."""
    return list(
        dict.fromkeys(
            f"{stage['name']} ({stage['effect_db']:+.1f} dB)"
            for output in outputs
            for stage in output.stages
            if output.entry.method == "auto"
            and stage["used"]
            and stage["name"] in ("movement", "gain track", "loudspeaker curve")
        )
    )
