"""What is expected of the corpus, group by group, and how one case is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from cases import Case, Signal

from unplay import metrics
from unplay.metrics import Aecmos, echo_reduction_db, energy_ratio_db, si_sdr_db

NOT_FOUND = 3


@dataclass(frozen=True)
class Group:
    """Cases whose median gain must reach a target. `peers_db` is what the best of today's tools reached
    on this group when the corpus was made, WebRTC AEC3, NKF and DTLN-aec among them."""

    cases: tuple[str, ...]
    gain_db: float
    peers_db: float


GROUPS = {
    "lti": Group(
        (
            "lti_clean",
            "lti_clean_pop",
            "lti_speech_reference",
            "ser_m10",
            "ser_m20",
            "ser_m20_pop",
            "long_tail",
            "overlap_from_first_sample",
            "fullband_48k_ser_m10",
        ),
        gain_db=38,
        peers_db=24.8,
    ),
    "noise": Group(("noise20", "noise20_ser_m10"), gain_db=26, peers_db=21.5),
    "drift": Group(
        ("drift_p50", "drift_m120", "drift_p300", "fullband_48k_drift_p60"), gain_db=38, peers_db=14.1
    ),
    "offset, mp3": Group(
        ("offset_drift_p80", "offset_longer_recording", "mp3_128k", "mp3_offset_drift_m40"),
        gain_db=35,
        peers_db=20.5,
    ),
    "moving, agc": Group(("move_crossfade", "move_continuous", "agc"), gain_db=20, peers_db=12.2),
    "nonlinear": Group(("nonlinear", "nonlinear_soft_ser_m15", "everything"), gain_db=26, peers_db=13.5),
}

CASE_GAINS_DB = {"mp3_offset_drift_m40": 28, "agc": 15, "nonlinear": 18} | dict.fromkeys(
    GROUPS["drift"].cases, 30
)
"""Targets that single cases must reach."""

LTI_OVER_BEST_PEER_DB = 3
AECMOS_ECHO = 4.0
AECMOS_DEGRADATION = 3.95
AECMOS_DEGRADATION_CHANGE = -0.15
"""No clip's degradation score may fall further below its recording's."""

REAL_DOUBLE_TALK = "real double-talk"
FAR_END = "far end only"
REAL_FAR_END = "real far end"
ABSENT = "reference absent"

FAR_END_REDUCTIONS_DB = {FAR_END: 35, REAL_FAR_END: 30}


@dataclass(frozen=True)
class Outcome:
    """What came of one case. near_end is None when nothing was written (exit codes other than 0)."""

    near_end: Signal | None
    seconds: float
    exit_code: int = 0
    drift_ppm: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One case in the table. None where a figure means nothing or wasn't measured."""

    name: str
    group: str
    exit_code: int
    written: bool
    times_realtime: float
    recording_db: float | None
    output_db: float | None
    peers_db: dict[str, float]
    echo_reduction_db: float | None
    peer_reductions_db: dict[str, float]
    drift_error_ppm: float | None
    recording_aecmos: Aecmos | None
    output_aecmos: Aecmos | None
    note: str

    @property
    def gain_db(self) -> float | None:
        return _difference(self.output_db, self.recording_db)

    def peer_gain_db(self, peer: str) -> float | None:
        return _difference(self.peers_db.get(peer), self.recording_db)

    @property
    def best_peer_gain_db(self) -> float | None:
        return _difference(max(self.peers_db.values(), default=None), self.recording_db)


@dataclass(frozen=True)
class Verdict:
    """One line of what must be reached; passed is None when the cases it needs weren't all run."""

    what: str
    target: str
    measured: str
    passed: bool | None


def group_of(case: Case) -> str:
    for name, group in GROUPS.items():
        if case.name in group.cases:
            return name
    if not case.facts["reference_audible"]:
        return ABSENT
    real = case.facts["kind"] == "real"
    if case.facts["talker_present"]:
        return REAL_DOUBLE_TALK if real else "other"
    return REAL_FAR_END if real else FAR_END


def score(case: Case, outcome: Outcome, peer_outputs: dict[str, Signal], *, with_aecmos: bool) -> Row:
    """A case that unplay refused is scored on the recording, which then stands."""
    output = case.recording if outcome.near_end is None else outcome.near_end
    judged = with_aecmos and group_of(case) == REAL_DOUBLE_TALK
    return Row(
        name=case.name,
        group=group_of(case),
        exit_code=outcome.exit_code,
        written=outcome.near_end is not None,
        times_realtime=outcome.seconds / case.duration_s,
        recording_db=_si_sdr_db(case, case.recording),
        output_db=_si_sdr_db(case, output),
        peers_db=_scored(_si_sdr_db, case, peer_outputs),
        echo_reduction_db=_reduction_db(case, output),
        peer_reductions_db=_scored(_reduction_db, case, peer_outputs),
        drift_error_ppm=_difference(outcome.drift_ppm, case.true_drift_ppm),
        recording_aecmos=aecmos(case, case.recording) if judged else None,
        output_aecmos=aecmos(case, output) if judged else None,
        note=outcome.note,
    )


def aecmos(case: Case, output: Signal) -> Aecmos:
    return metrics.aecmos(case.reference, case.recording, output, case.sample_rate_hz)


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Everything that must be reached, in the order of the groups."""
    gains = {row.name: row.gain_db for row in rows if row.gain_db is not None}
    lines = []
    for name, group in GROUPS.items():
        measured = [gains[case] for case in group.cases if case in gains]
        lines.append(_at_least(f"{name}: median gain, dB", group.gain_db, measured, len(group.cases), median))
    lines.append(_over_the_best_peer(rows))
    for case, target in CASE_GAINS_DB.items():
        measured = [gains[case]] if case in gains else []
        lines.append(_at_least(f"{case}: gain, dB", target, measured, 1, min))
    lines.append(_nothing_written_where_absent(rows))
    for group_name, target in FAR_END_REDUCTIONS_DB.items():
        measured = [row.echo_reduction_db or 0.0 for row in rows if row.group == group_name]
        lines.append(_at_least(f"{group_name}: least echo reduction, dB", target, measured, 1, min))
    return lines + _double_talk(rows)


def _over_the_best_peer(rows: list[Row]) -> Verdict:
    margins = [
        row.gain_db - row.best_peer_gain_db
        for row in rows
        if row.group == "lti" and row.gain_db is not None and row.best_peer_gain_db is not None
    ]
    what = "lti: least gain over a case's best peer, dB"
    return _at_least(what, LTI_OVER_BEST_PEER_DB, margins, len(GROUPS["lti"].cases), min)


def _nothing_written_where_absent(rows: list[Row]) -> Verdict:
    absent = [row for row in rows if row.group == ABSENT]
    refused = [row for row in absent if row.exit_code == NOT_FOUND and not row.written]
    measured = f"{len(refused)} of {len(absent)}"
    passed = len(refused) == len(absent) if absent else None
    return Verdict(f"{ABSENT}: exit {NOT_FOUND}, nothing written", "all", measured, passed)


def _double_talk(rows: list[Row]) -> list[Verdict]:
    pairs = [(row.recording_aecmos, row.output_aecmos) for row in rows]
    scored = [(before, after) for before, after in pairs if before and after]
    echo = [after.echo for _, after in scored]
    degradation = [after.degradation for _, after in scored]
    change = [after.degradation - before.degradation for before, after in scored]
    name = f"{REAL_DOUBLE_TALK}: AECMOS"
    return [
        _at_least(f"{name} echo, median", AECMOS_ECHO, echo, 1, median),
        _at_least(f"{name} degradation, median", AECMOS_DEGRADATION, degradation, 1, median),
        _at_least(f"{name} degradation, worst change", AECMOS_DEGRADATION_CHANGE, change, 1, min),
    ]


def _at_least(
    what: str, target: float, values: list[float], n_needed: int, statistic: Callable[[list[float]], float]
) -> Verdict:
    if len(values) < n_needed:
        return Verdict(what, f"≥ {target:g}", "not run", None)
    measured = statistic(values)
    return Verdict(what, f"≥ {target:g}", f"{measured:.2f}", measured >= target)


def _scored(
    figure: Callable[[Case, Signal], float | None], case: Case, outputs: dict[str, Signal]
) -> dict[str, float]:
    figures = {name: figure(case, output) for name, output in outputs.items()}
    return {name: value for name, value in figures.items() if value is not None}


def _si_sdr_db(case: Case, output: Signal) -> float | None:
    if case.true_near_end is None or not case.facts["talker_present"]:
        return None
    return si_sdr_db(case.true_near_end, output)


def _reduction_db(case: Case, output: Signal) -> float | None:
    """Echo over what is left of it: all that differs from the recording minus the true echo.

    Where nobody knows the truth but only the loudspeaker sounds, recording over output.
    """
    if not case.facts["reference_audible"]:
        return None
    if case.true_echo is not None:
        return energy_ratio_db(case.true_echo, output - (case.recording - case.true_echo))
    return None if case.facts["talker_present"] else echo_reduction_db(case.recording, output)


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
