"""`unplay compare`: every method in one run, with figures that mean what they say."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import soundfile

from unplay import comparing
from unplay.comparing import ENTRIES, Entry
from unplay.metrics import si_sdr_db
from unplay.virtual.scene import Scene

COMPARE = ("compare", "reference.wav", "recording.wav")


@pytest.fixture
def few_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick ones."""
    quick = tuple(e for e in ENTRIES if e.method in ("subtract", "fir") or e.name == "pursuit")
    monkeypatch.setattr(comparing, "ENTRIES", quick)


def test_the_entries_are_all_methods_and_their_variants() -> None:
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert {entry.method for entry in ENTRIES} == set(comparing.cleaning.METHODS)
    assert {"fir --no-warp", "pursuit --weighted", "nmf --divergence is"} < set(names)


def test_with_a_truth(recorded: Scene, few_methods: None, unplay_run) -> None:
    soundfile.write("talker.wav", recorded.true_near_end, recorded.sample_rate_hz, "FLOAT")
    run = unplay_run(*COMPARE, "--truth", "talker.wav", "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == [
        "the recording",
        "subtract --no-warp",
        "subtract",
        "fir --no-warp",
        "fir",
        "pursuit",
    ]
    before_db = si_sdr_db(recorded.true_near_end, recorded.recording)
    assert rows["the recording"]["si_sdr_db"] == pytest.approx(before_db, abs=0.01)
    assert rows["the recording"]["seconds"] is None
    assert rows["fir"]["si_sdr_db"] > rows["pursuit"]["si_sdr_db"] > rows["subtract"]["si_sdr_db"]
    assert rows["fir"]["sdr_db"] >= rows["fir"]["si_sdr_db"]
    assert rows["fir"]["stoi"] > rows["the recording"]["stoi"]
    assert all(row["reference_correlation"] is None for row in document["rows"])
    assert all(row["seconds"] > 0 for name, row in rows.items() if name != "the recording")
    # 80 ppm over the 6.7 s in which both sound
    assert rows["fir --no-warp"]["reason"].startswith("drift +80.0 ppm, 8.")
    assert rows["fir --no-warp"]["reason"].endswith("not compensated by this method")
    assert "drift" not in rows["fir"]["reason"]


def test_without_a_truth(recorded: Scene, few_methods: None, unplay_run) -> None:
    run = unplay_run(*COMPARE)
    assert (run.code, run.err) == (0, "")
    assert "corr." in run.out
    assert "SI-SDR" not in run.out
    assert ("MOS echo" in run.out) == (importlib.util.find_spec("speechmos") is not None)
    assert ("AECMOS needs" in run.out) == (importlib.util.find_spec("speechmos") is None)
    assert "subtract --no-warp: drift +80.0 ppm" in run.out


def test_blind_figures_follow_the_truth(recorded: Scene, few_methods: None) -> None:
    rows = {row.name: row for row in comparing.compare("reference.wav", "recording.wav").rows}
    fir, subtract, untouched = rows["fir"], rows["subtract"], rows["the recording"]
    assert untouched.echo_reduction_db == pytest.approx(0, abs=1e-6)
    assert fir.echo_reduction_db is not None
    assert subtract.echo_reduction_db is not None
    assert fir.echo_reduction_db > subtract.echo_reduction_db + 6
    assert fir.reference_correlation is not None
    assert untouched.reference_correlation is not None
    assert fir.reference_correlation < 0.5 * untouched.reference_correlation


def test_a_method_that_fails_stands_in_the_table(recorded: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "ENTRIES", (Entry("pursuit", "", (("segment_s", 0.0),)),))
    row = comparing.compare("reference.wav", "recording.wav").rows[1]
    assert row.si_sdr_db is None
    assert row.reason.startswith("The segments are 0 s long")


def test_a_playback_recorded_alone_adds_a_row(recorded: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write("alone.wav", recorded.echo, recorded.sample_rate_hz, "FLOAT")
    monkeypatch.setattr(comparing, "ENTRIES", ENTRIES[1:2])
    rows = comparing.compare("reference.wav", "recording.wav", playback_only="alone.wav").rows
    assert [row.name for row in rows] == ["the recording", "nmf --playback-only", "subtract"]


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        (np.ones(16_000), "truth.wav is 1.000 s long and the recording 8.000 s"),
        (np.zeros(128_000), "truth.wav is silent from end to end"),
    ],
)
def test_a_truth_that_cannot_be_one(truth: np.ndarray, says: str, recorded: Scene, unplay_run) -> None:
    soundfile.write("truth.wav", truth, 16_000)
    run = unplay_run(*COMPARE, "--truth", "truth.wav")
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(f"unplay: {says}")


def test_nothing_to_compare_without_the_reference(recorded: Scene, unplay_run) -> None:
    soundfile.write("recording.wav", recorded.true_near_end, recorded.sample_rate_hz)
    assert unplay_run(*COMPARE).code == 3
    soundfile.write("recording.wav", np.zeros(80_000), recorded.sample_rate_hz)
    assert unplay_run(*COMPARE).code == 3
