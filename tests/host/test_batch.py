"""Many recordings: what is read from manifests and folders, and that nothing stops the rest."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from distributed import LocalCluster

import unplay
from unplay.batch import run as batch
from unplay.batch import workers
from unplay.batch.manifest import Row, check_rows, rows_of
from unplay.batch.workers import ATTEMPTS, Cluster, LocalWorkers, WorkerDiedError, outcomes
from unplay.errors import BadInputError
from unplay.virtual.scene import make_scene

FIR = batch.Settings(method="fir")
"""Quick; what is done with many recordings is the same for every method."""


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four songs and takes of them; another song in `other`, no sound in `broken`, no file `missing`."""
    folder = tmp_path_factory.mktemp("takes")
    for seed in range(4):
        scene = make_scene(seed, duration_s=3.0, reference_s=3.0, offset_s=0.2, sample_rate_hz=8000)
        soundfile.write(folder / f"song{seed}.wav", scene.reference, 8000)
        soundfile.write(folder / f"take{seed}.wav", scene.recording, 8000)
    shutil.copy(folder / "take3.wav", folder / "other.wav")
    (folder / "broken.wav").write_bytes(b"RIFF and no more")
    rows = [f"song{seed}.wav,take{seed}.wav,room {seed}" for seed in range(4)]
    bad = ["song0.wav,other.wav,", "song0.wav,broken.wav,", "song0.wav,missing.wav,"]
    (folder / "takes.csv").write_text("\n".join(["reference,recording,place", *rows, *bad, ""]))
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rows(source: Path) -> list[Row]:
    return list(check_rows(rows_of(source), source))


def test_a_batch_does_what_single_runs_do(takes: Path, tmp_path: Path, unplay_run: Callable) -> None:
    arguments = ("batch", takes / "takes.csv", "-o", tmp_path / "out", "--method", "fir", "--jobs", 2)
    run = unplay_run(*arguments, "--json")
    # the least of 2 (broken, missing) and 3 (other)
    assert run.code == 2
    summary = json.loads(run.out)
    assert summary["counts"] == {
        "cleaned": 4, "crashed": 0, "bad input": 2, "reference absent": 1, "not confident": 0
    }  # fmt: skip
    results = {result["id"]: result for result in lines(tmp_path / "out")}
    assert sorted(results) == ["broken", "missing", "other", *(f"take{seed}" for seed in range(4))]
    assert "broken.wav" in results["broken"]["reason"]
    assert "check the path" in results["missing"]["reason"]
    assert results["take2"]["columns"] == {"place": "room 2"}
    written = [f"take{seed}/{name}" for seed in range(4) for name in ("log.json", "near_end.wav")]
    assert files(tmp_path / "out") == ["index.html", "other/log.json", "results.jsonl", *written]
    for seed in range(4):
        single = tmp_path / "single.wav"
        unplay.clean(takes / f"song{seed}.wav", takes / f"take{seed}.wav", single, method="fir", force=True)
        assert single.read_bytes() == (tmp_path / "out" / f"take{seed}" / "near_end.wav").read_bytes()
    assert "other: " in run.err
    printed = unplay_run(*arguments)
    # what was cleaned or refused stands, what failed is tried again
    assert "7 recordings (5 of an earlier run): 4 cleaned, 2 bad input, 1 reference absent" in printed.out
    assert sorted(result["id"] for result in lines(tmp_path / "out")) == sorted(results)


def test_the_page_is_worst_first(takes: Path, tmp_path: Path) -> None:
    done = batch.run(takes / "takes.csv", tmp_path / "out", settings=batch.Settings("fir", report=True))
    text = done.page.read_text("utf-8")
    assert "4 of 7 recordings cleaned; 2 bad input; 1 reference absent." in text
    order = sorted(("broken", "missing", "other", "take0", "take1"), key=lambda id: text.index(f"{id}<"))
    assert set(order[:2]) == {"broken", "missing"}
    assert order[2] == "other"
    assert 'href="take0/report.html"' in text
    assert (tmp_path / "out" / "take0" / "report.html").exists()
    assert [result["id"] for result in done.worst[:3]] == order[:3]


@pytest.mark.parametrize(("ahead", "order"), [(1000, "dcba"), (2, "cdba")])
def test_the_longest_is_first(
    ahead: int, order: str, takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second case two wait at a time: b and c, of which a third one, a, is shorter; then comes d."""
    monkeypatch.setattr(batch, "LOOKED_AHEAD", ahead)
    for name, n_bytes in (("b", 20), ("c", 30), ("a", 10), ("d", 40)):
        (tmp_path / f"{name}.wav").write_bytes(bytes(n_bytes))
    manifest = tmp_path / "in.csv"
    manifest.write_text("reference,recording\n" + "".join(f"{takes}/song0.wav,{n}.wav\n" for n in "bcad"))
    done = batch.run(manifest, settings=FIR, jobs=1)
    assert "".join(result["id"] for result in lines(done.folder)) == order


@pytest.mark.parametrize("change", ["settings", "recording", "output", "cut short", "again"])
def test_what_has_changed_is_done_again(change: str, takes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("song0.wav", "take0.wav", "song1.wav", "take1.wav"):
        shutil.copy(takes / name, folder)
    (folder / "in.csv").write_text("reference,recording\nsong0.wav,take0.wav\nsong1.wav,take1.wav\n")
    out = folder / "in-cleaned"
    assert batch.run(folder / "in.csv", settings=FIR, jobs=1).folder == out
    before, settings = lines(out), FIR
    if change == "settings":
        settings = batch.Settings("fir", strength=0.5)
    elif change == "recording":
        os.utime(folder / "take0.wav")
    elif change == "output":
        (out / "take0" / "near_end.wav").unlink()
    elif change == "cut short":
        text = (out / "results.jsonl").read_text()
        (out / "results.jsonl").write_text(text[:-20])
    done = batch.run(folder / "in.csv", settings=settings, jobs=1, again=change == "again")
    assert done.n_kept == (0 if change in ("settings", "again") else 1)
    assert done.exit_code == 0
    assert sorted(result["id"] for result in lines(out)) == ["take0", "take1"]
    if change != "settings":
        assert {result["sha256"] for result in lines(out)} == {result["sha256"] for result in before}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_batch_goes_on(how: signal.Signals, takes: Path, tmp_path: Path) -> None:
    """Interrupted, all processes at once, as a terminal does it; or the first killed with nothing tidied."""
    command = [sys.executable, "-c", "from unplay.cli import main; main()", "batch", str(takes / "takes.csv")]
    command += ["-o", str(tmp_path / "out"), "--method", "fir", "--jobs", "1"]
    results = tmp_path / "out" / "results.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 2)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    # until the last one that could write there has ended
    _, told = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert told.endswith("unplay: interrupted; the same command goes on from here\n")
        assert "Traceback" not in told
    done = batch.run(takes / "takes.csv", tmp_path / "out", settings=FIR, jobs=1)
    assert done.n_kept >= 2
    assert done.counts == {0: 4, 2: 2, 3: 1}
    assert len(lines(tmp_path / "out")) == 7
    assert not [name for name in files(tmp_path / "out") if "partial" in name]


def kill_once(task: Path) -> str:
    """Dies at the first attempt, in the middle of its work."""
    if not task.exists():
        task.write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


def kill_always(task: Path) -> str:
    if task.name == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


@pytest.fixture
def two_processes() -> Iterator[LocalWorkers]:
    made = LocalWorkers(2)
    yield made
    made.close()


def test_a_killed_worker_costs_nothing(tmp_path: Path, two_processes: LocalWorkers) -> None:
    tasks = [tmp_path / name for name in ("a", "b", "c")]
    for name in ("a", "c"):
        (tmp_path / name).write_text("done before")
    ended = [str(outcome) for _, outcome in outcomes(kill_once, tasks, two_processes)]
    assert sorted(ended) == ["a", "b", "c"]


def test_what_kills_workers_is_given_up_and_harms_nobody_else(two_processes: LocalWorkers) -> None:
    tasks = [Path(name) for name in ("a", "poison", "b", "c", "d")]
    ended = {task.name: outcome for task, outcome in outcomes(kill_always, tasks, two_processes)}
    died = ended.pop("poison")
    assert isinstance(died, WorkerDiedError)
    assert ended == {name: name for name in ("a", "b", "c", "d")}
    assert ATTEMPTS > 1


def test_a_worker_killed_while_it_cleans(takes: Path, tmp_path: Path) -> None:
    """Nothing is lost and nothing done twice in the output."""
    killed: list[int] = []
    threading.Thread(target=kill_one_child_at, args=(tmp_path / "out", killed), daemon=True).start()
    done = batch.run(takes / "takes.csv", tmp_path / "out", settings=FIR, jobs=2)
    assert killed
    assert done.counts == {0: 4, 2: 2, 3: 1}
    assert len(lines(tmp_path / "out")) == 7
    assert not [name for name in files(tmp_path / "out") if "partial" in name]


def kill_one_child_at(folder: Path, killed: list[int]) -> None:
    """The process whose number stands in the name of an output that is being written."""
    while not killed:
        for path in folder.rglob(".near_end.wav.*.partial"):
            number = int(path.name.split(".")[-2])
            os.kill(number, signal.SIGKILL)
            killed.append(number)
            return
        time.sleep(0.002)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a dask scheduler with two workers, processes of this machine."""
    cluster: Any = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster:
        yield cluster.scheduler_address


def test_a_dask_cluster_survives_a_killed_worker(takes: Path, tmp_path: Path, scheduler: str) -> None:
    killed: list[int] = []
    threading.Thread(target=kill_one_child_at, args=(tmp_path / "out", killed), daemon=True).start()
    done = batch.run(takes / "takes.csv", tmp_path / "out", settings=FIR, scheduler=scheduler)
    assert killed
    assert done.counts == {0: 4, 2: 2, 3: 1}
    assert len(lines(tmp_path / "out")) == 7
    local = batch.run(takes / "takes.csv", tmp_path / "local", settings=FIR, jobs=1)
    there, here = ({r["id"]: r["sha256"] for r in lines(folder)} for folder in (done.folder, local.folder))
    assert there == here


def faults_of_arrays(n: int) -> int:
    """Pages that the system had to supply for n arrays of 2 MiB, one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        np.ones(1 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="how glibc's malloc is set")
def test_workers_of_dask_use_freed_memory_again(scheduler: str) -> None:
    """As dask starts them they would take all 100 arrays anew; three leave room for their own doings."""
    cluster = Cluster(scheduler)
    assert cluster.submit(faults_of_arrays, 100).result() < 3 * (1 << 21) // resource.getpagesize()
    cluster.close()


@pytest.mark.parametrize("address", ["somewhere", "http://127.0.0.1:9", "tcp://127.0.0.1"])
def test_no_address(address: str) -> None:
    with pytest.raises(BadInputError, match=f"no dask scheduler at {address} "):
        Cluster(address)


def test_another_version_there(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and there are processes of this machine, so each pretends to have a version of its own."""
    monkeypatch.setattr(workers, "version", lambda name: f"{name}-{os.getpid()}")
    with pytest.raises(BadInputError, match=f"has unplay unplay-.* and here is unplay-{os.getpid()}"):
        Cluster(scheduler)


def test_no_worker_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CONNECT_S", 0.5)
    cluster: Any = LocalCluster(n_workers=0, dashboard_address=":0")
    with cluster, pytest.raises(BadInputError, match="has no workers: start some"):
        Cluster(cluster.scheduler_address)


def test_no_scheduler_there(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CONNECT_S", 0.2)
    with pytest.raises(BadInputError, match=r"no dask scheduler at tcp://127\.0\.0\.1:9"):
        batch.run(takes / "takes.csv", tmp_path / "out", scheduler="tcp://127.0.0.1:9")


PEAK_OF_PARENT = """
import resource, sys
from pathlib import Path
from unplay.batch.run import run

if __name__ == "__main__":
    done = run(sys.argv[1], jobs=4)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, done.counts[2])
"""


def test_memory_does_not_grow_with_the_manifest(tmp_path: Path) -> None:
    """At most 1 kB for each recording: its id and where its line is. A result alone is as large."""
    (tmp_path / "peak.py").write_text(PEAK_OF_PARENT)
    peaks_kib = []
    for n in (10, 10_000):
        manifest = tmp_path / f"{n}.csv"
        manifest.write_text("reference,recording\n" + "".join(f"song.wav,take{k}.wav\n" for k in range(n)))
        command = [sys.executable, str(tmp_path / "peak.py"), str(manifest)]
        peak, n_bad = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks_kib.append(int(peak))
        assert int(n_bad) == n == len(lines(tmp_path / f"{n}-cleaned"))
    assert peaks_kib[1] - peaks_kib[0] < 10_000


def test_manifests_of_every_kind_say_the_same(tmp_path: Path) -> None:
    table = [
        ("reference", "recording", "id", "room"),
        ("a.wav", "x/b.wav", "first", "hall"),
        ("a.wav", "c.flac", "", ""),
    ]
    for delimiter, suffix in ((",", "csv"), (";", "csv"), ("\t", "tsv")):
        path = tmp_path / f"m.{suffix}"
        # as spreadsheets write it: a mark at the beginning, carriage returns
        path.write_text("\r\n".join(delimiter.join(row) for row in table) + "\r\n", "utf-8-sig", newline="")
        assert rows(path) == [
            Row("first", tmp_path / "a.wav", tmp_path / "x/b.wav", {"room": "hall"}),
            Row("c", tmp_path / "a.wav", tmp_path / "c.flac", {"room": ""}),
        ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(dict(zip(table[0], row, strict=True))) for row in table[1:]))
    assert [row.id for row in rows(path)] == ["first", "c"]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("m.csv", "reference;take\na;b\n", "no column 'recording' but 'reference', 'take'"),
        ("m.csv", "", "begins with an empty line"),
        ("m.csv", "reference,recording\n", "names no recordings"),
        ("m.csv", "reference,recording\na.wav,\n", "line 2 names no recording"),
        ("m.csv", "reference,recording\na.wav,b.wav,c\n", "line 2 has more entries"),
        ("m.csv", "reference,recording\na.wav,b.wav\na.wav,B.flac\n", "two recordings with the id 'B'"),
        ("m.csv", "reference,recording,id\na.wav,b.wav,../b\n", "the id '../b'"),
        ("m.csv", "reference,recording,id\na.wav,b.wav,a/log.json\n", "id 'a/log.json', and a file"),
        ("m.csv", "reference,recording,id\na.wav,b.wav,Index.html\n", "id 'Index.html', and a file"),
        ("m.csv", "reference,recording,id\na.wav,b.wav,/etc\n", "the id '/etc'"),
        ("m.jsonl", '{"reference": "a.wav"}\n', "line 1 names no recording"),
        ("m.jsonl", '{"reference": "a.wav"\n', "line 1 is not JSON"),
        ("m.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("m.wav", "x", "neither a folder nor a manifest"),
        ("m.csv", None, "cannot be opened"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_named(name: str, text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInputError, match=sentence):
        batch.run(tmp_path / name)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_names_in_a_folder_say_what_belongs_together(tmp_path: Path) -> None:
    for name in (
        "alone.wav", "songs/reference.flac", "songs/a.wav", "songs/deep/b.wav", "songs/deep/b_near_end.wav",
        "songs/deep/c_recording.wav", "songs/deep/c_reference.mp3", "songs/own/reference.wav",
        "songs/own/d.ogg", "songs/note.txt", ".hidden/e.wav", "out/f.wav",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {row.id: row.reference and row.reference.relative_to(tmp_path).as_posix() for row in
             rows_of(tmp_path, tmp_path / "out")}  # fmt: skip
    assert found == {
        "alone": None,
        "songs/a": "songs/reference.flac",
        "songs/deep/b": "songs/reference.flac",
        "songs/deep/c_recording": "songs/deep/c_reference.mp3",
        "songs/own/d": "songs/own/reference.wav",
    }


def test_a_folder_is_cleaned_beside_itself(takes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "day one"
    folder.mkdir()
    shutil.copy(takes / "song0.wav", folder / "reference.wav")
    shutil.copy(takes / "take0.wav", folder / "take0.wav")
    done = batch.run(folder, settings=FIR, jobs=1)
    assert done.folder == tmp_path / "day one-cleaned"
    assert done.exit_code == 0
    assert 'href="take0/near_end.wav"' in done.page.read_text("utf-8")
    (folder / "take1.wav").touch()
    assert batch.run(folder, settings=FIR, jobs=1).counts == {0: 1, 2: 1}


def test_a_folder_is_named_in_any_way(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "2026.11.27"
    folder.mkdir()
    (folder / "take.wav").touch()
    monkeypatch.chdir(folder)
    assert batch.run(".", jobs=1).folder == tmp_path.resolve() / "2026.11.27-cleaned"


def test_nothing_of_a_user_is_written_over(takes: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds files that are not those of an earlier"):
        batch.run(takes / "takes.csv", takes)
    with pytest.raises(BadInputError, match="holds the recordings"):
        batch.run(takes, takes)
    with pytest.raises(BadInputError, match=r"broken\.wav is a file"):
        batch.run(takes / "takes.csv", takes / "broken.wav")
    assert not (takes / "results.jsonl").exists()


def test_a_folder_that_cannot_be_made_is_a_result(takes: Path, tmp_path: Path) -> None:
    (tmp_path / "in the way").touch()
    row = Row("a", takes / "song0.wav", takes / "take0.wav")
    result = batch.clean_row(batch.Task(row, tmp_path / "in the way" / "a", FIR))
    assert result["exit_code"] == 2
    assert "in the way" in result["reason"]
    assert "cannot be used (Not a directory): name a place" in result["reason"]


def test_a_bug_is_a_result(takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise IndexError("one too many")

    monkeypatch.setattr(unplay, "clean", fails, raising=False)
    row = Row("a", takes / "song0.wav", takes / "take0.wav")
    result = batch.clean_row(batch.Task(row, tmp_path / "a", FIR))
    assert result["exit_code"] == 1
    assert "IndexError: one too many" in result["reason"]
    assert "in fails" in result["traceback"]
    assert not (tmp_path / "a").exists()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within 60 s"
        time.sleep(0.02)
