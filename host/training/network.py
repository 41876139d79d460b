"""The network in torch: what it is given, what it answers.

Per frame of 32 ms, every 16 ms, it is given the log powers (257 bins each) of the residual E, of what a
cautious and a quick frame filter leave of it (S and F, see `unplay.removal.frame_filters`), of the echo
estimate Ŷ and of the reference, and of what a loudspeaker's curve may have added (an odd and an even part,
for the last stage only); two GRU layers and a stage that is the same for every bin later it answers for the
frame LOOK_AHEAD frames before with

    M = E + σ(s)·(S − E),  then  M + σ(q)·(F − M),  times a gain  σ(a + b·log|E|² + c·log|F|² + d·log|Ŷ|²),

a, b, c, d, s and q (257 each) being its outputs. What differs from bin to bin, as between the harmonics of a
voice, need not pass through the recurrent layers. To what is under the three sigmoids the last stage
(`Bins`) adds what it makes of the bin, its neighbours and their past: whatever holds for one bin holds for
all, so that it learns from 257 times as many examples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unplay.removal.neural import EARLIER, HOP, INPUTS, LOOK_AHEAD, N_FFT, N_RECURRENT, OUTPUTS, POWER_FLOOR

N_BINS = N_FFT // 2 + 1
NEIGHBOURS = 1
"""On either side of a bin, which the last stage sees as well."""
LONGEST_FRAMES = 60
"""About as far as the last stage looks back before it has learnt how far it should."""


def stft(x: Tensor) -> Tensor:
    """(n, n_samples) → (n, n_frames, 257), as `unplay.removal.stft.Stft` but for the first frame."""
    window = torch.sin(torch.pi * torch.arange(N_FFT) / N_FFT)
    return torch.fft.rfft(x.unfold(-1, N_FFT, HOP) * window)


def log_power(spectrum: Tensor) -> Tensor:
    """About −2.5 to 2 for a signal of level 1, whose mean power in a bin is N_FFT/2."""
    power = spectrum.real**2 + spectrum.imag**2
    return 0.5 * torch.log10(power * (2 / N_FFT) + POWER_FLOOR) + 1


class Follow(torch.autograd.Function):
    """h_t = h_{t−1} + z_t·(c_t − h_{t−1}) along axis 2, h_{−1} = 0. Autograd would keep every step."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, fresh: Tensor) -> Tensor:
        followed = torch.empty_like(fresh)
        h = torch.zeros_like(fresh[:, :, 0])
        for t in range(fresh.shape[2]):
            h = torch.lerp(h, fresh[:, :, t], gate[:, :, t])
            followed[:, :, t] = h
        ctx.save_for_backward(gate, fresh, followed)
        return followed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        gate, fresh, followed = ctx.saved_tensors
        to_gate, to_fresh = torch.empty_like(gate), torch.empty_like(fresh)
        g = torch.zeros_like(gradient[:, :, 0])
        for t in reversed(range(gate.shape[2])):
            g = g + gradient[:, :, t]
            before = followed[:, :, t - 1] if t else torch.zeros_like(g)
            torch.mul(g, fresh[:, :, t] - before, out=to_gate[:, :, t])
            torch.mul(g, gate[:, :, t], out=to_fresh[:, :, t])
            g = g - to_fresh[:, :, t]
        return to_gate, to_fresh


class Bins(nn.Module):
    """The stage that is the same for every bin. Its memory is a mean over the past, as long as the bin's
    present says."""

    def __init__(self, n_units: int) -> None:
        super().__init__()
        n_seen = (2 * NEIGHBOURS + 1) * len(INPUTS) + len(EARLIER) + len(OUTPUTS)
        self.inward = nn.Linear(n_seen, n_units)
        self.gate = nn.Linear(n_units, n_units)
        self.fresh = nn.Linear(n_units, n_units)
        self.outward = nn.Linear(2 * n_units, n_units)
        self.answer = nn.Linear(n_units, len(OUTPUTS))
        with torch.no_grad():
            frames = torch.logspace(0.2, torch.log10(torch.tensor(LONGEST_FRAMES)).item(), n_units)
            self.gate.bias.copy_(-torch.log(frames))
            self.answer.weight.zero_()  # begin by adding nothing
            self.answer.bias.zero_()

    def forward(self, powers: list[Tensor], earlier: list[Tensor], answers: list[Tensor]) -> Tensor:
        """(n, n_frames, 257) each → what is added to the answers (n, 3, n_frames, 257)."""
        padded = [pad(power, (NEIGHBOURS, NEIGHBOURS)) for power in powers]
        beside = [p[..., k : k + N_BINS] for k in range(2 * NEIGHBOURS + 1) for p in padded]
        given = torch.stack([*beside, *earlier], 1)
        # apart: of what is given, no gradient is needed
        to_given, to_answers = self.inward.weight.split([given.shape[1], len(answers)], 1)
        seen = mapped(given, to_given, self.inward.bias)
        seen = torch.tanh(seen + mapped(torch.stack(answers, 1), to_answers, None))
        gate, fresh = (mapped(seen, layer.weight, layer.bias) for layer in (self.gate, self.fresh))
        followed = Follow.apply(torch.sigmoid(gate), torch.tanh(fresh))
        both = torch.cat([seen, followed], 1)
        drawn = torch.tanh(mapped(both, self.outward.weight, self.outward.bias))
        return mapped(drawn, self.answer.weight, self.answer.bias)


def mapped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer along axis 1 of (n, n_in, n_frames, 257): in this order nothing need be copied."""
    product = torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2))
    return (product if bias is None else product + bias[:, None]).unflatten(2, x.shape[2:])


class Suppressor(nn.Module):
    def __init__(self, n_hidden: int = 184, n_units: int = 16) -> None:
        super().__init__()
        self.inward = nn.Linear(N_RECURRENT * N_BINS, n_hidden)
        self.first = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.second = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.head = nn.Linear(n_hidden, (3 + len(EARLIER)) * N_BINS)
        self.bins = Bins(n_units)
        with torch.no_grad():
            self.head.bias[:N_BINS] += 2  # begin by keeping what is there

    def forward(self, powers: list[Tensor]) -> list[Tensor]:
        """Log powers (n, n_frames, 257), in the order of INPUTS → gain, cautious and quick share of frames 0
        to n_frames − LOOK_AHEAD − 1, all in [0, 1]."""
        h = torch.tanh(self.inward(torch.cat(powers[:N_RECURRENT], -1)))
        h, _ = self.first(h)
        h, _ = self.second(h)
        offset, *slopes, cautious, quick = self.head(h).split(N_BINS, -1)
        earlier = [delayed(powers[INPUTS.index(name)]) for name in EARLIER]
        for slope, power in zip(slopes, earlier, strict=True):
            offset = offset + slope * power
        answers = [offset, cautious, quick]
        added = self.bins(powers, earlier, answers).unbind(1)
        return [torch.sigmoid((x + y)[:, LOOK_AHEAD:]) for x, y in zip(answers, added, strict=True)]

    def near_end(self, residual: Tensor, cautious: Tensor, quick: Tensor, others: list[Tensor]) -> Tensor:
        """Spectra (n, n_frames, 257) → that of the near end, for all but the last LOOK_AHEAD frames."""
        spectra = residual, cautious, quick
        gain, *shares = self([log_power(spectrum) for spectrum in (*spectra, *others)])
        kept, *followed = (spectrum[:, :-LOOK_AHEAD] for spectrum in spectra)
        for share, spectrum in zip(shares, followed, strict=True):
            kept = kept + share * (spectrum - kept)
        return gain * kept


def delayed(power: Tensor) -> Tensor:
    """(n, n_frames, 257), LOOK_AHEAD frames later; the first is there from the beginning."""
    return torch.cat([power[:, :1].expand(-1, LOOK_AHEAD, -1), power[:, :-LOOK_AHEAD]], 1)
