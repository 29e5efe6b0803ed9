"""How much the time of a step differs from the latency model's: noise alone or in bursts, and stalls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from niyama.jit import compiled
from niyama.latency.model import MOST_NOISE

BURST_STEPS = 50  # a second or two
STALL = 3.0  # a step that stalls takes so many times as long
_OF_BURSTS, _OF_STALLS = 500_009, 700_001  # streams of a seed beside that of single steps


@dataclass(frozen=True)
class Noise:
    """sigma: standard deviation of the log of step times, whose mean stays as it is.

    bursts: share of that variance that BURST_STEPS steps in a row have in common. stalls: share of steps that take
    STALL times as long. ValueError names a senseless one.
    """

    sigma: float = 0.0
    bursts: float = 0.0
    stalls: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= MOST_NOISE:
            raise ValueError(f"noise is {self.sigma}; it must be finite and not negative, at most {MOST_NOISE:g}")
        for name in ("bursts", "stalls"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"noise {name} is {getattr(self, name)}; it is a share, so make it 0 to 1")

    def numbers(self, seed: int) -> np.ndarray:
        """As `noise_factor` takes it, with one seed's stream of randomness."""
        return np.array([self.sigma, float(seed % 2**31), self.bursts, self.stalls])  # seeds have 31 bits

    def __bool__(self) -> bool:
        return self != Noise()


def as_noise(noise: float | Noise) -> Noise:
    """A number is the sigma alone."""
    return noise if isinstance(noise, Noise) else Noise(noise)


@compiled
def noise_factor(noise, iteration):
    """Factor on a step's time, drawn from the iteration's number and the seed alone: log-normal, and stalls."""
    sigma, seed, bursts, stalls = noise[0], noise[1], noise[2], noise[3]
    factor = 1.0
    if sigma != 0.0:
        normal = _normal(seed, iteration)
        if bursts > 0.0:
            shared = _normal(seed + _OF_BURSTS, iteration // BURST_STEPS)
            normal = math.sqrt(1.0 - bursts) * normal + math.sqrt(bursts) * shared
        factor = math.exp(sigma * normal - 0.5 * sigma * sigma)  # math, not numpy: the same digits compiled or not
    if stalls > 0.0 and _uniform(seed + _OF_STALLS, iteration) < stalls:
        factor *= STALL
    return factor


@compiled
def _normal(seed, number):
    a, b = _uniform(seed, 2 * number), _uniform(seed, 2 * number + 1)
    return math.sqrt(-2.0 * math.log(a)) * math.cos(2.0 * math.pi * b)


@compiled
def _uniform(seed, counter):
    """A number in (0, 1) from a seed and a counter, by a multiply-and-fold hash on 31-bit integers."""
    x = (int(seed) * 1000003 + counter * 69069 + 12345) & 0x7FFFFFFF
    for _ in range(4):
        x = ((x ^ (x >> 15)) * 48271 + 11) & 0x7FFFFFFF
    return (x + 0.5) / 2147483648.0
