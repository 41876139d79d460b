"""The page of `clean --report`: what is on it, and that a browser shows and plays it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from unplay import comparing
from unplay.batch import run as batch
from unplay.hil import floors as floors_files
from unplay.hil.floors import Floor
from unplay.hil.history import Trend
from unplay.hil.validation import FIGURES, Plan, Row, Validation
from unplay.report import echo, pictures
from unplay.report.sessions_page import sessions_page
from unplay.report.validation_page import validation_page
from unplay.sessions import Session
from unplay.virtual.scene import Scene, make_scene

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

QUICK = ("--method", "fir")
"""The page is the same for every method."""


@pytest.fixture
def page(recorded: Scene, unplay_run: Callable) -> Path:
    run = unplay_run("clean", "reference.wav", "recording.wav", "--report", "page.html", *QUICK)
    assert run.code == 0
    assert "page.html" in run.out
    return Path("page.html").resolve()


def test_it_says_what_was_found_and_done(page: Path) -> None:
    text = page.read_text("utf-8")
    verdict = re.search(r'id="verdict">(.*?)</p>', text)
    assert verdict
    # the scene: 1.3 s late, 80 ppm fast; the delay is that of the direct sound, 5 ms after the loudspeaker
    assert "+1.305 s" in verdict[1]
    assert "fast" in verdict[1]
    assert abs(float(re.findall(r"clock ([\d.]+)", verdict[1])[0]) - 80) < 1
    assert "asked for by name" in text
    assert text.count("data:image/png") == 3
    assert "unplay clean reference.wav recording.wav" in text


def test_it_measures_the_echo_path(page: Path, recorded: Scene) -> None:
    """A fitted filter removes nothing of the talker that the reference does not explain."""
    text = page.read_text("utf-8")
    below = re.search(r"lies about (\d+) dB below what is left", text)
    assert below
    assert int(below[1]) > 40
    for title in ("Impulse response", "Decay", "Frequency response", "Drift of the clocks", "Delay"):
        assert f'aria-label="{title}' in text


@pytest.mark.parametrize("taken", [0.03, 0.1, 0.3])
def test_what_was_taken_along_is_measured(scene: Scene, taken: float) -> None:
    """A share of the talker that was removed is found to a decibel; 20·lg(0.03/0.97) is 30 dB."""
    left = (1 - taken) * scene.true_near_end
    path = echo.measure(scene.played, scene.recording - left, left, scene.sample_rate_hz)
    assert path is not None
    assert path.taken_along_db == pytest.approx(20 * np.log10(taken / (1 - taken)), abs=1)


def test_the_path_is_that_of_the_scene(scene: Scene) -> None:
    path = echo.measure(scene.played, scene.echo, scene.true_near_end, scene.sample_rate_hz)
    assert path is not None
    truth = np.zeros(len(path.taps))
    n_lead = round(path.lead_s * scene.sample_rate_hz)
    n = min(len(truth) - n_lead, len(scene.echo_path))
    truth[n_lead : n_lead + n] = scene.echo_path[:n]
    # what the music does not play, above all between its partials, cannot be known
    assert np.corrcoef(path.taps, truth)[0, 1] > 0.8
    assert path.explained > 0.999
    assert path.reverberation_s == pytest.approx(0.35, abs=0.05)


def test_nothing_is_measured_on_nothing(scene: Scene) -> None:
    silence = np.zeros_like(scene.echo)
    assert echo.measure(silence, silence, scene.true_near_end, scene.sample_rate_hz) is None
    assert echo.measure(scene.played, scene.echo, silence, scene.sample_rate_hz) is None


def test_it_needs_nothing_else(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert not re.search(r"https?://", text)
    # eight seconds; the limit for a minute is 5 MB
    assert len(text) < 2_000_000


def test_the_three_sounds_are_those_of_the_files(page: Path, tmp_path: Path) -> None:
    """They are MP3 at a low rate, so they are compared where that loses little: by their levels."""
    data = re.search(r'id="sounds">(.*?)</script>', page.read_text("utf-8"))
    assert data
    energies = {}
    for key, sound in json.loads(data[1]).items():
        path = tmp_path / f"{key}.mp3"
        path.write_bytes(base64.b64decode(sound))
        # the coder adds silence at both ends, so energies and not means are compared
        energies[key] = np.sum(soundfile.read(path)[0] ** 2)
    near_end = soundfile.read("recording_near_end.wav")[0]
    recording = soundfile.read("recording.wav")[0]
    # the coder scales by 0.95, all three alike
    assert energies["recording"] == pytest.approx(0.95**2 * np.sum(recording**2), rel=0.05)
    assert energies["near_end"] == pytest.approx(0.95**2 * np.sum(near_end**2), rel=0.05)
    assert energies["removed"] == pytest.approx(0.95**2 * np.sum((recording - near_end) ** 2), rel=0.05)


def test_same_input_same_page(page: Path, unplay_run: Callable) -> None:
    before = page.read_bytes()
    arguments = ("reference.wav", "recording.wav", "--report", "page.html", *QUICK)
    refused = unplay_run("clean", *arguments)
    assert refused.code == 2
    assert "--force" in refused.err
    assert unplay_run("clean", *arguments, "--force").code == 0
    assert page.read_bytes() == before


def test_no_page_where_nothing_was_found(recorded: Scene, unplay_run: Callable) -> None:
    other = make_scene(8, duration_s=8.0, reference_s=8.0)
    soundfile.write("other.wav", other.reference, other.sample_rate_hz)
    assert unplay_run("clean", "other.wav", "recording.wav", "--report", "page.html").code == 3
    assert sorted(path.name for path in Path().iterdir()) == ["other.wav", "recording.wav", "reference.wav"]


def test_every_method_is_on_the_page_of_compare(
    recorded: Scene, unplay_run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tuple(entry for entry in comparing.ENTRIES if entry.method in ("subtract", "fir"))
    monkeypatch.setattr(comparing, "ENTRIES", quick)
    soundfile.write("truth.wav", recorded.true_near_end, recorded.sample_rate_hz)
    arguments = ("compare", "reference.wav", "recording.wav", "--truth", "truth.wav", "--report", "page.html")
    run = unplay_run(*arguments)
    assert run.code == 0
    text = Path("page.html").read_text("utf-8")
    rows = re.findall(r"<tr><td>(.*?)</td>", text)
    assert rows == ["the recording", *(entry.name for entry in quick)]
    assert "SI-SDR, dB" in text
    assert text.count("data:image/png") == 1 + len(quick)
    assert not re.search(r"https?://", text)
    refused = unplay_run(*arguments)
    assert refused.code == 2
    assert "--force" in refused.err


def test_a_tone_is_drawn_at_its_frequency() -> None:
    rate_hz = 16_000
    tone = np.sin(2 * np.pi * 2000 * np.arange(3 * rate_hz) / rate_hz)
    levels_db = pictures.spectrogram_db(tone, rate_hz)
    assert levels_db.shape[0] == pictures.ROWS
    assert levels_db.shape[1] <= pictures.COLUMNS
    # 2 of 8 kHz: a quarter of the rows from below
    rows = np.argmax(levels_db, axis=0)
    assert np.all(np.abs(rows - 0.75 * pictures.ROWS) <= 2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Chromium without a window."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        message = f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--window-size=1200,1000",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within 20 s"
        time.sleep(0.05)


def test_a_browser_plays_switches_and_seeks(browser: Chrome, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    play = browser.find_element(By.ID, "play")
    assert play.accessible_name == "Play"
    assert browser.find_element(By.ID, "position").accessible_name == "Position in seconds"
    # from the keyboard
    play.send_keys(Keys.ENTER)
    wait_until(lambda: browser.execute_script("return at") > 0.3, "playing")
    assert play.accessible_name == "Pause"

    def gains() -> dict[str, float]:
        return browser.execute_script(
            "return Object.fromEntries(Object.entries(players).map(([k, p]) => [k, p.gain.gain.value]))"
        )

    wait_until(lambda: gains()["near_end"] > 0.5 and gains()["recording"] < 0.01, "the near end alone")
    # from 1 s on, so that it goes on for a while; the ear keeps the last 0.7 s
    browser.execute_script(
        "go(1.0);"
        "window.ear = new AnalyserNode(context, {fftSize: 32768});"
        "for (const player of Object.values(players)) player.gain.connect(ear);"
        "window.before = [startedAt, ...sources];"
    )
    time.sleep(0.3)
    browser.find_element(By.CSS_SELECTOR, "input[value=recording]").click()
    wait_until(lambda: gains()["recording"] > 0.9 and gains()["near_end"] < 0.01, "the recording alone")
    heard = browser.execute_script(
        "const heard = new Float32Array(ear.fftSize); ear.getFloatTimeDomainData(heard); return [...heard]"
    )
    assert longest_silence(np.array(heard)) < 0.005 * browser.execute_script("return context.sampleRate")
    # the same position: the same sources run on from the same start
    assert browser.execute_script("return [startedAt, ...sources].every((one, k) => one === before[k])")
    browser.execute_script("go(6.0)")
    wait_until(lambda: 6.0 <= browser.execute_script("return at") < 8.0, "playing from 6 s")
    play.click()
    assert play.accessible_name == "Play"
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    requested = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if json.loads(entry["message"])["message"]["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requested if not url.startswith(("data:", page.as_uri()))] == []


def longest_silence(heard: NDArray[np.floating]) -> int:
    """Samples in a row that are nothing, since the first that was something."""
    sounds = np.flatnonzero(np.abs(heard) > 1e-6)
    return int(np.max(np.diff(sounds, append=len(heard)), initial=0)) if len(sounds) else len(heard)


AXE = Path(__file__).parent / "browser" / "node_modules" / "axe-core" / "axe.min.js"


def serious_violations(browser: Chrome, page: Path) -> list[str]:
    """What axe-core finds of what keeps people out, as its rule and the first element it found."""
    if not AXE.exists():
        message = f"no axe-core: npm install --prefix {AXE.parents[2]}"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    browser.get(page.as_uri())
    browser.execute_script(AXE.read_text("utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def pages(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of clean, compare, batch, validate and sessions."""
    folder = tmp_path_factory.mktemp("pages")
    reference, recording, compared = (folder / name for name in ("song.wav", "take.wav", "compare.html"))
    soundfile.write(reference, scene.reference, scene.sample_rate_hz)
    soundfile.write(recording, scene.recording, scene.sample_rate_hz)
    with pytest.MonkeyPatch.context() as patch:
        quick = tuple(entry for entry in comparing.ENTRIES if entry.method == "subtract")
        patch.setattr(comparing, "ENTRIES", quick)
        comparing.compare(reference, recording, report=compared)
    manifest = folder / "takes.csv"
    manifest.write_text("reference,recording,room\nsong.wav,take.wav,hall\na.wav,b.wav,\n")
    done = batch.run(manifest, settings=batch.Settings("fir", report=True))
    validated = folder / "validated.html"
    validated.write_text(page_of_devices(scene), "utf-8")
    listed = folder / "sessions.html"
    listed.write_text(sessions_page(getting_worse(folder), folder), "utf-8")
    return [done.folder / "take" / "report.html", compared, done.page, validated, listed]


def page_of_devices(scene: Scene) -> str:
    """One that is well, one below all its floors and worse than it was, one that could not be reached."""
    floors = floors_files.read(floors_files.SHIPPED, FIGURES).default
    done = []
    for device, ill in (("kitchen", False), ("a-device-with-a-long-name-in-the-cellar", True)):
        rows = [
            Row(
                name,
                3.0,
                Floor(least=4.0) if ill else floors.get(name),
                "volume_q15 was 16000" if ill else "",
            )
            for name in FIGURES
        ]
        run = Validation(
            device=device,
            board="esp32",
            port="/dev/ttyUSB0",
            unplay="0.1.0",
            firmware="MicroPython 1.29.0",
            started="2026-11-27T10:00:00+00:00",
            took_s=1200.0,
            plan=Plan(),
            rows=rows,
            start_offsets_samples=[5700] * 20,
            long_s=600.0,
            taps=scene.echo_path[:2047],
        )
        trends = {name: Trend(name, [1.0, None, 2.0, 3.0], 1.0 if ill else None) for name in FIGURES}
        done.append((run, trends))
    return validation_page(done, {"/dev/ttyUSB7": "nothing answers at /dev/ttyUSB7"})


def getting_worse(folder: Path) -> list[Session]:
    """Four sessions of a device, the last of which is worse, and a damaged one."""
    facts = {
        "rate_hz": 16_000, "frames": 16_000, "ended": "length", "started_s": 0, "reference": None,
        "start_offset_samples": 12, "clipped_samples": 0, "late_blocks": 0, "dropped_frames": 0,
    }  # fmt: skip
    confidences = (0.9, 0.91, 0.92, 0.6)
    logs = [{"confidence": confidence, "reduction_db": 12.0} for confidence in confidences]
    readable = [Session("kitchen", f"s{k}", folder, facts, log) for k, log in enumerate(logs)]
    return [Session("kitchen", "s4", folder, {}, None, "s4 cannot be read"), *readable]


def test_nobody_is_kept_out(browser: Chrome, pages: list[Path]) -> None:
    """Contrast, names, order, keyboard, as far as a program can tell."""
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for width in (390, 1200):
            browser.set_window_size(width, 900)
            for page in pages:
                assert serious_violations(browser, page) == [], (page.name, scheme, width)


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(browser: Chrome, pages: list[Path], width: int) -> None:
    browser.set_window_size(width, 900)
    for page in pages:
        browser.get(page.as_uri())
        assert browser.execute_script(
            "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), page.name


def test_paper_is_white_and_has_all_that_is_not_for_clicking(browser: Chrome, pages: list[Path]) -> None:
    """From a dark screen, too."""
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark | {"media": "print"})
    browser.get(pages[0].as_uri())
    style = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    assert browser.execute_script(style, ":root", "--panel").strip() == "#ffffff"
    assert browser.execute_script(style, ".player", "display") == "none"
    assert browser.execute_script(style, ".jump", "display") != "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
