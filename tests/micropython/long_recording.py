"""Hours of recording on a virtual device, faster than real time: does anything grow, come late, or slip?

    python tests/micropython/long_recording.py [HOURS]

Plays a reference as long as the recording; the canceller runs all the time. Ends with 1 where the free memory
falls by more than 2 kB after the first tenth, a block comes late, or files and time disagree.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from unplay.board.link import DeviceLink
from unplay.board.references import RATE_HZ
from unplay.virtual.device import VirtualDevice, fill, install
from unplay.virtual.scene import make_scene
from unplay.virtual.setup import CardSetup, Setup

MOST_LOSS_BYTES = 2048
LINES = 20


def make_card(storage: Path, setup: Setup, seconds: int) -> None:
    """A card with a reference of that length: half a minute of music again and again."""
    assert setup.card is not None
    music = make_scene(5, reference_s=30.0, duration_s=30.0).reference
    pcm = np.round(music * 30_000).astype("<i2")
    with tempfile.TemporaryDirectory(dir=storage) as folder:
        references = Path(folder) / "references"
        references.mkdir()
        with open(references / "long.pcm", "wb") as file:
            for _ in range(seconds // 30):
                pcm.tofile(file)
        facts = {"name": "long", "samples": seconds // 30 * len(pcm), "rate_hz": RATE_HZ, "sha256": ""}
        (references / "long.json").write_text(json.dumps(facts))
        fill("fat", storage / "card.img", setup.card.mb << 20, Path(folder))


def watch(link: DeviceLink, seconds: int) -> list[tuple[float, int, int]]:
    """(hours, bytes free, late blocks) as time goes by."""
    rows: list[tuple[float, int, int]] = []
    for status in link.status():
        if status["state"] == "idle":
            return rows
        hours = status["samples"] / RATE_HZ / 3600
        if hours * 3600 > len(rows) * seconds / LINES:
            rows.append((hours, link.info()["free_ram_bytes"], status["late"]))
            print(f"{hours:6.2f} h   {rows[-1][1]:7d} bytes free   {rows[-1][2]} late", flush=True)
    return rows


def main() -> int:
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    seconds = round(hours * 3600)
    setup = Setup(card=CardSetup(mb=64 + seconds * 100 // 1000))
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        install(storage, setup)
        make_card(storage, setup, seconds)
        begun_s = time.monotonic()
        with VirtualDevice(storage, setup, keep_truth=False) as device, DeviceLink(device.port) as link:
            name = link.record({"reference": "long"})["id"]
            rows = watch(link, seconds)
            size = link.ls()[f"sessions/{name}/mic.pcm"]
            link.get(f"sessions/{name}/session.json", storage / "session.json")
        facts = json.loads((storage / "session.json").read_text())
    took_s = time.monotonic() - begun_s
    print(f"{facts['frames'] / RATE_HZ / 3600:.3f} h in {took_s / 60:.1f} min")
    for name in ("late_blocks", "slips", "dropped_frames", "slip_samples", "clipped_samples"):
        print(f"{name} {facts[name]}")
    settled = [free for _, free, _ in rows[LINES // 10 :]]
    print(f"free memory after the first tenth: {min(settled)} to {max(settled)} bytes")
    bad = facts["late_blocks"] or facts["slips"] or facts["slip_samples"] != 0
    bad = bad or size != 2 * facts["frames"] or max(settled) - settled[-1] > MOST_LOSS_BYTES
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
