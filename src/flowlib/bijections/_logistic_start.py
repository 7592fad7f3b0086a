"""Logistic distributions far apart whose mixture is nearly the logistic distribution."""

import math

import numpy as np

# cosh m, where m and -m are the locations of the two components of scale 1.
_COSH = 2.0


def logistics_side_by_side(components: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, locations and scales: two of scale 1 at -m and m, and between them narrower ones side by side.

    With c = cosh m, sigmoid(x) = (sigmoid(x - m) + sigmoid(x + m)) / 2c + (1 - 1/c) int q(u) sigmoid(2 (x - u)) du
    for all x, with the density q(u) = c (c + 1) / (pi cosh(u) (cosh(u)^2 + c^2 - 1)): the characteristic functions are
    the same, pi t / sinh(pi t). The two alone have the tails of the logistic distribution, whatever is between them.
    The narrower ones, of scale 1/2, are the points of a quadrature of the integral. A single one has the scale that
    gives the right density at 0; two components are both of scale 1, and nearer.
    """
    if components < 3:
        places = np.linspace(-0.5, 0.5, components) if components > 1 else np.zeros(1)
        return np.full(components, 1 / components), places, np.ones(components)
    inner = components - 2
    reach = 3 * (inner - 1) / (inner + 2)
    places = np.linspace(-reach, reach, inner) if inner > 1 else np.zeros(1)
    density = 1 / (np.cosh(places) * (np.cosh(places) ** 2 + _COSH**2 - 1))
    narrow = (1 - 1 / _COSH) * density / density.sum()
    scale = 0.5 if inner > 1 else (_COSH + 1) / (_COSH + 2)
    outer = math.acosh(_COSH)
    return (
        np.concatenate([[0.5 / _COSH], narrow, [0.5 / _COSH]]),
        np.concatenate([[-outer], places, [outer]]),
        np.concatenate([[1], np.full(inner, scale), [1]]),
    )
