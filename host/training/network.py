"""The network in torch: what it is given, what it answers.

Per frame of 32 ms, every 16 ms, it is given the log powers (257 bins each) of the residual E, of what a
cautious and a quick frame filter leave of it (S and F, see `unplay.removal.frame_filters`), of the echo
estimate Ŷ and of the reference; two GRU layers later it answers for the frame LOOK_AHEAD frames before with

    M = E + s·(S − E),  then  M + q·(F − M),  times a gain  σ(a + b·log|E|² + c·log|F|² + d·log|Ŷ|²),

s, q (in [0, 1]), a, b, c and d (257 each) being its outputs. What differs from bin to bin, as between the
harmonics of a voice, need not pass through the recurrent layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unplay.removal.neural import HOP, INPUTS, LOOK_AHEAD, N_FFT, POWER_FLOOR

N_BINS = N_FFT // 2 + 1


def stft(x: Tensor) -> Tensor:
    """(n, n_samples) → (n, n_frames, 257), as `unplay.removal.stft.Stft` but for the first frame."""
    window = torch.sin(torch.pi * torch.arange(N_FFT) / N_FFT)
    return torch.fft.rfft(x.unfold(-1, N_FFT, HOP) * window)


def log_power(spectrum: Tensor) -> Tensor:
    """About −2.5 to 2 for a signal of level 1, whose mean power in a bin is N_FFT/2."""
    power = spectrum.real**2 + spectrum.imag**2
    return 0.5 * torch.log10(power * (2 / N_FFT) + POWER_FLOOR) + 1


class Suppressor(nn.Module):
    def __init__(self, n_hidden: int = 184) -> None:
        super().__init__()
        self.inward = nn.Linear(len(INPUTS) * N_BINS, n_hidden)
        self.first = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.second = nn.GRU(n_hidden, n_hidden, batch_first=True)
        self.head = nn.Linear(n_hidden, 6 * N_BINS)
        with torch.no_grad():
            self.head.bias[:N_BINS] += 2  # begin by keeping what is there

    def forward(self, powers: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Log powers (n, n_frames, 257), in the order of INPUTS → gain, cautious and quick share of frames 0
        to n_frames − LOOK_AHEAD − 1, all in [0, 1]."""
        h = torch.tanh(self.inward(torch.cat(powers, -1)))
        h, _ = self.first(h)
        h, _ = self.second(h)
        offset, *slopes, cautious, quick = self.head(h[:, LOOK_AHEAD:]).split(N_BINS, -1)
        residual, _, followed, echo, _ = (power[:, :-LOOK_AHEAD] for power in powers)
        for slope, power in zip(slopes, (residual, followed, echo), strict=True):
            offset = offset + slope * power
        return torch.sigmoid(offset), torch.sigmoid(cautious), torch.sigmoid(quick)

    def near_end(self, residual: Tensor, cautious: Tensor, quick: Tensor, others: list[Tensor]) -> Tensor:
        """Spectra (n, n_frames, 257) → that of the near end, for all but the last LOOK_AHEAD frames."""
        spectra = residual, cautious, quick
        gain, *shares = self([log_power(spectrum) for spectrum in (*spectra, *others)])
        kept, *followed = (spectrum[:, :-LOOK_AHEAD] for spectrum in spectra)
        for share, spectrum in zip(shares, followed, strict=True):
            kept = kept + share * (spectrum - kept)
        return gain * kept
