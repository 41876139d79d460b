"""The network in torch: what it is given, what it answers.

Per frame of 32 ms, every 16 ms, it is given the log powers of residual, echo estimate and reference (257
bins each); two GRU layers later it answers with the gains of the frame LOOK_AHEAD frames before. A gain is

    σ(a + b·log|E|² + c·log|Ŷ|²),

a, b and c (257 each) the network's outputs and E, Ŷ the bin's own residual and echo estimate: what differs
from bin to bin, as between the harmonics of a voice, need not pass through the recurrent layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_FFT, HOP, N_BINS = 512, 256, 257
LOOK_AHEAD = 2
POWER_FLOOR = 1e-7


def stft(x: Tensor) -> Tensor:
    """(n, n_samples) → (n, n_frames, 257), as `unplay.removal.stft.Stft` but for the first frame."""
    window = torch.sin(torch.pi * torch.arange(N_FFT) / N_FFT)
    return torch.fft.rfft(x.unfold(-1, N_FFT, HOP) * window)


def log_power(spectrum: Tensor) -> Tensor:
    """About −2.5 to 2 for a signal of level 1, whose mean power in a bin is N_FFT/2."""
    power = spectrum.real**2 + spectrum.imag**2
    return 0.5 * torch.log10(power * (2 / N_FFT) + POWER_FLOOR) + 1


class Suppressor(nn.Module):
    def __init__(self, n_hidden: int = 208) -> None:
        super().__init__()
        self.inward = nn.Linear(3 * N_BINS, n_hidden)
        self.first = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.second = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.head = nn.Linear(n_hidden, 3 * N_BINS)

    def forward(self, residual: Tensor, echo: Tensor, reference: Tensor) -> Tensor:
        """Log powers (n, n_frames, 257) each → gains of frames 0 to n_frames − LOOK_AHEAD − 1, in [0, 1]."""
        h = torch.tanh(self.inward(torch.cat([residual, echo, reference], -1)))
        h, _ = self.first(h)
        h, _ = self.second(h)
        offset, slope, echo_slope = self.head(h[:, LOOK_AHEAD:]).split(N_BINS, -1)
        return torch.sigmoid(offset + slope * residual[:, :-LOOK_AHEAD] + echo_slope * echo[:, :-LOOK_AHEAD])
