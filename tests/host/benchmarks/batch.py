"""Print what `unplay batch` makes of 200 recordings cut from the corpus, and how much a second worker helps.

    python tests/host/benchmarks/batch.py                  all of it, about half an hour on two cores
    python tests/host/benchmarks/batch.py --method fir     five minutes

200 recordings of some seconds, their truth known, of which five are broken; batch cleans them in two
processes, `unplay.clean` cleans each by itself. Right is: the same bytes, and nearer to the talker than the
recording was. Then recordings a second with one and two workers, processes of this machine and of a
dask cluster. Ends with 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import unplay
from unplay.batch.run import Batch, Settings, run
from unplay.errors import UnplayError
from unplay.metrics import si_sdr_db

sys.path.insert(0, str(Path(__file__).parent))
from cases import Case, case_folders, corpus_folder, load_case, read_signal

N_BROKEN = 5
LEAST_SPEEDUP = 1.8
N_ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--method", default="auto", help="as of `unplay clean`")
    parser.add_argument("-n", type=int, default=200, help="recordings")
    parser.add_argument("--length", type=float, default=8.0, help="of each recording, in seconds")
    parser.add_argument("--timed", type=int, default=60, help="recordings for the times; 0 for none")
    parser.add_argument("--only-times", action="store_true", help="not whether results are right")
    arguments = parser.parse_args()
    settings = Settings(arguments.method)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_recordings(folder, arguments.n, arguments.length)
        passed = [] if arguments.only_times else [batch_is_right(folder, rows, settings)]
        if arguments.timed:
            passed += throughput(folder, rows[: arguments.timed], settings)
    sys.exit(not all(passed))


def write_recordings(folder: Path, n: int, length_s: float) -> list[dict[str, str]]:
    """Rows of a manifest, and the files they name, N_BROKEN of which at the end cannot be read."""
    cases = [load_case(path) for path in case_folders(corpus_folder())]
    cases = [case for case in cases if has_both(case)]
    n_turns = -(-n // len(cases)) + 1
    cuts = [(case, turn, cut_of(case, turn / n_turns, length_s)) for turn in range(n_turns) for case in cases]
    cuts = [(case, turn, cut) for case, turn, cut in cuts if sounds(case, cut)]
    rows = [write_cut(folder, case, turn, cut) for case, turn, cut in cuts[: n - N_BROKEN]]
    whole = (folder / rows[0]["recording"]).read_bytes()
    broken = (b"", whole[:30], b"not sound" * 1000, whole[:44], None)
    for k, content in enumerate(broken):
        if content is not None:
            (folder / f"broken{k}.wav").write_bytes(content)
        rows.append(rows[0] | {"recording": f"broken{k}.wav", "id": f"broken{k}"})
    return rows


def has_both(case: Case) -> bool:
    """Whether there is an echo to take out and a talker to keep."""
    truths = (case.true_echo, case.true_near_end)
    return all(truth is not None and truth.any() for truth in truths)


def sounds(case: Case, cut: slice) -> bool:
    """Whether there is an echo, within 20 dB of its mean over the case, in at least half of a cut."""
    assert case.true_echo is not None
    window = round(0.1 * case.sample_rate_hz)
    echo = case.true_echo[cut]
    powers = np.mean(echo[: len(echo) // window * window].reshape(-1, window) ** 2, axis=1)
    return bool(np.mean(powers > 0.01 * np.mean(case.true_echo**2)) >= 0.5)


def cut_of(case: Case, share: float, length_s: float) -> slice:
    """length_s of a case; the share, 0 to 1, says where in it."""
    length = round(length_s * case.sample_rate_hz)
    start = round(share * max(0, len(case.recording) - length))
    return slice(start, start + length)


def write_cut(folder: Path, case: Case, turn: int, cut: slice) -> dict[str, str]:
    """The reference is that of the whole case."""
    name = f"{case.name}-{turn}"
    assert case.true_near_end is not None
    for kind, signal in (("", case.recording), ("-truth", case.true_near_end)):
        soundfile.write(folder / f"{name}{kind}.wav", signal[cut], case.sample_rate_hz)
    return {"reference": str(case.reference_path), "recording": f"{name}.wav", "id": name}


def batch_is_right(folder: Path, rows: list[dict[str, str]], settings: Settings) -> bool:
    done = cleaned(folder, rows, settings, jobs=2)
    results = [json.loads(line) for line in done.results.read_text("utf-8").splitlines()]
    named = [result for result in results if result["id"].startswith("broken")]
    right = [is_right(folder, result, settings) for result in results if result not in named]
    n_named = sum(result["exit_code"] == 2 and result["id"] in result["reason"] for result in named)
    passed = all(right) and n_named == N_BROKEN == len(named) and len(results) == len(rows)
    print(
        f"{sum(right)} of {len(right)} right, {n_named} of {len(named)} broken ones named: {verdict(passed)}"
    )
    return passed


def is_right(folder: Path, result: dict[str, Any], settings: Settings) -> bool:
    alone = folder / "alone.wav"
    try:
        unplay.clean(result["reference"], result["recording"], alone, method=settings.method, force=True)
    except UnplayError as error:
        print(f"{result['id']}: {result['reason']} alone: {error}")
        return False
    if result["exit_code"] != 0 or alone.read_bytes() != Path(result["near_end"]).read_bytes():
        print(f"{result['id']}: not the bytes of a single run: {result['reason']}")
        return False
    truth = read_signal(folder / f"{result['id']}-truth.wav")
    before_db, after_db = (
        si_sdr_db(truth, read_signal(Path(result[name]))) for name in ("recording", "near_end")
    )
    if after_db <= before_db:
        print(f"{result['id']}: {before_db:.1f} dB before, {after_db:.1f} dB after")
    return after_db > before_db


def throughput(folder: Path, rows: list[dict[str, str]], settings: Settings) -> list[bool]:
    """In turns, the best of N_ROUNDS, so that what else the machine does disturbs all alike."""
    ways: dict[str, Callable[[], float]] = {
        "1 process": lambda: seconds_of(folder, rows, settings, jobs=1),
        "2 processes": lambda: seconds_of(folder, rows, settings, jobs=2),
        "dask, 1 worker": lambda: seconds_on_cluster(folder, rows, settings, 1),
        "dask, 2 workers": lambda: seconds_on_cluster(folder, rows, settings, 2),
    }
    rounds = [{name: times_s(measure) for name, measure in ways.items()} for _ in range(N_ROUNDS)]
    best = {
        name: [min(times) for times in zip(*(done[name] for done in rounds), strict=True)] for name in ways
    }
    for name, (seconds, core_s) in best.items():
        print(
            f"{name:16} {len(rows) / seconds:6.2f} recordings a second, "
            f"{core_s / len(rows):.2f} s of a core each"
        )
    passed = []
    for one, two in (("1 process", "2 processes"), ("dask, 1 worker", "dask, 2 workers")):
        speedup = best[one][0] / best[two][0]
        passed.append(speedup >= LEAST_SPEEDUP)
        print(f"{two}: {speedup:.2f} times {one} (at least {LEAST_SPEEDUP}: {verdict(passed[-1])})")
    return passed


def times_s(measure: Callable[[], float]) -> tuple[float, float]:
    """What is measured, and what all cores together worked for it, the cluster's own processes included."""
    before = os.times()
    seconds = measure()
    return seconds, sum(os.times()[:4]) - sum(before[:4])


def seconds_on_cluster(folder: Path, rows: list[dict[str, str]], settings: Settings, n: int) -> float:
    from distributed import LocalCluster

    cluster: Any = LocalCluster(n_workers=n, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster:
        return seconds_of(folder, rows, settings, scheduler=cluster.scheduler_address)


def seconds_of(folder: Path, rows: list[dict[str, str]], settings: Settings, **where: Any) -> float:
    """From the start to the page, the start of the workers included."""
    began = time.perf_counter()
    cleaned(folder, rows, settings, **where)
    return time.perf_counter() - began


def cleaned(folder: Path, rows: list[dict[str, str]], settings: Settings, **where: Any) -> Batch:
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows(row.values() for row in rows)
    return run(manifest, settings=settings, again=True, **where)


def verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"


if __name__ == "__main__":
    main()
