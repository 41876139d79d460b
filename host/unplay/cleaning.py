"""From files to files: find the reference in a recording, take it out, write what is left.

A recording is cleaned in overlapping blocks that fade into each other, so that its length does not
matter; each block knows what was played before it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import unplay
from unplay.audio import (
    AudioFormat,
    AudioReader,
    AudioWriter,
    Samples,
    WholeFile,
    divide,
    is_same_file,
    load_mono,
    sha256_of,
)
from unplay.errors import BadInputError, NotConfidentError, ReferenceAbsentError

if TYPE_CHECKING:
    from unplay.removal.alignment import Alignment
    from unplay.removal.methods import Method
    from unplay.removal.plan import Removal

METHODS = ("auto", "subtract", "spectral", "match", "fir", "pursuit", "nmf", "neural")

OPTIONS = {
    "pursuit": {
        "segment_s": "--segment",
        "tail_s": "--tail",
        "weighted": "--weighted",
        "orthogonal": "--orthogonal",
    },
    "nmf": {
        "divergence": "--divergence",
        "rank_playback": "--rank-playback",
        "rank_rest": "--rank-rest",
        "sparsity": "--sparsity",
        "n_iterations": "--iterations",
        "playback_only": "--playback-only",
        "block_s": "--block",
    },
    "neural": {"on_device_residual": "--on-device-residual"},
}
"""What can be set in a method, and the option of the command line for it. playback_only is a file; block_s
is the longest block that is factorised at a time. The rest is what the classes in
`removal.methods.SETTABLE` say."""

LOG_SCHEMA_VERSION = 1

SHORTEST_S = 0.5
"""Less sound than this cannot be told from chance."""

BLOCK_S = 60.0
SHORTEST_BLOCK_S = 2.0
PAST_S = 1.25
OVERLAP_S = 0.5
EDGE_S = 0.02
"""How long a block is at most, and how short a user may make it; how much of what was played before it is
known to it, since the room still holds that; how long two fade into each other; how long the first fades
in."""

TAIL_S = 2.0
"""How long a room may ring after the reference stops."""

LEAD_S = 0.2
"""What is taken from before a stretch: room for an early arrival, and proof that silence was before it."""

HEAD_S = 0.1
"""A stretch that begins within this time of the recording was playing before it."""

NEXT_S = 0.05
"""What is played after a block and may be heard in it, where the echo path begins before the direct sound."""

ROUNDING = 2.0**-14
"""Two files that differ by less than this everywhere are one sound, rounded to 16 bits in two ways."""

CONFIDENT = 0.5

_TINY = 1e-30

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the whole that is done, 0 to 1."""


@dataclass(frozen=True)
class Result:
    """A recording that was cleaned.

    near_end, removed, report: the files written. stages: one entry for each stage the plan weighed, as in the
    log. confidence: 0 to 1. warnings: sentences. log: all of it, as `--log` writes it.
    """

    near_end: Path
    removed: Path | None
    report: Path | None
    alignment: Alignment
    stages: list[dict[str, Any]]
    confidence: float
    warnings: list[str]
    log: dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Recording samples [start, stop), of which the first and last few fade (n_fade_in, n_fade_out)."""

    start: int
    stop: int
    n_fade_in: int
    n_fade_out: int

    def window(self) -> Samples:
        """Raised-cosine flanks, (stop − start, 1); those of two overlapping blocks add up to one."""
        window = np.ones((self.stop - self.start, 1))
        window[: self.n_fade_in, 0] = _rise(self.n_fade_in)
        window[len(window) - self.n_fade_out :, 0] *= _rise(self.n_fade_out)[::-1]
        return window


def clean(
    reference: str | Path,
    recording: str | Path,
    near_end: str | Path | None = None,
    *,
    removed: str | Path | None = None,
    report: str | Path | None = None,
    log: str | Path | None = None,
    method: str = "auto",
    settings: Mapping[str, Any] | None = None,
    strength: float = 1.0,
    warp: bool = True,
    alignment: Alignment | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Take the sound of one file out of another.

    reference: what was played. recording: what was recorded, every channel of which is cleaned.
    near_end: where to write what is left (.wav or .flac); by default beside the recording, with
    `_near_end` after its name. removed: where to write what was taken out; both add up to the
    recording. report: where to write the page that shows what was done (HTML). log: where to write the JSON
    log. method: one of METHODS. settings: of this method, named
    as in OPTIONS. strength: 0 (leave the recording) to 1. warp=False leaves the drift of the two clocks
    alone. alignment: of these two files, as `align_files` returned it, to save finding it again.
    force=True writes over files.

    Raises BadInputError, ReferenceAbsentError or NotConfidentError; then nothing is written but the log.
    """
    job = _Job(
        Path(reference),
        Path(recording),
        _default_near_end(Path(recording)) if near_end is None else Path(near_end),
        Path(removed) if removed is not None else None,
        Path(report) if report is not None else None,
        Path(log) if log is not None else None,
        method,
        dict(settings or {}),
        strength,
        warp,
        alignment,
        progress or (lambda doing, share: None),
    )
    job.check(force)
    return job.run()


def align_files(reference: Path, recording: AudioReader, *, warp: bool) -> Alignment:
    """Find the reference, in the loudest channel that has it. Positions are at the recording's rate.

    Both are read at the rate of the analysis: at their own, an hour would fill the memory.
    """
    from unplay.removal.alignment import ANALYSIS_RATE_HZ, align

    if recording.survey.peak == 0:
        raise ReferenceAbsentError(f"{recording.path} is silent from end to end: nothing can be in it.")
    rate_hz = recording.format.sample_rate_hz
    low_rate_hz = min(rate_hz, int(ANALYSIS_RATE_HZ))
    played = load_mono(reference, low_rate_hz)
    alignment = None
    for channel in np.argsort(-recording.survey.energies, kind="stable"):
        if recording.survey.energies[channel] == 0:
            continue
        recorded = recording.mono(low_rate_hz, int(channel))
        if len(played) == len(recorded) and np.max(np.abs(played - recorded)) <= ROUNDING:
            raise BadInputError(
                f"{reference} and {recording.path} hold the same sound, so nothing would be left; name what "
                "was played first and what was recorded second."
            )
        found = align(played, recorded, low_rate_hz, follow_drift=warp)
        if found.found:
            return _at_rate(found, rate_hz / low_rate_hz, recording.format.n_samples)
        alignment = alignment or found
    assert alignment is not None, "some channel sounds"
    return alignment


def check_found(alignment: Alignment, reference: Path, recording: Path) -> None:
    """Raises ReferenceAbsentError, with the reason, where the reference was not found."""
    if not alignment.found:
        raise ReferenceAbsentError(
            f"{reference} is not in {recording}: {alignment.reason}", alignment.evidence
        )


def blocks_of(alignment: Alignment, audio_format: AudioFormat, block_s: float) -> list[Block]:
    """Equal blocks of at most about block_s that cover all stretches with their reverberation."""
    rate_hz, n_samples = audio_format.sample_rate_hz, audio_format.n_samples
    blocks = []
    for start, stop in _spans(alignment, rate_hz, n_samples):
        n_blocks = max(1, math.ceil((stop - start) / (block_s * rate_hz)))
        overlap = round(OVERLAP_S * rate_hz) if n_blocks > 1 else 0
        edge = min(round(EDGE_S * rate_hz), (stop - start) // 2)
        hop = (stop - start - overlap) / n_blocks
        for k in range(n_blocks):
            first, last = k == 0, k == n_blocks - 1
            blocks.append(
                Block(
                    start + round(k * hop),
                    stop if last else start + round((k + 1) * hop) + overlap,
                    (edge if start > 0 else 0) if first else overlap,
                    (edge if stop < n_samples else 0) if last else overlap,
                )
            )
    return blocks


@dataclass
class _Job:
    reference: Path
    recording: Path
    near_end: Path
    removed: Path | None
    report: Path | None
    log: Path | None
    method: str
    settings: dict[str, Any]
    strength: float
    warp: bool
    alignment: Alignment | None
    progress: Progress

    def check(self, force: bool) -> None:
        if self.method not in METHODS:
            raise BadInputError(f"There is no method {self.method!r}; choose one of {', '.join(METHODS)}.")
        if not 0 <= self.strength <= 1:
            raise BadInputError(f"The strength is {self.strength}, outside 0 to 1: choose one within.")
        self._check_settings()
        outputs = [path for path in (self.near_end, self.removed, self.report, self.log) if path is not None]
        inputs = [self.reference, self.recording, *self.playback_only]
        for k, output in enumerate(outputs):
            if any(is_same_file(output, path) for path in inputs):
                raise BadInputError(f"{output} would be written over an input: name another output.")
            if any(is_same_file(output, other) for other in outputs[:k]):
                raise BadInputError(f"{output} is named for two outputs: name one for each.")
            if output.is_dir():
                raise BadInputError(f"{output} is a folder: name a file in it.")
            if output.exists() and not force:
                raise BadInputError(f"{output} exists already: name another output, or add --force.")

    @property
    def playback_only(self) -> list[Path]:
        """The recording of the playback alone, if there is one."""
        return [Path(self.settings["playback_only"])] if "playback_only" in self.settings else []

    @property
    def block_s(self) -> float:
        return float(self.settings.get("block_s", BLOCK_S))

    def named_method(self, sample_rate_hz: int) -> Method | str:
        """The method with its settings, for a recording of this rate; "auto" as it is."""
        from unplay.removal.methods import method_named

        if self.method == "auto":
            return self.method
        settings = self._settings_of_the_method()
        for path in self.playback_only:
            settings |= {"playback_only": load_mono(path, sample_rate_hz), "sample_rate_hz": sample_rate_hz}
        return method_named(self.method, settings)

    def _settings_of_the_method(self) -> dict[str, Any]:
        """Without those that are the job's own."""
        return {k: v for k, v in self.settings.items() if k not in ("playback_only", "block_s")}

    def _check_settings(self) -> None:
        for name in self.settings:
            owners = [method for method, options in OPTIONS.items() if name in options]
            if not owners:
                raise BadInputError(
                    f"There is no setting {name!r}; choose from "
                    f"{', '.join(setting for options in OPTIONS.values() for setting in options)}."
                )
            if self.method not in owners:
                raise BadInputError(
                    f"{OPTIONS[owners[0]][name]} belongs to the method {owners[0]}, and the method is "
                    f"{self.method}: leave it out, or give --method {owners[0]}."
                )
        # not a number is not above anything
        if not self.block_s >= SHORTEST_BLOCK_S:
            raise BadInputError(
                f"The blocks are {self.block_s:g} s long: choose {SHORTEST_BLOCK_S:g} s or more."
            )
        if self.method in OPTIONS:
            from unplay.removal.methods import method_named

            method_named(self.method, self._settings_of_the_method())

    def run(self) -> Result:
        self.progress("reading", 0.0)
        with contextlib.ExitStack() as stack:
            reference = stack.enter_context(AudioReader(self.reference))
            recording = stack.enter_context(AudioReader(self.recording))
            playback_only = [stack.enter_context(AudioReader(path)) for path in self.playback_only]
            for reader in (reference, recording, *playback_only):
                _check_length(reader)
            for reader, what in (
                (reference, "played"),
                *((r, "recorded of it alone") for r in playback_only),
            ):
                if reader.survey.peak == 0:
                    raise BadInputError(
                        f"{reader.path} is silent from end to end: name the file that was {what}."
                    )
            log = self._new_log(reference, recording, *playback_only)
            log_file = None if self.log is None else stack.enter_context(WholeFile(self.log))
            stack.enter_context(_one_thread_of_blas())
            try:
                return self._remove(recording, log, log_file)
            except (ReferenceAbsentError, NotConfidentError) as error:
                log["error"] = str(error)
                _write_log(log, log_file)
                raise

    def _remove(self, recording: AudioReader, log: dict[str, Any], log_file: WholeFile | None) -> Result:
        paths = {"near_end": self.near_end, "removed": self.removed}
        with contextlib.ExitStack() as outputs:
            writers = {
                name: outputs.enter_context(AudioWriter(path, recording.format))
                for name, path in paths.items()
                if path is not None
            }
            page_file = None if self.report is None else outputs.enter_context(WholeFile(self.report))
            alignment = self._find(recording, log)
            self._clean_blocks(recording, alignment, list(writers.values()), log)
            for writer in writers.values():
                writer.finish()
            log["outputs"] = {
                name: {"path": str(writer.path), "sha256": writer.sha256()}
                for name, writer in writers.items()
            }
            if page_file is not None:
                self._write_page(page_file, log, alignment, writers["near_end"].partial)
            _write_log(log, log_file)
        self.progress("done", 1.0)
        return Result(
            self.near_end,
            self.removed,
            self.report,
            alignment,
            log["stages"],
            log["confidence"],
            log["warnings"],
            log,
        )

    def _write_page(self, file: WholeFile, log: dict[str, Any], alignment: Alignment, near_end: Path) -> None:
        from unplay.report.page import clean_page

        self.progress("drawing the page", 0.98)
        file.write(clean_page(log, alignment, self.reference, self.recording, near_end).encode())
        file.sync()
        file.publish()

    def _find(self, recording: AudioReader, log: dict[str, Any]) -> Alignment:
        self.progress("looking for the reference", 0.02)
        alignment = self.alignment or align_files(self.reference, recording, warp=self.warp)
        log.update(_describe(alignment, recording.format))
        check_found(alignment, self.reference, self.recording)
        return alignment

    def _clean_blocks(
        self, recording: AudioReader, alignment: Alignment, writers: list[AudioWriter], log: dict[str, Any]
    ) -> None:
        cleaner = _Cleaner(self, recording, alignment)
        meter = _PowerPerSecond(recording.format)
        energies = np.zeros(2)
        for recorded, removed in cleaner.pieces():
            parts = divide(recorded, removed, writers[0].bits)
            for writer, part in zip(writers, parts, strict=False):
                writer.write(part)
            meter.add(parts[1])
            energies += [float(np.sum(recorded**2)), float(np.sum(parts[0] ** 2))]
        log["stages"] = cleaner.stages
        log["confidence"] = cleaner.confidence
        log["removed_dbfs_per_s"] = meter.levels_dbfs()
        log["reduction_db"] = _number(10 * math.log10((energies[0] + _TINY) / (energies[1] + _TINY)))
        log["warnings"] += cleaner.warnings
        if log["confidence"] < CONFIDENT:
            raise NotConfidentError(
                f"{self.reference} is in {self.recording} but could not be removed with confidence "
                f"({log['confidence']:.2f} of 1, {CONFIDENT} is needed); perhaps another version of it was "
                "played: give the very file that was played.",
                {"confidence": log["confidence"]},
            )

    def _new_log(
        self, reference: AudioReader, recording: AudioReader, *playback_only: AudioReader
    ) -> dict[str, Any]:
        inputs = {"reference": reference, "recording": recording}
        inputs |= dict(zip(["playback_only"], playback_only, strict=False))
        settings = {name: str(v) if isinstance(v, Path) else v for name, v in self.settings.items()}
        return {
            "schema_version": LOG_SCHEMA_VERSION,
            "unplay_version": unplay.__version__,
            "command": self._command(),
            "settings": {"method": self.method, "strength": self.strength, "warp": self.warp, **settings},
            "inputs": {name: _describe_file(reader) for name, reader in inputs.items()},
            "warnings": [warning for reader in inputs.values() for warning in reader.warnings],
            "found": False,
        }

    def _command(self) -> str:
        """What repeats the run, over the outputs that it wrote."""
        words = ["unplay", "clean", str(self.reference), str(self.recording), "-o", str(self.near_end)]
        for option, path in (("--removed", self.removed), ("--report", self.report), ("--log", self.log)):
            if path is not None:
                words += [option, str(path)]
        words += ["--method", self.method, "--strength", f"{self.strength:g}", "--force"]
        for name, value in self.settings.items():
            option = OPTIONS[self.method][name]
            words += ([option] if value else []) if isinstance(value, bool) else [option, str(value)]
        return shlex.join(words if self.warp else [*words, "--no-warp"])


class _Cleaner:
    """Goes through a recording once; `stages` and `confidence` are complete when `pieces` ends."""

    def __init__(self, job: _Job, recording: AudioReader, alignment: Alignment) -> None:
        self._job = job
        self._recording = recording
        self._method = job.named_method(recording.format.sample_rate_hz)
        self._reference = load_mono(job.reference, recording.format.sample_rate_hz)
        self._alignment = _beyond_the_recording(alignment, len(self._reference), recording.format)
        self._confidences: list[tuple[float, int]] = []
        self.stages: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    @property
    def confidence(self) -> float:
        """Mean over the blocks and channels that were cleaned, by their length; else the best there was."""
        cleaned = [(value, length) for value, length in self._confidences if value >= CONFIDENT]
        if not cleaned:
            return max((value for value, _ in self._confidences), default=0.0)
        values, lengths = zip(*cleaned, strict=True)
        return round(float(np.average(values, weights=lengths)), 4)

    def pieces(self) -> Iterator[tuple[Samples, Samples]]:
        """The recording and what is taken out of it, in order, without gaps, each (n, n_channels)."""
        n_samples = self._recording.format.n_samples
        blocks = blocks_of(self._alignment, self._recording.format, self._job.block_s)
        position, rest = 0, np.zeros((0, self._recording.format.n_channels))
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            yield from self._untouched(position, block.start)
            recorded = self._recording.read(block.start, block.stop)
            removed = self._take_out(block, recorded) * block.window()
            removed[: len(rest)] += rest
            n_whole = min(block.stop, following.start if following else n_samples) - block.start
            rest = removed[n_whole:]
            position = block.start + n_whole
            yield recorded[:n_whole], removed[:n_whole]
        yield from self._untouched(position, n_samples)

    def _untouched(self, start: int, stop: int) -> Iterator[tuple[Samples, Samples]]:
        step = round(BLOCK_S * self._recording.format.sample_rate_hz)
        for at in range(start, stop, step):
            recorded = self._recording.read(at, min(at + step, stop))
            yield recorded, np.zeros_like(recorded)

    def _take_out(self, block: Block, recorded: Samples) -> Samples:
        from unplay.removal.alignment import aligned_reference
        from unplay.removal.plan import remove

        rate_hz = self._recording.format.sample_rate_hz
        past, following = round(PAST_S * rate_hz), round(NEXT_S * rate_hz)
        aligned = aligned_reference(
            self._reference, self._alignment, block.start - past, block.stop + following
        )
        removed = np.zeros_like(recorded)
        n_channels = recorded.shape[1]
        for channel in range(n_channels):
            if not recorded[:, channel].any():
                continue
            removal = remove(
                aligned,
                recorded[:, channel],
                rate_hz,
                n_past=past,
                method=self._method,
                strength=self._job.strength,
                progress=self._progress_of(block, channel / n_channels, 1 / n_channels),
            )
            self._account(block, channel, removal)
            if removal.confidence >= CONFIDENT:
                removed[:, channel] = recorded[:, channel] - removal.near_end
        return removed

    def _progress_of(self, block: Block, done: float, part: float) -> Progress:
        """Progress of one channel of a block as progress of the whole, of which finding is a tenth."""
        n_samples, length = self._recording.format.n_samples, block.stop - block.start
        return lambda doing, share: self._job.progress(
            doing, 0.1 + 0.9 * (block.start + length * (done + part * share)) / n_samples
        )

    def _account(self, block: Block, channel: int, removal: Removal) -> None:
        rate_hz = self._recording.format.sample_rate_hz
        start_s, stop_s = block.start / rate_hz, block.stop / rate_hz
        self._confidences.append((removal.confidence, block.stop - block.start))
        if removal.confidence < CONFIDENT:
            self.warnings.append(
                f"From {start_s:.1f} to {stop_s:.1f} s, channel {channel + 1} was left as it is: nothing "
                f"could be removed with confidence ({removal.confidence:.2f} of 1)."
            )
        self.stages += [
            {
                "start_s": start_s,
                "stop_s": stop_s,
                "channel": channel,
                "name": stage.name,
                "used": stage.used,
                "effect_db": _number(stage.effect_db),
                "reason": stage.reason,
                **{name: [_number(value) for value in values] for name, values in stage.figures.items()},
            }
            for stage in removal.stages
        ]


class _PowerPerSecond:
    """Mean power over all channels in each second of a stream."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._rate_hz = audio_format.sample_rate_hz
        n_seconds = math.ceil(audio_format.n_samples / audio_format.sample_rate_hz)
        self._energies = np.zeros(n_seconds)
        self._n_values = np.zeros(n_seconds)
        self._position = 0

    def add(self, samples: Samples) -> None:
        """The next samples (n, n_channels)."""
        seconds = (self._position + np.arange(len(samples))) // self._rate_hz
        powers = np.mean(samples**2, axis=1)
        self._energies += np.bincount(seconds, powers, minlength=len(self._energies))
        self._n_values += np.bincount(seconds, minlength=len(self._energies))
        self._position += len(samples)

    def levels_dbfs(self) -> list[float | None]:
        """10·log10 of the mean power of each second, full scale being 1; None where there is none."""
        with np.errstate(divide="ignore"):
            levels = 10 * np.log10(self._energies / self._n_values)
        return [round(float(level), 2) if np.isfinite(level) else None for level in levels]


def _spans(alignment: Alignment, rate_hz: int, n_samples: int) -> list[tuple[int, int]]:
    """The stretches with lead and reverberation, those that meet or touch joined."""
    spans: list[tuple[int, int]] = []
    for stretch in sorted(alignment.stretches, key=lambda stretch: stretch.start):
        start = max(0, stretch.start - round(LEAD_S * rate_hz))
        stop = min(n_samples, stretch.stop + round(TAIL_S * rate_hz))
        if spans and start <= spans[-1][1]:
            start, stop = spans[-1][0], max(stop, spans.pop()[1])
        spans.append((start, stop))
    return spans


def _beyond_the_recording(alignment: Alignment, n_reference: int, audio_format: AudioFormat) -> Alignment:
    """The same alignment, in which what plays when the recording begins began when it really did, and what
    plays when it ends goes on."""
    from unplay.removal.alignment import to_the_ends, with_ringing

    rate_hz, n_samples = audio_format.sample_rate_hz, audio_format.n_samples
    stretches = to_the_ends(alignment.stretches, n_reference, n_samples, rate_hz)
    stretches = with_ringing(stretches, n_reference, n_samples)
    first, *others = sorted(stretches, key=lambda stretch: stretch.start)
    if first.start <= HEAD_S * rate_hz:
        n_played = math.floor(first.position_at(np.array([first.start]))[0])
        first = replace(first, start=first.start - max(0, n_played))
    *others, last = first, *others
    if last.stop >= n_samples:
        last = replace(last, stop=last.stop + round(NEXT_S * rate_hz))
    return replace(alignment, stretches=(*others, last))


def _at_rate(alignment: Alignment, factor: float, n_samples: int) -> Alignment:
    """The same alignment in samples of another rate, within a recording of n_samples."""
    stretches = tuple(stretch.scaled(factor) for stretch in alignment.stretches)
    return replace(
        alignment,
        stretches=tuple(replace(stretch, stop=min(n_samples, stretch.stop)) for stretch in stretches),
    )


def _describe(alignment: Alignment, audio_format: AudioFormat) -> dict[str, Any]:
    """The entries of the log that say where the reference was found."""
    rate_hz = audio_format.sample_rate_hz
    if not alignment.found:
        return {"found": False, "reason": alignment.reason, "evidence": _numbers(alignment.evidence)}
    covered = [(stretch.start, stretch.stop) for stretch in alignment.stretches]
    ends = [0, *(stop for _, stop in covered)]
    starts = [*(start for start, _ in covered), audio_format.n_samples]
    return {
        "found": True,
        "reason": alignment.reason,
        "evidence": _numbers(alignment.evidence),
        "delay_s": _number(alignment.delay_s),
        "drift_ppm": _number(alignment.drift_ppm),
        "drift_sigma_ppm": _number(alignment.drift_sigma_ppm),
        "drift_track": [
            {"time_s": _number(time_s), "drift_ppm": _number(ppm)} for time_s, ppm in alignment.drift_track
        ],
        "stretches": [
            {
                "start_s": stretch.start / rate_hz,
                "stop_s": stretch.stop / rate_hz,
                "reference_start_s": _number(
                    float(stretch.position_at(np.array([stretch.start]))[0]) / rate_hz
                ),
                "drift_ppm": _number(stretch.drift_ppm),
            }
            for stretch in alignment.stretches
        ],
        "gaps": [
            {"start_s": stop / rate_hz, "stop_s": start / rate_hz}
            for stop, start in zip(ends, starts, strict=True)
            if start > stop
        ],
    }


def _describe_file(reader: AudioReader) -> dict[str, Any]:
    return {
        "path": str(reader.path),
        "sha256": sha256_of(reader.path),
        **asdict(reader.format),
        "n_clipped": reader.survey.n_clipped,
    }


def _one_thread_of_blas() -> threadpool_limits:
    """How BLAS adds up depends on its number of threads: with one, bytes are the same on any machine."""
    importlib.import_module("scipy.linalg")  # what is not loaded yet is not limited
    return threadpool_limits(1, "blas")


def _write_log(log: dict[str, Any], file: WholeFile | None) -> None:
    if file is not None:
        file.write(f"{json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode())
        file.sync()
        file.publish()


def _default_near_end(recording: Path) -> Path:
    suffix = ".flac" if recording.suffix.lower() == ".flac" else ".wav"
    return recording.with_name(f"{recording.stem}_near_end{suffix}")


def _check_length(reader: AudioReader) -> None:
    if reader.format.duration_s < SHORTEST_S:
        raise BadInputError(
            f"{reader.path} is {reader.format.duration_s:.2f} s long; at least {SHORTEST_S} s are needed: "
            "give more of it."
        )


def _rise(n: int) -> NDArray[np.float64]:
    return np.sin(np.pi / 2 * (np.arange(n) + 0.5) / max(n, 1)) ** 2


def _number(value: float) -> float | None:
    """Nine digits, which is what a computation repeats; None where there is no number."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}
