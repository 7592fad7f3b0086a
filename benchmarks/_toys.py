"""Toy distributions in the plane as FFJORD's code defines them (Grathwohl et al. 2019), with their true densities."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

# 8 centres on a circle, and the standard deviation around each.
_RADIUS, _SPREAD = 4 / 1.414, 0.5 / 1.414
_ANGLES = np.arange(8) * math.pi / 4
_CENTRES = _RADIUS * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
# Of the moons: the noise, and the points of the quadrature on each half circle.
_MOON_NOISE, _MOON_POINTS = 0.2, 2000
# Of the roll: its noise, likewise.
_ROLL_NOISE, _ROLL_POINTS = 0.2, 4000


class Toy(NamedTuple):
    """Draws, the log density of rows, and the entropy in nats where one is published."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]
    entropy: float | None = None


def _around(curve: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    return curve + spread * rng.standard_normal(curve.shape)


def _log_density_around(points: np.ndarray, spread: float, x: np.ndarray) -> np.ndarray:
    """Of a normal distribution around each of equally probable points."""
    found = []
    for rows in np.array_split(x, -(-len(x) // 500)):
        square = ((rows[:, None] - points) ** 2).sum(-1) / (2 * spread**2)
        found.append(logsumexp(-square, axis=1) - math.log(len(points) * 2 * math.pi * spread**2))
    return np.concatenate(found)


def _moon(angle: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two half circles of radius 2, shifted."""
    across = np.where(second, 1 - np.cos(angle), np.cos(angle))
    up = np.where(second, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([2 * across - 1, 2 * up - 0.2], -1)


def _roll(unit: np.ndarray) -> np.ndarray:
    t = 1.5 * math.pi * (1 + 2 * unit)
    return np.stack([t * np.cos(t), t * np.sin(t)], -1) / 5


def _middles(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) / n


_MOON_CURVE = np.concatenate([_moon(math.pi * _middles(_MOON_POINTS), np.full(_MOON_POINTS, i)) for i in (False, True)])
_ROLL_CURVE = _roll(_middles(_ROLL_POINTS))


def _draw_checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    across = rng.uniform(-2, 2, n)
    up = rng.uniform(0, 1, n) - 2 * rng.integers(0, 2, n) + np.floor(across) % 2
    return 2 * np.stack([across, up], 1)


def _log_density_of_checkerboard(x: np.ndarray) -> np.ndarray:
    column, row = np.floor(x / 2).T
    inside = (abs(x) <= 4).all(1) & ((column + row) % 2 == 0)
    return np.where(inside, -math.log(32), -np.inf)


TOYS = {
    "eight Gaussians": Toy(
        lambda rng, n: _around(_CENTRES[rng.integers(0, 8, n)], rng, _SPREAD),
        lambda x: _log_density_around(_CENTRES, _SPREAD, x),
        2.832,
    ),
    "moons": Toy(
        lambda rng, n: _around(_moon(rng.uniform(0, math.pi, n), rng.uniform(size=n) < 0.5), rng, _MOON_NOISE),
        lambda x: _log_density_around(_MOON_CURVE, _MOON_NOISE, x),
        2.397,
    ),
    "swiss roll": Toy(
        lambda rng, n: _around(_roll(rng.uniform(size=n)), rng, _ROLL_NOISE),
        lambda x: _log_density_around(_ROLL_CURVE, _ROLL_NOISE, x),
        2.672,
    ),
    "checkerboard": Toy(_draw_checkerboard, _log_density_of_checkerboard, math.log(32)),
}
