"""The library of sessions: whole or not there, cleaned by what the device knows, worst first."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from unplay import cleaning
from unplay.errors import BadInputError, NotConfidentError
from unplay.metrics import si_sdr_db
from unplay.sessions import Library, Session, known_alignment, sha256_of_pcm
from unplay.virtual.scene import Scene, make_scene

RATE_HZ = 16_000
OFFSET_S = 0.5
HEARD = round((OFFSET_S + 0.005) * RATE_HZ)
"""The scene's direct sound arrives 5 ms after it was played."""


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(duration_s=5.0, reference_s=4.0, offset_s=OFFSET_S, drift_ppm=0.0)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def pcm(signal: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.rint(signal * 32767).astype(np.int16)


def facts_of(scene: Scene, **others: Any) -> dict[str, Any]:
    played = pcm(scene.reference)
    return {
        "format": 1, "id": "20261127-101500-3f2a", "device": "kitchen", "board": "virtual",
        "firmware": "1.29", "unplay": "0.1.0", "rate_hz": RATE_HZ,
        "frames": len(scene.recording), "ended": "length",
        "started_s": 1_795_774_500, "start_offset_samples": 12, "reference_delay_samples": HEARD,
        "reference": {"name": "song", "sha256": sha256_of_pcm(played), "samples": len(played)},
        "reference_played_samples": len(played), "canceller": None, "slip_samples": 0,
        "clipped_samples": 0, "late_blocks": 0, "dropped_frames": 0, **others,
    }  # fmt: skip


def add(library: Library, scene: Scene, id: str = "20261127-101500-3f2a", device: str = "kitchen", **others):
    library.add_reference("song", pcm(scene.reference), RATE_HZ)
    facts = facts_of(scene, id=id, device=device, **others)
    return library.add(device, id, facts, pcm(scene.recording), pcm(scene.true_near_end))


def pretend_cleaned(session: Session, **log: Any) -> None:
    cleaned = {"unplay_version": "0.0.1", "found": True, "reduction_db": 10.0, **log}
    (session.folder / "log.json").write_text(json.dumps(cleaned))


def test_what_is_added_is_there(library: Library, scene: Scene) -> None:
    session = add(library, scene)
    assert library.has("kitchen", session.id)
    assert not library.has("kitchen", "another")
    assert session.facts == facts_of(scene)
    assert session.state == "not cleaned"
    for name, sound in (("mic", scene.recording), ("residual", scene.true_near_end)):
        np.testing.assert_array_equal(
            soundfile.read(session.folder / f"{name}.flac", dtype="int16")[0], pcm(sound)
        )
    assert library.sessions() == [session]
    with pytest.raises(BadInputError, match="exists already"):
        add(library, scene)


def test_added_whole_or_not_at_all(library: Library, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    library.add_reference("song", pcm(scene.reference), RATE_HZ)
    # after the sounds, before the facts
    monkeypatch.setattr(json, "dumps", fails)
    with pytest.raises(KeyboardInterrupt):
        library.add("kitchen", "one", facts_of(scene), pcm(scene.recording))
    assert list((library.path / "kitchen").iterdir()) == []
    assert library.sessions() == []


@pytest.mark.parametrize(("device", "id"), [("..", "a"), ("a/b", "c"), ("kitchen", ""), ("references", "a")])
def test_names_stay_in_the_library(library: Library, scene: Scene, device: str, id: str) -> None:
    with pytest.raises(BadInputError, match="cannot be the name of a folder"):
        library.add(device, id, facts_of(scene), pcm(scene.recording))


def test_a_format_of_the_future_is_refused(library: Library, scene: Scene) -> None:
    with pytest.raises(BadInputError, match="format 2, and this unplay knows 1"):
        add(library, scene, format=2)


def test_facts_that_are_missing_are_named(library: Library, scene: Scene) -> None:
    session = add(library, scene)
    facts = {name: value for name, value in session.facts.items() if name != "frames"}
    (session.folder / "session.json").write_text(json.dumps(facts))
    (damaged,) = library.sessions()
    assert damaged.state == "damaged"
    assert "does not say frames" in str(damaged.problem)
    with pytest.raises(BadInputError, match="does not say frames"):
        library.clean(damaged)


def test_facts_of_a_wrong_kind_are_named(library: Library, scene: Scene) -> None:
    session = add(library, scene)
    (session.folder / "session.json").write_text(json.dumps({**session.facts, "frames": "many"}))
    (damaged,) = library.sessions()
    assert "says 'many' for frames" in str(damaged.problem)


@pytest.mark.parametrize("log", ["", "{", "[1]", "{}", '{"unplay_version": "0.1.0", "found": true}'])
def test_a_log_that_was_cut_makes_a_session_new(library: Library, scene: Scene, log: str) -> None:
    session = add(library, scene)
    (session.folder / "log.json").write_text(log)
    assert library.session(session.id).state == "not cleaned"


def test_cleaned_by_what_the_device_knows(library: Library, scene: Scene) -> None:
    """One clock, so no search, no drift; the scene at −10 dB comes out at 35, 25 leaves it a margin."""
    session = add(library, scene)
    result = library.clean(session)
    assert result.alignment.drift_ppm == 0
    assert result.log["drift_sigma_ppm"] == 0
    assert result.alignment.delay_s * RATE_HZ == HEARD
    near_end = np.asarray(soundfile.read(session.folder / "near_end.flac")[0], np.float64)
    assert si_sdr_db(scene.true_near_end, near_end) > 25
    assert result.log["reduction_db"] > 6
    after = library.session(session.id)
    assert after.state == "cleaned"
    assert after.confidence == result.confidence
    assert {path.name for path in after.folder.iterdir()} == {
        "session.json", "mic.flac", "residual.flac", "near_end.flac", "removed.flac", "log.json",
        "report.html",
    }  # fmt: skip
    before = (session.folder / "near_end.flac").read_bytes()
    library.clean(after)
    assert (session.folder / "near_end.flac").read_bytes() == before


@pytest.mark.parametrize(
    "unsure", [{"reference_delay_samples": None}, {"slip_samples": 3}, {"dropped_frames": 160}]
)
def test_searched_where_the_device_cannot_know(scene: Scene, unsure: dict[str, Any]) -> None:
    assert known_alignment(facts_of(scene, **unsure)) is None
    assert known_alignment(facts_of(scene)) is not None


def test_a_recording_that_begins_in_the_middle(scene: Scene) -> None:
    alignment = known_alignment(facts_of(scene, reference_delay_samples=-800))
    assert alignment is not None
    (stretch,) = alignment.stretches
    assert stretch.start == 0
    assert stretch.stop == len(scene.reference) - 800
    assert stretch.position_at(np.array([0.0, 100.0])).tolist() == [800, 900]


def test_a_failure_leaves_no_earlier_result(
    library: Library, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = add(library, scene)
    library.clean(session, method="fir")
    monkeypatch.setattr(cleaning, "CONFIDENT", 1.1)
    with pytest.raises(NotConfidentError):
        library.clean(session, method="fir")
    assert library.session(session.id).state == "not confident"
    assert sorted(path.name for path in session.folder.iterdir()) == [
        "log.json", "mic.flac", "residual.flac", "session.json"
    ]  # fmt: skip


def test_the_reference_must_be_what_was_played(library: Library, scene: Scene) -> None:
    session = add(library, scene, reference={"name": "song", "sha256": "0" * 64, "samples": 5})
    with pytest.raises(BadInputError, match="has no 'song' of the sound that was played"):
        library.clean(session)
    nothing = add(library, scene, id="silent", reference=None)
    with pytest.raises(BadInputError, match="Nothing was played"):
        library.clean(nothing)


def test_two_references_of_one_name(library: Library, scene: Scene) -> None:
    first = library.add_reference("song", pcm(scene.reference), RATE_HZ)
    second = library.add_reference("song", pcm(-scene.reference), RATE_HZ)
    assert first != second
    assert library.add_reference("song", pcm(scene.reference), RATE_HZ) == first
    assert library.reference(add(library, scene)) == first


def test_worst_first(library: Library, scene: Scene) -> None:
    pretend_cleaned(add(library, scene, "good"), confidence=0.9)
    pretend_cleaned(add(library, scene, "poor"), confidence=0.6)
    pretend_cleaned(add(library, scene, "cut", ended="power"), confidence=0.95)
    pretend_cleaned(add(library, scene, "failed"), error="it is absent", found=False)
    add(library, scene, "new")
    damaged = add(library, scene, "damaged")
    (damaged.folder / "session.json").write_text("{")
    order = [(session.id, session.state) for session in library.sessions()]
    assert order == [
        ("damaged", "damaged"), ("failed", "reference absent"), ("cut", "cleaned"), ("new", "not cleaned"),
        ("poor", "cleaned"), ("good", "cleaned"),
    ]  # fmt: skip


def test_named_by_as_much_as_is_unique(library: Library, scene: Scene) -> None:
    for device, id in (("kitchen", "aa1"), ("kitchen", "aa2"), ("attic", "aa1"), ("attic", "aa11")):
        add(library, scene, id, device)
    assert library.session("aa2").name == "kitchen/aa2"
    assert library.session("attic/aa1").name == "attic/aa1"
    with pytest.raises(BadInputError, match="beginning of 2 sessions"):
        library.session("aa1")
    with pytest.raises(BadInputError, match="no session 'b' among the 4"):
        library.session("b")


def test_export_is_wav_and_json(library: Library, scene: Scene, tmp_path: Path) -> None:
    session = add(library, scene)
    library.clean(session, method="fir")
    folder = library.export(session, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "log.json", "mic.wav", "near_end.wav", "reference.wav", "removed.wav", "residual.wav", "session.json"
    ]  # fmt: skip
    mic, near_end, removed = (
        soundfile.read(folder / f"{name}.wav", dtype="int16")[0] for name in ("mic", "near_end", "removed")
    )
    np.testing.assert_array_equal(mic, pcm(scene.recording))
    np.testing.assert_array_equal(near_end + removed, mic)
    with pytest.raises(BadInputError, match="exists already"):
        library.export(session, tmp_path)


def test_the_command_line(
    library: Library, scene: Scene, unplay_run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: object) -> Any:
        return unplay_run("sessions", *arguments, "--library", library.path)

    assert "no sessions in" in run("list").out
    assert "no sessions of attic in" in run("list", "--device", "attic").out
    session = add(library, scene)
    add(library, scene, "silent", reference=None, reference_delay_samples=None)
    assert "not cleaned" in run("list").out
    refused = run("open", session.id)
    assert refused.code == 2
    assert f"unplay sessions clean {session.id}" in refused.err
    assert "nothing was played in it" in run("open", "silent").err
    cleaned = run("clean", "--new", "--method", "fir", "--json")
    assert cleaned.code == 0
    (row,) = json.loads(cleaned.out)
    assert row["state"] == "cleaned"
    assert row["confidence"] == 1.0
    assert json.loads(run("clean", "--new", "--json").out) == []
    assert run("clean", "silent").code == 2
    shown = json.loads(run("show", session.id, "--json").out)
    assert shown["session"] == facts_of(scene)
    assert shown["log"]["found"] is True
    assert "near_end.flac" in run("show", session.id).out
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert run("open", session.id).code == 0
    assert opened == [(session.folder / "report.html").as_uri()]
    assert run("export", session.id, "-o", tmp_path).code == 0
    assert (tmp_path / f"kitchen-{session.id}" / "mic.wav").exists()
    assert run("remove", session.id).code == 2
    assert library.has("kitchen", session.id)
    assert run("remove", session.id, "--yes").code == 0
    assert not library.has("kitchen", session.id)
    assert [s.id for s in library.sessions()] == ["silent"]


def test_what_gets_worse_is_named(
    library: Library, scene: Scene, tmp_path: Path, unplay_run: Callable
) -> None:
    """Kitchen at once, by 0.26; attic little by little, by 5.5 dB over 12 sessions; not the cellar."""
    for k in range(12):
        wiggle = 0.01 * (k % 3)
        for device, confidence, reduction_db in (
            ("kitchen", 0.95 - wiggle if k < 11 else 0.68, 20.0),
            ("attic", 0.95, 20.0 - 0.5 * k),
            ("cellar", 0.95 - wiggle, 20.0 + wiggle),
        ):
            session = add(library, scene, f"{device}{k:02}", device, started_s=1_795_774_500 + 86_400 * k)
            pretend_cleaned(session, confidence=confidence, reduction_db=reduction_db)
    add(library, scene, "cut", "cellar", ended="power", started_s=None)
    (library.session("attic00").folder / "report.html").touch()
    worse = {
        (trend.device, trend.figure.title): trend.worse
        for trend in library.trends()
        if trend.worse is not None
    }
    assert worse == {("kitchen", "confidence"): 0.26, ("attic", "reduction"): 5.5}
    page = tmp_path / "trends.html"
    run = unplay_run("sessions", "trends", "--library", library.path, "--report", page)
    assert run.code == 0
    assert str(page) in run.out
    text = page.read_text("utf-8")
    assert "37 sessions of 3 devices: attic, kitchen got worse." in text
    assert "Confidence: worse than before by 0.26." in text
    assert "Reduction: worse than before by 5.5 dB." in text
    assert text.index("<h2>kitchen</h2>") < text.index("<h2>cellar</h2>")
    assert text.index("ended early: power") < text.index("kitchen11") < text.index("cellar02")
    assert 'href="library/attic/attic00/report.html"' in text
    assert not re.search(r"https?://", text)


def test_a_library_of_nothing_has_a_page(library: Library, tmp_path: Path, unplay_run: Callable) -> None:
    page = tmp_path / "trends.html"
    assert unplay_run("sessions", "trends", "--library", library.path, "--report", page).code == 0
    assert "0 sessions of 0 devices" in page.read_text("utf-8")


def test_trends_are_of_each_device_in_time(library: Library, scene: Scene, unplay_run: Callable) -> None:
    for k in range(8):
        # the newest are added first
        session = add(library, scene, f"s{8 - k}", started_s=1000 - k, start_offset_samples=100 - k)
        pretend_cleaned(session, confidence=0.9, reduction_db=20.0 - k)
    add(library, scene, "t1", "attic", started_s=None)
    trends = {(trend.device, trend.figure.title): trend.values for trend in library.trends()}
    assert trends["kitchen", "start offset"] == [93, 94, 95, 96, 97, 98, 99, 100]
    assert trends["kitchen", "reduction"] == [13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0]
    assert trends["attic", "reduction"] == [None]
    printed = unplay_run("sessions", "trends", "--library", library.path).out
    assert "▁▂▃▄▅▆▇█" in printed
    assert (
        "attic" not in unplay_run("sessions", "trends", "--library", library.path, "--device", "kitchen").out
    )
