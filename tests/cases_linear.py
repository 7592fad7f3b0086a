"""The cases of linear maps, of units added to the identity, and of special supports; part of `cases.py`."""

import jax.numpy as jnp
import numpy as np

import flowlib.bijections as bij
from parts import normal
from registry import Case, entry


def reflections(key, d, count):
    return bij.HouseholderProduct(normal(key, count, d))


def matrix(key, d):
    """Neither triangular nor well scaled."""
    return jnp.eye(d)[::-1] * 2 + normal(key, d, d) / d


def unit(make, key, d, **options):
    """With a small network."""
    return make(key, dim=d, width_size=4, activation=jnp.tanh, **options)


def all_but_the_last(jacobian):
    return jacobian[:, :-1]


def by_area(jacobian):
    """R of J = Q R, for det R^2 = det J^T J."""
    return np.linalg.qr(jacobian, mode="r")


BIJECTIONS: list[Case] = [
    *entry("HouseholderProduct", lambda key, d: reflections(key, d, 3), default=5),
    *entry("HouseholderProduct_single", lambda key, d: reflections(key, d, 1), default=2),
    *entry("Rotation", lambda key, d: bij.Rotation(d), default=5),
    *entry("Rotation_exponential", lambda key, d: bij.Rotation(d, kind="exponential"), default=2),
    *entry("QRLinear", lambda key, d: bij.QRLinear(d), default=5, noise=0.3),
    *entry("QRLinear_init", lambda key, d: bij.QRLinear(d, init=matrix(key, d)), default=2, noise=0.2),
    *entry("SVDLinear", lambda key, d: bij.SVDLinear(d), default=5),
    *entry("SVDLinear_init", lambda key, d: bij.SVDLinear(d, init=matrix(key, d)), default=1, noise=0.2),
    *entry("DiagonalLowRank", lambda key, d: bij.DiagonalLowRank(key, dim=d), default=2),
    *entry("DiagonalLowRank_rank", lambda key, d: bij.DiagonalLowRank(key, dim=d, rank=2), default=5, sizes=(2, 5)),
    # Units added to the identity.
    *entry("Radial", lambda key, d: bij.Radial(key, dim=d), default=5),
    *entry("Radial_conditional", lambda key, d: unit(bij.Radial, key, d, cond_dim=2), default=2),
    *entry("Radial_single", lambda key, d: bij.Radial(key, dim=d), default=1, sizes=(1,)),
    *entry("Sylvester", lambda key, d: bij.Sylvester(key, dim=d, reflections=3), default=5, noise=0.3),
    *entry(
        "Sylvester_orthogonal_conditional",
        lambda key, d: unit(bij.Sylvester, key, d, cond_dim=2, kind="orthogonal", rank=(d + 1) // 2),
        default=2,
        noise=0.3,
    ),
    *entry("Sylvester_triangular", lambda key, d: bij.Sylvester(key, dim=d, kind="triangular"), default=1, noise=0.3),
    *entry("Residual", lambda key, d: bij.Residual(key, dim=d, nn_width=3), default=5),
    *entry(
        "Residual_conditional",
        lambda key, d: bij.Residual(key, dim=d, cond_dim=2, nn_width=6, nn_depth=1, lipschitz=0.7),
        default=2,
    ),
    *entry("Residual_single", lambda key, d: bij.Residual(key, dim=d, nn_width=4, nn_depth=3), default=1, sizes=(1,)),
    # Onto special supports.
    *entry("StickBreaking", lambda key, d: bij.StickBreaking(d + 1), default=5, square=all_but_the_last),
    *entry(
        "StickBreaking_pair", lambda key, d: bij.StickBreaking(d + 1), default=1, sizes=(1,), square=all_but_the_last
    ),
    *entry("Ordered", lambda key, d: bij.Ordered(d), default=5, sizes=(2, 5), stacked=False, infinite="exp overflows"),
    *entry(
        "Ordered_shifted",
        lambda key, d: bij.Chain([bij.Ordered(d), bij.Loc(normal(key, d))]),
        default=2,
        stacked=False,
        infinite="exp overflows",
    ),
    *entry("Stereographic", lambda key, d: bij.Stereographic(d), default=2, square=by_area),
    *entry("Stereographic_circle", lambda key, d: bij.Stereographic(d), default=1, sizes=(1,), square=by_area),
]
