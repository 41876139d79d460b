"""Print what the page of `unplay clean --report` takes: time beyond cleaning, size, time to the first paint.

    python tests/host/benchmarks/page.py

A minute of music under a talker at 16 kHz and at 48 kHz. Drawing the page is timed in the run itself; the
first paint is that of a headless Chromium, the median of five. Ends with 1 when a target is missed.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from speed import QUICK, write_scene

import unplay

MOST_SECONDS = 3.0
MOST_BYTES = 5_000_000
MOST_PAINT_S = 1.0
N_PAINTS = 5


def main() -> None:
    passed = []
    for target in QUICK[1:]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_scene(folder, target)
            seconds, cpu_seconds = seconds_of_page(folder)
            print(f"{target.what}: {cpu_seconds:.2f} CPU seconds for the page; more than that is waiting")
            size = (folder / "page.html").stat().st_size
            paint_s = statistics.median(paints_s(folder / "page.html"))
            for what, value, unit, most in (
                ("beyond cleaning", seconds, "s", MOST_SECONDS),
                ("size", size / 1e6, "MB", MOST_BYTES / 1e6),
                ("first paint", paint_s, "s", MOST_PAINT_S),
            ):
                passed.append(value <= most)
                verdict = "pass" if passed[-1] else "FAIL"
                print(f"{target.what}: {what} {value:.2f} {unit} (at most {most:g} {unit}: {verdict})")
    sys.exit(not all(passed))


def seconds_of_page(folder: Path) -> tuple[float, float]:
    """From the moment the page is begun, which progress tells of, to the end: of the wall, of all cores."""
    moments: dict[str, tuple[float, float]] = {}
    unplay.clean(
        folder / "reference.wav",
        folder / "recording.wav",
        folder / "near_end.wav",
        report=folder / "page.html",
        method="fir",
        force=True,
        progress=lambda doing, share: moments.update({doing: (time.perf_counter(), time.process_time())}),
    )
    (began, cpu_began), (ended, cpu_ended) = moments["drawing the page"], moments["done"]
    return ended - began, cpu_ended - cpu_began


def paints_s(page: Path) -> Iterator[float]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    for _ in range(N_PAINTS):
        driver.get(page.as_uri())
        time.sleep(1)
        yield driver.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
        )
    driver.quit()


if __name__ == "__main__":
    main()
