"""Print how fast unplay is, how much memory it takes, and where the time goes.

    python tests/host/benchmarks/speed.py --quick      about two minutes
    python tests/host/benchmarks/speed.py              about an hour: files of up to one hour

Every run is a process of its own, from start to finish, imports included. The scenes are made by the
program: two loops of music whose lengths have no common measure, in a room, under a talker, 1.3 s late
and 80 ppm fast. Ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile

import unplay
from unplay.removal.warp import warp
from unplay.virtual.scene import make_scene

UNPLAY = [sys.executable, "-c", "from unplay.cli import main; main()"]
LOOPS_S = (47, 31)


@dataclass(frozen=True)
class Target:
    """A file to clean, and what that may take: times real time (or seconds) and peak memory."""

    what: str
    duration_s: float
    sample_rate_hz: int
    n_channels: int = 1
    most_seconds: float = float("inf")
    most_bytes: float = float("inf")


@dataclass(frozen=True)
class Usage:
    """Wall clock, time of all cores added, peak of the resident set."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


QUICK = (
    Target("10 s at 16 kHz", 10, 16_000, most_seconds=6),
    Target("1 min at 16 kHz", 60, 16_000, most_seconds=60),
    Target("1 min at 48 kHz", 60, 48_000, most_seconds=150),
)
LONG = (
    Target("10 min at 16 kHz", 600, 16_000, most_seconds=600),
    Target("10 min at 48 kHz", 600, 48_000, most_seconds=1500),
    Target("1 h at 16 kHz", 3600, 16_000, most_bytes=1.5e9),
    Target("1 h at 48 kHz, stereo", 3600, 48_000, 2, most_bytes=2e9),
)
MOST_SECONDS_OF_HELP = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nothing longer than a minute")
    parser.add_argument("--method", default="auto", help="as of `unplay clean`; others show the files' share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compile_modules(folder)
        passed = [help_is_quick()]
        print("\nfrom start to finish        seconds of real time  CPU seconds  peak memory, MB")
        for target in QUICK if arguments.quick else QUICK + LONG:
            written_elsewhere(folder, target)
            passed.append(clean(folder, target, arguments.method))
        print("\nwhere the time goes, 1 min at 16 kHz: seconds in a function and what it calls, calls")
        written_elsewhere(folder, QUICK[1])
        for line in profile(folder, arguments.method):
            print(line)
    sys.exit(not all(passed))


def compile_modules(folder: Path) -> None:
    """Whoever installs a package has its modules compiled once; a checkout, or a machine that keeps no
    bytecode, would be timed compiling scipy."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    written_elsewhere(folder, QUICK[0])
    run([*UNPLAY, "clean", "reference.wav", "recording.wav", "-o", "near_end.wav", "--force"], folder)


def help_is_quick() -> bool:
    """The best of five, beside an interpreter that does nothing."""
    bare = min(run([sys.executable, "-c", "pass"]).seconds for _ in range(5))
    seconds = min(run([*UNPLAY, "--help"]).seconds for _ in range(5))
    passed = seconds <= MOST_SECONDS_OF_HELP
    print(
        f"--help: {seconds:.2f} s, {seconds / bare:.0f} times a bare interpreter "
        f"(at most {MOST_SECONDS_OF_HELP} s: {verdict(passed)})"
    )
    return passed


def clean(folder: Path, target: Target, method: str) -> bool:
    files = ["reference.wav", "recording.wav", "-o", "near_end.wav"]
    usage = run([*UNPLAY, "clean", *files, "--method", method, "--force"], folder)
    passed = usage.seconds <= target.most_seconds and usage.peak_bytes <= target.most_bytes
    limits = []
    if target.most_seconds < float("inf"):
        limits.append(f"{target.most_seconds:g} s")
    if target.most_bytes < float("inf"):
        limits.append(f"{target.most_bytes / 1e6:g} MB")
    print(
        f"{target.what:26} {usage.seconds:8.1f} {usage.seconds / target.duration_s:12.2f} "
        f"{usage.cpu_seconds:12.1f} {usage.peak_bytes / 1e6:16.0f}"
        f"   at most {' and '.join(limits)}: {verdict(passed)}",
        flush=True,
    )
    return passed


def verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"


def run(command: list[str], folder: Path | None = None) -> Usage:
    """Run to the end in a folder; wait4 tells the peak of this process alone."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}:\n{output.decode()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def written_elsewhere(folder: Path, target: Target) -> None:
    """In a process of its own: a program starts with the peak of the process that starts it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(write_scene, folder, target).result()


def write_scene(folder: Path, target: Target) -> None:
    """reference.wav (mono) and recording.wav, 16 bits."""
    rate_hz = target.sample_rate_hz
    n_samples = round(target.duration_s * rate_hz)
    loops = [
        make_scene(seed, sample_rate_hz=rate_hz, duration_s=length_s, reference_s=length_s, offset_s=0.0)
        for seed, length_s in enumerate(LOOPS_S)
    ]
    reference = np.mean([np.resize(loop.reference, n_samples) for loop in loops], axis=0)
    played = warp(reference, (np.arange(n_samples) - 1.3 * rate_hz) * (1 + 80e-6))
    recording = np.empty((n_samples, target.n_channels), np.float32)
    for channel, loop in enumerate(loops[: target.n_channels]):
        echo = scipy.signal.oaconvolve(played, loop.echo_path)[:n_samples]
        recording[:, channel] = 0.5 * (echo + np.resize(loop.true_near_end, n_samples))
    soundfile.write(folder / "reference.wav", reference, rate_hz)
    soundfile.write(folder / "recording.wav", recording, rate_hz)


def profile(folder: Path, method: str) -> Iterator[str]:
    """Functions of unplay that take more than 2 % of the time, the longest first."""
    profiler = cProfile.Profile()
    profiler.runcall(
        unplay.clean,
        folder / "reference.wav",
        folder / "recording.wav",
        folder / "near_end.wav",
        method=method,
        force=True,
    )
    home = Path(unplay.__file__).parent
    entries = sorted(profiler.getstats(), key=lambda entry: -entry.totaltime)
    for entry in entries:
        if isinstance(entry.code, str) or entry.totaltime < 0.02 * entries[0].totaltime:
            continue
        file = Path(entry.code.co_filename)
        if file.is_relative_to(home):
            place = f"{file.relative_to(home).with_suffix('')}: {entry.code.co_name}"
            yield f"{entry.totaltime:8.2f} {entry.callcount:8}  {place}"


if __name__ == "__main__":
    main()
