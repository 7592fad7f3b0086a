"""The cases of scalar maps that are there to be transformers, part of `cases.py`.

Each class by itself, and one parameterised by the network of a coupling or autoregressive layer.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import flowlib.bijections as bij
from flowlib.flows._tail import default_transformer
from registry import Case, entry


def coupled(key, d, transformer, **options):
    """A conditional coupling, so that with one coordinate too a network makes the parameters."""
    sizes = {"nn_width": 4, "nn_depth": 1, "nn_activation": jnp.tanh, "cond_dim": 2}
    where = {} if "mask" in options else {"untransformed_dim": d // 2}
    return bij.Coupling(key, transformer=transformer, dim=d, **{**sizes, **where, **options})


def in_turn(key, d, transformer):
    return bij.MaskedAutoregressive(key, transformer=transformer, dim=d, nn_width=4, nn_activation=jnp.tanh)


def moved(bijection, key):
    """With noise on its parameters."""
    return jax.tree.map(lambda leaf: leaf + jr.normal(key, leaf.shape) if eqx.is_array(leaf) else leaf, bijection)


def circular():
    """A rotation and a spline of the circle."""
    return bij.Chain([bij.CircularShift(4.0), bij.RationalQuadraticSpline(knots=3, interval=4.0, edges="circular")])


def with_circles(key, d):
    """A coupling of real columns and, in every second place of those that change, angles."""
    mask = np.arange(d) < d // 2
    kinds = [default_transformer() if i % 2 else circular() for i in range(int((~mask).sum()))]
    return coupled(key, d, kinds, mask=mask)


def ends(b):
    return (-4.0, 4.0)


def ends_and_knots(b):
    widths, heights, _, _ = b._table()
    return [*b.interval, *np.concatenate([b.interval[0] + np.cumsum(sizes) for sizes in (widths, heights)]).tolist()]


BIJECTIONS: list[Case] = [
    *entry(
        "CircularShift", lambda key, d: bij.CircularShift((0.0, 3.0), (d,)), default=2, special=lambda b: (0.0, 3.0)
    ),
    # Real coordinates drawn from a normal distribution are on a circle of radius 4 / pi.
    *entry("CircularShift_coupling", lambda key, d: with_circles(key, d), default=5, stacked=False),
    *entry(
        "LinearSpline",
        lambda key, d: moved(bij.LinearSpline(knots=4, interval=math.pi), key),
        default=1,
        sizes=(1,),
        special=ends_and_knots,
    ),
    *entry(
        "LinearSpline_coupling",
        lambda key, d: coupled(key, d, bij.LinearSpline(knots=3, interval=4.0)),
        default=2,
        special=ends,
    ),
    *entry(
        "QuadraticSpline",
        lambda key, d: moved(bij.QuadraticSpline(knots=4, interval=(-1.0, 3.0)), key),
        default=1,
        sizes=(1,),
        special=ends_and_knots,
    ),
    *entry(
        "QuadraticSpline_coupling",
        lambda key, d: coupled(key, d, bij.QuadraticSpline(knots=3, interval=4.0)),
        default=5,
        special=ends,
    ),
    *entry(
        "CubicSpline",
        lambda key, d: moved(bij.CubicSpline(knots=4, interval=(-1.0, 3.0)), key),
        default=1,
        sizes=(1,),
        special=ends_and_knots,
    ),
    *entry(
        "CubicSpline_autoregressive",
        lambda key, d: in_turn(key, d, bij.CubicSpline(knots=3, interval=4.0)),
        default=2,
        special=ends,
    ),
    *entry("SinhArcsinh", lambda key, d: bij.SinhArcsinh(jnp.zeros(d), jnp.ones(d)), default=5),
    *entry("SinhArcsinh_coupling", lambda key, d: coupled(key, d, bij.SinhArcsinh()), default=2),
    *entry("HeavyTails", lambda key, d: bij.HeavyTails(0.3, jnp.ones(d)), default=2),
    *entry("HeavyTails_autoregressive", lambda key, d: in_turn(key, d, bij.HeavyTails()), default=2),
    *entry("NormalMixture", lambda key, d: bij.NormalMixture(3, (d,)), default=2),
    *entry(
        "NormalMixture_coupling",
        lambda key, d: coupled(key, d, bij.Chain([bij.NormalMixture(3), default_transformer()])),
        default=2,
    ),
    *entry(
        "BernsteinPolynomial",
        lambda key, d: bij.BernsteinPolynomial(degree=6, interval=(-1.0, 3.0), edges="free", shape=(d,)),
        default=2,
        special=lambda b: b.interval,
    ),
    *entry(
        "BernsteinPolynomial_autoregressive",
        lambda key, d: in_turn(key, d, bij.BernsteinPolynomial(degree=5, interval=4.0)),
        default=2,
        special=ends,
    ),
    *entry(
        "SumOfSquares",
        lambda key, d: bij.SumOfSquares(2, 2, bound=4.0, shape=(d // 3, 3)),
        default=6,
        sizes=(6,),
        special=ends,
    ),
    *entry(
        "SumOfSquares_coupling",
        lambda key, d: coupled(key, d, bij.SumOfSquares(2, 3, bound=4.0)),
        default=2,
        special=ends,
    ),
    *entry("MonotoneNetwork", lambda key, d: bij.MonotoneNetwork(3, 2, (d,)), default=2, noise=0.3),
    *entry(
        "MonotoneNetwork_coupling",
        lambda key, d: coupled(key, d, bij.Chain([bij.MonotoneNetwork(3, 1), default_transformer()])),
        default=2,
        noise=0.3,
    ),
    *entry("MonotoneIntegral", lambda key, d: bij.MonotoneIntegral(4, bound=4.0, shape=(d,)), default=2, special=ends),
    *entry(
        "MonotoneIntegral_autoregressive",
        lambda key, d: in_turn(key, d, bij.MonotoneIntegral(3, bound=4.0)),
        default=2,
        special=ends,
        noise=0.3,
    ),
]
