"""Train the network, and go on from where an earlier run stopped.

    python host/training/train.py MIXED RUN --minutes 90

MIXED is what mix.py made; shards that appear later are taken in. RUN gets `checkpoint.pt` every
CHECKPOINT_S (all that is needed to go on) and `log.txt`. A run that was stopped, or whose `--minutes` were
raised, goes on when it is started again: the minutes count training only, over all runs, and the learning
rate falls to nothing at their end. Needs torch (`pip install torch==2.13.0`).
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from export import take_weights
from mix import SIGNALS
from network import Suppressor, stft
from torch import Tensor

from unplay.removal.neural import HOP, LOOK_AHEAD, N_FFT

RATE_HZ = 16000
N_BATCH = 16
CROP_S = 4.0
START_SHARE = 0.35
"""Of the parts: they begin with their scene, when the filters know nothing yet."""
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 100
AVERAGE = 0.998
"""What the averaged weights, which are the ones exported, keep at each step."""
SHARDS_HELD = 20
CHECKPOINT_S = 180.0
LOG_STEPS = 50

COMPRESSION = 0.3
"""Exponent under which magnitudes are compared: quiet echo is heard, too."""
LOST_WEIGHT = 2.0
"""Of magnitude lost, beside that of magnitude left over."""
COMPLEX_WEIGHT, RATIO_WEIGHT, WORSE_WEIGHT = 0.3, 1.0, 0.6
"""Of the compressed spectra, of the error's decades beside the near end, of decades by which it grows."""
LEAST_LEFT = 1e-4
"""Of the residual's energy: the loss stops counting there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("mixed", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--hidden", type=int, default=184)
    parser.add_argument("--begin", type=Path, help="a file of export.py, whose weights a new run begins with")
    parser.add_argument("--only-bins", action="store_true", help="leave all but the last stage as it is")
    parser.add_argument("--batch", type=int, default=N_BATCH, help="parts of examples a step")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="learning rate at the beginning")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    arguments.run.mkdir(parents=True, exist_ok=True)
    network = Suppressor(arguments.hidden)
    if arguments.begin:
        take_weights(network, arguments.begin.read_bytes())
    if arguments.only_bins:
        network.requires_grad_(False)
        network.bins.requires_grad_(True)
    training = Training(network, arguments.run, arguments.rate)
    training.resume()
    rng = np.random.default_rng([arguments.seed, training.step])
    scenes = Scenes(arguments.mixed / "train", rng, arguments.batch)
    training.go_on(scenes, 60 * arguments.minutes)
    print(validated(training.averaged(), arguments.mixed / "validation"))


@dataclass
class Scenes:
    """Parts of examples drawn from a folder of shards."""

    folder: Path
    rng: np.random.Generator
    n_batch: int = N_BATCH
    held: list[dict[str, np.ndarray]] = field(default_factory=list)

    def batch(self) -> list[Tensor]:
        """Spectra (n_batch, n_frames, 257) in the order of INPUTS, then the near end's."""
        parts = [self.part() for _ in range(self.n_batch)]
        signals = {
            name: torch.from_numpy(np.stack([part[name] for part in parts]).astype(np.float32))
            for name in parts[0]
        }
        cautious, quick = torch.view_as_complex(signals["followed"]).unbind(1)
        residual, *others = (stft(signals[name]) for name in (*SIGNALS, "near_end"))
        return [residual, cautious, quick, *others]

    def refresh(self) -> None:
        """Hold another shard; let the oldest go."""
        paths = [path for path in sorted(self.folder.glob("*.npz")) if ".part" not in path.name]
        with np.load(paths[self.rng.integers(len(paths))]) as stored:
            self.held.append({name: stored[name] for name in stored.files})
        del self.held[:-SHARDS_HELD]

    def part(self) -> dict[str, np.ndarray]:
        """(n_samples,) each, and followed (2, n_frames, 257, 2): a few seconds, often the first ones, at
        about the levels that the removal gives recording and reference."""
        rng = self.rng
        shard = self.held[rng.integers(len(self.held))]
        number, n_frames = rng.integers(len(shard["echo"])), shard["followed"].shape[2]
        n = int(CROP_S * RATE_HZ) // HOP
        first = rng.integers(n_frames - n) if rng.random() > START_SHARE else 0
        samples = slice(first * HOP, (first + n - 1) * HOP + N_FFT)
        gains = 10 ** (rng.uniform(-6, 6, 2) / 20)
        part = {
            name: gains[int(name == "reference")] * shard[name][number, samples].astype(np.float32)
            for name in (*SIGNALS, "near_end")
        }
        followed = shard["followed"][number, :, first : first + n].astype(np.float32)
        return part | {"followed": gains[0] * followed}


def loss_of(network: Suppressor, batch: list[Tensor]) -> Tensor:
    *spectra, near_end = batch
    kept = network.near_end(*spectra[:3], spectra[3:])
    residual, near_end = spectra[0][:, :-LOOK_AHEAD], near_end[:, :-LOOK_AHEAD]
    magnitude, true_magnitude = compressed(kept), compressed(near_end)
    short = torch.relu(true_magnitude - magnitude)
    magnitudes = (magnitude - true_magnitude) ** 2 + (LOST_WEIGHT - 1) * short**2
    turned = kept / (kept.abs() + 1e-4) * magnitude
    true_turned = near_end / (near_end.abs() + 1e-4) * true_magnitude
    spectra_left = (turned - true_turned).abs() ** 2
    floor = LEAST_LEFT * energy(residual) + 1e-6
    before, after = ((energy(x - near_end) + floor).log10() for x in (residual, kept))
    ratio = after - (energy(near_end) + floor).log10()
    return (
        magnitudes.mean()
        + COMPLEX_WEIGHT * spectra_left.mean()
        + RATIO_WEIGHT * ratio.mean()
        + WORSE_WEIGHT * torch.relu(after - before).mean()
    )


def compressed(spectrum: Tensor) -> Tensor:
    return (spectrum.real**2 + spectrum.imag**2 + 1e-6) ** (COMPRESSION / 2)


def energy(spectrum: Tensor) -> Tensor:
    return (spectrum.real**2 + spectrum.imag**2).mean((1, 2))


class Training:
    """A network on its way; `seconds` of training lie behind it."""

    def __init__(self, network: Suppressor, folder: Path, rate: float) -> None:
        self.network, self.folder, self.rate = network, folder, rate
        learning = [value for value in network.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, rate, weight_decay=1e-3)
        self.average = {name: value.clone() for name, value in network.state_dict().items()}
        self.step, self.seconds = 0, 0.0

    def resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if path.exists():
            state = torch.load(path)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.folder / "checkpoint.part")
        (self.folder / "checkpoint.part").replace(self.folder / "checkpoint.pt")

    def averaged(self) -> Suppressor:
        network = Suppressor(self.network.inward.out_features)
        network.load_state_dict(self.average)
        return network.eval()

    def go_on(self, scenes: Scenes, until_s: float) -> None:
        for _ in range(SHARDS_HELD // 2):
            scenes.refresh()
        saved_s, losses = self.seconds, []
        while self.seconds < until_s:
            began = time.monotonic()
            losses.append(self.one_step(scenes, self.seconds / until_s))
            if self.step % 20 == 0:
                scenes.refresh()
            self.seconds += time.monotonic() - began
            if self.step % LOG_STEPS == 0:
                self.log(f"step {self.step} {self.seconds:.0f} s loss {np.mean(losses):.5f}")
                losses.clear()
            if self.seconds > saved_s + CHECKPOINT_S:
                self.save()
                saved_s = self.seconds
        self.save()

    def one_step(self, scenes: Scenes, share_done: float) -> float:
        rate = self.rate * min(1, (self.step + 1) / WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, share_done))))
        loss = loss_of(self.network, scenes.batch())
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        keep = min(AVERAGE, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
        self.step += 1
        return loss.item()

    def log(self, line: str) -> None:
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")


@torch.no_grad()
def validated(network: Suppressor, folder: Path) -> str:
    """Loss on scenes of other talkers and music, and energies of what is wrong before and after, in dB."""
    scenes = Scenes(folder, np.random.default_rng(0))
    for _ in range(4):
        scenes.refresh()
    losses, before_db, after_db = [], [], []
    for _ in range(16):
        batch = scenes.batch()
        losses.append(float(loss_of(network, batch)))
        *spectra, near_end = batch
        kept = network.near_end(*spectra[:3], spectra[3:])
        residual, near_end = spectra[0][:, :-LOOK_AHEAD], near_end[:, :-LOOK_AHEAD]
        whole, talks = energy(near_end), energy(near_end) > 1e-3 * energy(residual)
        before_db.append(10 * torch.log10(energy(residual - near_end) / whole)[talks])
        after_db.append(10 * torch.log10(energy(kept - near_end) / whole)[talks])
    before, after = torch.cat(before_db), torch.cat(after_db)
    worse = (after > before + 0.1).float().mean()
    return (
        f"validation loss {np.mean(losses):.5f}, SDR {-before.mean():.2f} → {-after.mean():.2f} dB, "
        f"worse {worse:.1%}"
    )


if __name__ == "__main__":
    main()
