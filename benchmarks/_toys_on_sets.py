"""Toy distributions on a torus, a sphere, a simplex and increasing vectors, with their true densities."""

import math

import numpy as np
from scipy.special import logsumexp
from scipy.stats import dirichlet, norm, vonmises

from _toys import Toy

# On the torus: a band that winds around both circles.
_ANGLE, _WIDTH = 1.0, 8.0
# On the sphere: equal shares around the ends of the three axes.
_DIRECTIONS = np.concatenate([np.eye(3), -np.eye(3)])
_CONCENTRATION = 15.0
# On the simplex: one for each corner.
_CORNERS = 3.0 + 9.0 * np.eye(3)
# Of the sorted numbers.
_SORTED, _CENTRES, _SPREADS = 4, np.array([-1.5, 1.0]), np.array([0.4, 0.8])


def _band(angle: np.ndarray) -> np.ndarray:
    return angle + np.sin(2 * angle)


def _draw_torus(rng: np.random.Generator, n: int) -> np.ndarray:
    angle = rng.vonmises(math.pi, _ANGLE, n)
    return np.angle(np.exp(1j * np.stack([angle, rng.vonmises(0, _WIDTH, n) + _band(angle)], 1)))


def _log_density_of_torus(x: np.ndarray) -> np.ndarray:
    return vonmises.logpdf(x[:, 0], _ANGLE, math.pi) + vonmises.logpdf(x[:, 1] - _band(x[:, 0]), _WIDTH)


def _draw_sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    """Of each von Mises-Fisher distribution the part along its axis by its quantiles, and any direction around it."""
    centres = _DIRECTIONS[rng.integers(0, len(_DIRECTIONS), n)]
    u = rng.uniform(size=n)
    along = 1 + np.log(u + (1 - u) * math.exp(-2 * _CONCENTRATION)) / _CONCENTRATION
    across = rng.standard_normal((n, 3))
    across -= (across * centres).sum(1, keepdims=True) * centres
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return along[:, None] * centres + np.sqrt(1 - along**2)[:, None] * across


def _log_density_of_sphere(x: np.ndarray) -> np.ndarray:
    log_constant = math.log(_CONCENTRATION / (2 * math.pi * -math.expm1(-2 * _CONCENTRATION)))
    terms = _CONCENTRATION * (x @ _DIRECTIONS.T - 1)
    return log_constant + logsumexp(terms, axis=1) - math.log(len(_DIRECTIONS))


def _draw_simplex(rng: np.random.Generator, n: int) -> np.ndarray:
    gammas = rng.gamma(_CORNERS[rng.integers(0, len(_CORNERS), n)])
    return gammas / gammas.sum(1, keepdims=True)


def _log_density_of_simplex(x: np.ndarray) -> np.ndarray:
    return logsumexp([dirichlet.logpdf(x.T, corner) for corner in _CORNERS], axis=0) - math.log(len(_CORNERS))


def _draw_sorted(rng: np.random.Generator, n: int) -> np.ndarray:
    which = rng.integers(0, 2, (n, _SORTED))
    return np.sort(_CENTRES[which] + _SPREADS[which] * rng.standard_normal(which.shape), axis=1)


def _log_density_of_sorted(x: np.ndarray) -> np.ndarray:
    each = logsumexp(norm.logpdf(x[..., None], _CENTRES, _SPREADS), axis=-1) - math.log(2)
    return each.sum(1) + math.lgamma(_SORTED + 1)


TOYS_ON_SETS = {
    "torus": Toy(_draw_torus, _log_density_of_torus),
    "sphere": Toy(_draw_sphere, _log_density_of_sphere),
    "simplex": Toy(_draw_simplex, _log_density_of_simplex),
    "increasing": Toy(_draw_sorted, _log_density_of_sorted),
}
# The log densities of the uniform distributions, as flowlib's densities are meant.
UNIFORM = {"torus": -2 * math.log(2 * math.pi), "sphere": -math.log(4 * math.pi), "simplex": math.log(2)}
