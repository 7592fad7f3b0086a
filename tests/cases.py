"""Every bijection and every distribution, at least twice, for `test_contract.py`.

A case is a function that builds the object from a key and an event size. The name before the first
underscore is that of the class or constructor. A new bijection needs two entries here.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import flowlib.bijections as bij
import flowlib.distributions as dst
from cases_distributions import DISTRIBUTIONS as FAMILIES
from cases_images import BIJECTIONS as IMAGES
from cases_images import DISTRIBUTIONS as IMAGE_DISTRIBUTIONS
from cases_images import FLOWS as IMAGE_FLOWS
from cases_linear import BIJECTIONS as LINEAR
from cases_transformers import BIJECTIONS as TRANSFORMERS
from flowlib import flows, nn
from flowlib.flows._tail import default_transformer
from flowlib.support import Circle
from parts import normal, positive, rotation, shift
from registry import Case, entry, only_when_all


def affine(key, *shape):
    loc, scale = jr.split(key)
    return bij.Affine(normal(loc, *shape), positive(scale, *shape))


def triangular(key, d, lower=True):
    loc, arr, diagonal = jr.split(key, 3)
    matrix = jnp.where(jnp.eye(d, dtype=bool), positive(diagonal, d), normal(arr, d, d) / d)
    return bij.TriangularAffine(normal(loc, d), matrix, lower=lower)


def linear(key, d):
    """With an initial matrix of the user's own."""
    return bij.InvertibleLinear(key, dim=d, init=2 * jnp.eye(d)[::-1] + normal(key, d, d) / d)


def spline(key, edges: Any = "identity", interval: Any = 1.0, knots: int = 5):
    noise = bij.RationalQuadraticSpline(knots=knots, interval=interval, edges=edges)
    return jax.tree.map(lambda leaf: leaf + jr.normal(key, leaf.shape), noise)


def splines(key, d, **options):
    """A spline of its own for each coordinate."""
    make = eqx.filter_vmap(functools.partial(spline, **options))
    return bij.Vmap(make(jr.split(key, d)), in_axes=eqx.if_array(0))


def knots_of(spline) -> Sequence[float]:
    """The knots on both sides, the ends of the interval included; of every spline of a `Vmap`."""
    if isinstance(spline, bij.Vmap):
        return [
            knot
            for i in range(spline.axis_size)
            for knot in knots_of(jax.tree.map(lambda a, i=i: a[i], spline.bijection))
        ]
    knots = [spline.interval[0] + jnp.cumsum(spline._sizes(logits)) for logits in (spline.widths, spline.heights)]
    return [*spline.interval, *np.concatenate(knots).tolist()]


def mixed(key, d):
    """Layers of unlike kinds that mix all coordinates."""
    keys = jr.split(key, 3)
    return bij.Chain([rotation(keys[0], d), affine(keys[1], d), bij.LeakyTanh(1.0, (d,)), triangular(keys[2], d)])


def turned(key, d):
    """A layer that mixes all coordinates and magnifies little, so that several of them are well-conditioned."""
    keys = jr.split(key)
    return bij.Chain([rotation(keys[0], d), affine(keys[1], d), bij.LeakyTanh(1.0, (d,))])


def first_half(d):
    return slice(0, (d + 1) // 2)


def stacked(make, key, n=3):
    return eqx.filter_vmap(make)(jr.split(key, n))


def cubic(x):
    return x + x**3 / 3


def bent(x):
    return 0.5 * x + jnp.tanh(x)


def steepening(x):
    return x * (1 + jnp.abs(x) / 2)


def flattening(y):
    return 2 * y / (1 + jnp.sqrt(1 + 2 * jnp.abs(y)))


def swirl(x, condition):
    """Not triangular; a contraction added to a shift."""
    return x + 0.4 * jnp.tanh(jnp.roll(x, 1) + condition)


def autoregressive(x):
    return x + 0.5 * jnp.tanh(x) + jnp.cumsum(jnp.tanh(x)) - jnp.tanh(x)


def narrow_spline():
    return bij.RationalQuadraticSpline(knots=4, interval=2.0)


# One of each kind of range, for the columns of `ToSupport`.
RANGES: Any = ["real", (-1.0, 3.0), (-math.inf, 2.0), Circle(-2.0, 2.0), (0.0, math.inf)]


def in_data_units(bijection, key, *, cond=False, to_data=None):
    """Narrower with `to_data`, so that a product of its slopes is not far from 1."""
    keys = jr.split(key, 4)
    shape, cond_shape = bijection.out_shape, bijection.cond_shape
    condition: Any = {}
    if cond:
        condition = {"cond_location": normal(keys[2], *cond_shape), "cond_scale": positive(keys[3], *cond_shape)}
    width = 1.0 if to_data is None else 0.6
    location, scale = width * normal(keys[0], *shape), width * positive(keys[1], *shape)
    return bij.InDataUnits(bijection, location, scale, to_data=to_data, **condition)


def coupling(key, d, *, transformer=None, untransformed_dim=None, **options):
    transformer = default_transformer() if transformer is None else transformer
    if "mask" not in options:
        untransformed_dim = d // 2
    return bij.Coupling(
        key, transformer=transformer, untransformed_dim=untransformed_dim, dim=d, nn_width=6, nn_depth=1, **options
    )


def alternating(key, d):
    """A coupling that keeps every second coordinate, with another transformer for each of the rest."""
    mask = np.arange(d) % 2 == 1
    kinds = [default_transformer(), narrow_spline(), bij.Loc(0.0)]
    return coupling(key, d, mask=mask, transformer=kinds[: int((~mask).sum())], nn_activation=jnp.tanh)


def own_arrays(key, d):
    """A coupling whose transformers have arrays of the layer's own, one of them two for a coordinate."""
    kinds = [bij.TanhAffine(), bij.Chain([bij.TanhAffine(), default_transformer(), bij.TanhAffine()]), bij.TanhAffine()]
    return coupling(key, d, transformer=kinds[: d - d // 2])


def mixtures(d):
    """A mixture of its own for each coordinate."""
    return bij.Vmap(eqx.filter_vmap(lambda: bij.LogisticMixture(3), axis_size=d)(), in_axes=eqx.if_array(0))


def bounded_relu():
    """With the slope of the default transformer, whose inverse does not overflow far out."""
    return eqx.tree_at(lambda relu: relu.negative_slope, bij.LeakyRelu(), default_transformer().scale)


def mixed_logistic():
    """The transformer of Flow++."""
    return bij.Chain([bij.LogisticMixture(3), default_transformer()])


def joint_coupling(key, d):
    """A coupling with a transformer of vectors and a conditioner of the user's own."""
    size = (d + 1) // 2
    transformer = bij.TriangularAffine(0.0, jnp.eye(size))
    n_parameters = size + size**2
    conditioner = eqx.nn.MLP(d - size, n_parameters, 4, 1, activation=jnp.tanh, key=key)
    return coupling(key, d, transformer=transformer, conditioner=conditioner)


def residual_network(key, d):
    """For a coupling of affine maps with a condition of size 2."""
    return nn.ResidualMLP(key, d // 2 + 2, 2 * (d - d // 2), width=6, depth=1, activation=jnp.tanh)


def autoregressive_network(key, d, transformer=None, **options):
    transformer = default_transformer() if transformer is None else transformer
    return bij.MaskedAutoregressive(
        key, transformer=transformer, dim=d, **{"nn_width": 6, "nn_activation": jnp.tanh, **options}
    )


def backwards(key, d):
    """An autoregressive layer in reverse order, with unlike transformers."""
    kinds = [narrow_spline() if i % 2 else default_transformer() for i in range(d)]
    return autoregressive_network(key, d, kinds, order=jnp.arange(d)[::-1])


def continuous(key, d, cond_dim=None):
    field = nn.TimeMLP(key, d, cond_dim, width=4, depth=1)
    return bij.ContinuousFlow(field, d, cond_shape=None if cond_dim is None else (cond_dim,), **SOLVED)


# Compared with derivatives of what was computed, log-dets need a finer solve than by default in float64; forward mode
# needs this adjoint, to whose gradient `test_continuous_flow.py` compares the others.
SOLVED: Any = {"adjoint": "direct", "max_steps": 256}
if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
    SOLVED |= {"tolerance": 1e-13, "max_steps": 4096}
# How a solve is cut into steps hangs on rounding, which differs between a scan and its layers; so does, by the error of
# the solve, the gradient: 4e-8 in float64, more than is allowed there. In float32 the two agree to rounding.
EXACT_IN_SCANS = not jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
OVERFLOW = "exp overflows"
UNBOUNDED = "an unbounded scale is zero or huge far out"
STEEP = "at the ends of a range the slope is beyond floats"
POLE = "a power of 0 or its slope is infinite"
LEAKY = (-1.5, 1.5, math.tanh(1.5), -math.tanh(1.5))

BIJECTIONS: list[Case] = [
    # Elementwise.
    *entry("Identity", lambda key, d: bij.Identity((d,)), default=5),
    *entry("Identity_matrix", lambda key, d: bij.Identity((d // 3, 3)), default=6, sizes=(6,)),
    *entry("Exp", lambda key, d: bij.Exp((d,)), default=2, infinite=OVERFLOW),
    *entry("Exp_scalar", lambda key, d: bij.Exp(), default=1, sizes=(1,), infinite=OVERFLOW),
    *entry("Sigmoid", lambda key, d: bij.Sigmoid((d,)), default=1),
    *entry("Sigmoid_matrix", lambda key, d: bij.Sigmoid((d // 3, 3)), default=6, sizes=(6,)),
    *entry("SoftPlus", lambda key, d: bij.SoftPlus((d,)), default=5),
    *entry("SoftPlus_scalar", lambda key, d: bij.SoftPlus(), default=1, sizes=(1,)),
    *entry("Tanh", lambda key, d: bij.Tanh((d,)), default=2),
    *entry("Tanh_scalar", lambda key, d: bij.Tanh(), default=1, sizes=(1,)),
    *entry("LeakyTanh", lambda key, d: bij.LeakyTanh(1.5, (d,)), default=5, special=lambda b: LEAKY),
    *entry("LeakyTanh_far", lambda key, d: bij.LeakyTanh(8.0, (d,)), default=1, special=lambda b: (8.0, -8.0)),
    *entry("LeakyRelu", lambda key, d: bij.LeakyRelu(positive(key, d), (d,)), default=5),
    *entry("LeakyRelu_shared", lambda key, d: bij.LeakyRelu(0.7, (d // 3, 3)), default=6, sizes=(6,)),
    *entry("LeakyRelu_scalar", lambda key, d: bij.LeakyRelu(2.0), default=1, sizes=(1,)),
    *entry("LogisticMixture", lambda key, d: bij.LogisticMixture(3, (d,)), default=2),
    *entry("LogisticMixture_matrix", lambda key, d: bij.LogisticMixture(2, (d // 3, 3)), default=6, sizes=(6,)),
    *entry("LogisticMixture_scalar", lambda key, d: bij.LogisticMixture(), default=1, sizes=(1,)),
    *entry("LogisticMixture_vmap", lambda key, d: mixtures(d), default=5),
    *entry("Logit", lambda key, d: bij.Logit((d,)), default=2),
    *entry(
        "Logit_scalar",
        lambda key, d: bij.Logit(interval=(-1.0, 3.0), alpha=0.1),
        default=1,
        sizes=(1,),
        special=lambda b: (-1.0, 3.0, -1.5, 3.5),
    ),
    *entry("Power", lambda key, d: bij.Power(3.0, (d,)), default=2, infinite=POLE),
    *entry("Power_root", lambda key, d: bij.Power(0.5, (d,)), default=5, infinite=POLE),
    *entry("Power_negative", lambda key, d: bij.Power(-1.5, (d // 3, 3)), default=6, sizes=(6,), infinite=POLE),
    *entry("Power_one", lambda key, d: bij.Power(1), default=1, sizes=(1,)),
    # Affine and linear.
    *entry("Affine", lambda key, d: affine(key, d), default=5),
    *entry("Affine_matrix", lambda key, d: affine(key, d // 3, 3), default=6, sizes=(6,)),
    *entry("Affine_scalar", lambda key, d: affine(key), default=1, sizes=(1,)),
    *entry("Loc", lambda key, d: bij.Loc(normal(key, d)), default=2),
    *entry("Loc_matrix", lambda key, d: bij.Loc(normal(key, d // 3, 3)), default=6, sizes=(6,)),
    *entry("Scale", lambda key, d: bij.Scale(positive(key, d)), default=5),
    *entry("Scale_matrix", lambda key, d: bij.Scale(positive(key, d // 3, 3)), default=6, sizes=(6,)),
    *entry("TanhAffine", lambda key, d: bij.TanhAffine((d,)), default=2),
    *entry("TanhAffine_matrix", lambda key, d: bij.TanhAffine((d // 3, 3)), default=6, sizes=(6,)),
    *entry("TanhAffine_scalar", lambda key, d: bij.TanhAffine(), default=1, sizes=(1,)),
    *entry("TriangularAffine", lambda key, d: triangular(key, d), default=5),
    *entry("TriangularAffine_upper", lambda key, d: triangular(key, d, lower=False), default=2),
    *entry("Householder", lambda key, d: rotation(key, d), default=5),
    *entry("Householder_second", lambda key, d: rotation(key, d), default=1),
    *entry("ActNorm", lambda key, d: bij.ActNorm((d,)), default=5),
    *entry("ActNorm_scalar", lambda key, d: bij.ActNorm(), default=1, sizes=(1,)),
    *entry("InvertibleLinear", lambda key, d: bij.InvertibleLinear(key, dim=d), default=5, noise=0.2),
    *entry("InvertibleLinear_init", lambda key, d: linear(key, d), default=2, noise=0.2),
    *entry("DiscreteCosine", lambda key, d: bij.DiscreteCosine((d,)), default=5),
    *entry("DiscreteCosine_axis", lambda key, d: bij.DiscreteCosine((d // 3, 3), axis=0), default=6, sizes=(6,)),
    *entry("Permute", lambda key, d: bij.Permute(jr.permutation(key, d)), default=5),
    *entry(
        "Permute_matrix",
        lambda key, d: bij.Permute(jr.permutation(key, d).reshape(d // 3, 3)),
        default=6,
        sizes=(6,),
    ),
    *entry("Flip", lambda key, d: bij.Flip((d,)), default=2),
    *entry("Flip_matrix", lambda key, d: bij.Flip((d // 3, 3)), default=6, sizes=(6,)),
    # Splines.
    *entry("RationalQuadraticSpline", lambda key, d: spline(key), default=1, sizes=(1,), special=knots_of),
    *entry(
        "RationalQuadraticSpline_free",
        lambda key, d: spline(key, edges="free", interval=(-1.0, 3.0)),
        default=1,
        sizes=(1,),
        special=knots_of,
    ),
    *entry(
        "RationalQuadraticSpline_circular",
        lambda key, d: spline(key, edges="circular", interval=math.pi),
        default=1,
        sizes=(1,),
        special=knots_of,
    ),
    # Composites.
    *entry("Invert_Sigmoid", lambda key, d: bij.Invert(bij.Sigmoid((d,))), default=2),
    *entry("Invert_Exp", lambda key, d: bij.Invert(bij.Exp((d,))), default=5, infinite=OVERFLOW),
    *entry("Invert_conditional", lambda key, d: bij.Invert(shift(key, d)), default=2),
    *entry("Chain", lambda key, d: mixed(key, d), default=5, noise=0.1),
    *entry(
        "Chain_conditional",
        lambda key, d: bij.Chain([affine(key, d), shift(key, d), rotation(key, d), shift(jr.fold_in(key, 1), d)]),
        default=2,
    ),
    *entry(
        "Chain_supports",
        lambda key, d: bij.Chain([bij.Chain([bij.Invert(bij.Sigmoid((d,))), affine(key, d)]), bij.Tanh((d,))]),
        default=1,
        noise=0.1,
        stacked=False,
    ),
    *entry(
        "Scan", lambda key, d: bij.Scan(stacked(lambda k: turned(k, d), key, 2)), default=2, noise=0.1, stacked=False
    ),
    *entry("Scan_conditional", lambda key, d: bij.Scan(stacked(lambda k: shift(k, d), key)), default=5),
    *entry(
        "Concatenate",
        lambda key, d: bij.Concatenate([affine(key, d), bij.SoftPlus((2,)), bij.Sigmoid((1,))]),
        default=2,
        noise=0.1,
    ),
    *entry(
        "Concatenate_axis",
        lambda key, d: bij.Concatenate([shift(key, 2, 1), bij.Reshape(mixed(key, 4), (2, 2))], axis=-1),
        default=6,
        sizes=(6,),
    ),
    *entry("Stack", lambda key, d: bij.Stack([affine(key, d), bij.Tanh((d,)), shift(key, d)]), default=1),
    *entry(
        "Stack_axis",
        lambda key, d: bij.Stack([mixed(jr.fold_in(key, i), d) for i in range(3)], axis=-1),
        default=2,
    ),
    *entry("Vmap", lambda key, d: splines(key, d), default=5, special=knots_of),
    # With more than 16 bins, these are found in another way.
    *entry("Vmap_many_knots", lambda key, d: splines(key, d, knots=20), default=2, sizes=(2,), special=knots_of),
    *entry(
        "Vmap_conditional",
        lambda key, d: bij.Vmap(stacked(lambda k: shift(k, 2), key, d), in_axes=eqx.if_array(0), in_axes_condition=1),
        default=2,
    ),
    *entry("Vmap_shared", lambda key, d: bij.Vmap(triangular(key, 2), axis_size=d), default=5),
    *entry("Indexed", lambda key, d: bij.Indexed(affine(key, (d + 1) // 2), first_half(d), (d,)), default=5),
    *entry("Indexed_conditional", lambda key, d: bij.Indexed(shift(key), 0, (d,)), default=2),
    *entry(
        "Indexed_support",
        lambda key, d: bij.Indexed(bij.SoftPlus((3,)), (slice(None), 1), (3, 2)),
        default=6,
        sizes=(6,),
    ),
    *entry("Reshape", lambda key, d: bij.Reshape(mixed(key, d), (d // 3, 3)), default=6, sizes=(6,), noise=0.1),
    *entry("Reshape_plain", lambda key, d: bij.Reshape(shape=(2, 3), out_shape=(3, 2)), default=6, sizes=(6,)),
    *entry(
        "Reshape_conditional",
        lambda key, d: bij.Reshape(shift(key, d, cond_dim=6), (d, 1), (3, 2), out_shape=(1, d)),
        default=5,
    ),
    *entry("Sandwich", lambda key, d: bij.Sandwich(affine(key, d), mixed(jr.fold_in(key, 1), d)), default=2),
    *entry(
        "Sandwich_conditional",
        lambda key, d: bij.Sandwich(shift(key, d), bij.Invert(bij.Sigmoid((d,)))),
        default=1,
    ),
    *entry("AdditiveCondition", lambda key, d: shift(key, d), default=5),
    *entry(
        "AdditiveCondition_scalar",
        lambda key, d: bij.AdditiveCondition(eqx.nn.Linear("scalar", "scalar", key=key), (), ()),
        default=1,
        sizes=(1,),
    ),
    *entry(
        "EmbedCondition",
        lambda key, d: bij.EmbedCondition(shift(key, d), eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=key), (3,)),
        default=5,
    ),
    *entry(
        "EmbedCondition_labels",
        lambda key, d: bij.EmbedCondition(shift(key, d), eqx.nn.Embedding(4, 2, key=key), ()),
        default=2,
        condition=lambda rng: rng.integers(4, dtype="int32"),
    ),
    # Data in their own units.
    *entry("ToSupport", lambda key, d: bij.ToSupport(RANGES[-d:], (d,)), default=5, stacked=False),
    *entry("ToSupport_circular", lambda key, d: bij.ToSupport("circular", (d,), cut=normal(key, d)), default=2),
    *entry("ToSupport_matrix", lambda key, d: bij.ToSupport((-1.0, 3.0), (d // 3, 3)), default=6, sizes=(6,)),
    *entry("ToSupport_scalar", lambda key, d: bij.ToSupport((-math.inf, 2.0)), default=1, sizes=(1,)),
    *entry("InDataUnits", lambda key, d: in_data_units(affine(key, d), key), default=2),
    *entry("InDataUnits_conditional", lambda key, d: in_data_units(shift(key, d), key, cond=True), default=1),
    *entry(
        "InDataUnits_support",
        lambda key, d: in_data_units(rotation(key, d), key, to_data=bij.ToSupport(RANGES[-d:], (d,))),
        default=5,
        noise=0.1,
        stacked=False,
        infinite=STEEP,
    ),
    *entry(
        "InDataUnits_support_conditional",
        lambda key, d: in_data_units(
            shift(key, d // 3, 3), key, cond=True, to_data=bij.ToSupport("positive", (d // 3, 3))
        ),
        default=6,
        sizes=(6,),
        stacked=False,
        infinite=STEEP,
    ),
    # Networks.
    *entry("Coupling", lambda key, d: coupling(key, d), default=5),
    *entry(
        "Coupling_conditional",
        lambda key, d: coupling(key, d, transformer=narrow_spline(), cond_dim=2, nn_activation=jnp.tanh),
        default=1,
        special=lambda b: (-2.0, 2.0),
    ),
    *entry(
        "Coupling_many_knots",
        lambda key, d: coupling(key, d, transformer=bij.RationalQuadraticSpline(knots=20, interval=2.0)),
        default=2,
        sizes=(2,),
        special=lambda b: (-2.0, 2.0),
        noise=0.3,
    ),
    *entry(
        "Coupling_residual",
        lambda key, d: coupling(key, d, conditioner=residual_network(key, d), cond_dim=2),
        default=5,
        noise=0.3,
    ),
    *entry("Coupling_mask", lambda key, d: alternating(key, d), default=5, special=lambda b: (-2.0, 2.0)),
    *entry("Coupling_joint", lambda key, d: joint_coupling(key, d), default=2, infinite=UNBOUNDED),
    *entry("Coupling_tanh_affine", lambda key, d: coupling(key, d, transformer=bij.TanhAffine()), default=5),
    *entry("Coupling_own", lambda key, d: own_arrays(key, d), default=5),
    *entry(
        "Coupling_joint_tanh_affine",
        lambda key, d: coupling(key, d, transformer=bij.TanhAffine(((d + 1) // 2,)), cond_dim=2),
        default=2,
    ),
    *entry(
        "Coupling_leaky_relu",
        # With a shift: by itself it does nothing to positive numbers, whatever the condition.
        lambda key, d: coupling(key, d, transformer=bij.Chain([bij.Loc(0.0), bounded_relu()]), cond_dim=2),
        default=2,
    ),
    *entry("Coupling_mixture", lambda key, d: coupling(key, d, transformer=mixed_logistic(), cond_dim=2), default=2),
    *entry("MaskedAutoregressive", lambda key, d: autoregressive_network(key, d), default=2),
    *entry(
        "MaskedAutoregressive_tanh_affine",
        lambda key, d: autoregressive_network(key, d, bij.TanhAffine(), cond_dim=2),
        default=5,
    ),
    *entry(
        "MaskedAutoregressive_leaky_relu",
        lambda key, d: autoregressive_network(key, d, bij.LeakyRelu(0.5)),
        default=2,
    ),
    *entry(
        "MaskedAutoregressive_mixture",
        lambda key, d: autoregressive_network(key, d, mixed_logistic()),
        default=2,
        noise=0.3,
    ),
    *entry(
        "MaskedAutoregressive_conditional",
        lambda key, d: autoregressive_network(key, d, cond_dim=3, nn_width=2),
        default=5,
    ),
    *entry("MaskedAutoregressive_order", lambda key, d: backwards(key, d), default=5, noise=0.2),
    *entry("MaskedAutoregressive_single", lambda key, d: autoregressive_network(key, d, cond_dim=1), default=1),
    *entry("Planar", lambda key, d: bij.Planar(key, dim=d), default=5),
    *entry("Planar_leaky", lambda key, d: bij.Planar(key, dim=d, negative_slope=0.2), default=1),
    *entry(
        "Planar_conditional",
        lambda key, d: bij.Planar(key, dim=d, cond_dim=2, width_size=4, activation=jnp.tanh),
        default=2,
    ),
    *entry(
        "BlockAutoregressiveNetwork",
        lambda key, d: bij.BlockAutoregressiveNetwork(key, dim=d, depth=1, block_dim=3),
        default=2,
        noise=0.2,
    ),
    *entry(
        "BlockAutoregressiveNetwork_conditional",
        lambda key, d: bij.BlockAutoregressiveNetwork(key, dim=d, cond_dim=2, depth=2, block_dim=2, activation=bent),
        default=5,
        noise=0.2,
    ),
    *entry("ContinuousFlow", lambda key, d: continuous(key, d), default=2, noise=0.3, stacked=EXACT_IN_SCANS),
    *entry(
        "ContinuousFlow_conditional",
        lambda key, d: continuous(key, d, cond_dim=2),
        default=1,
        noise=0.3,
        stacked=EXACT_IN_SCANS,
    ),
    *entry("NumericalInverse", lambda key, d: bij.NumericalInverse(mixed(key, d)), default=2),
    *entry(
        "NumericalInverse_triangular",
        lambda key, d: bij.NumericalInverse(bij.Chain([triangular(key, d), shift(key, d)]), triangular=True),
        default=5,
    ),
    *entry("FunctionBijection", lambda key, d: bij.FunctionBijection(cubic, (d,), triangular=True), default=1),
    *entry(
        "FunctionBijection_inverse",
        lambda key, d: bij.FunctionBijection(steepening, (d // 3, 3), flattening),
        default=6,
        sizes=(6,),
    ),
    *entry(
        "FunctionBijection_conditional",
        lambda key, d: bij.FunctionBijection(swirl, (d,), cond_shape=(d,)),
        default=2,
    ),
    *entry(
        "FunctionBijection_triangular",
        lambda key, d: bij.FunctionBijection(autoregressive, (d,), triangular=True),
        default=5,
    ),
]


def premade_cases(constructor, defaults, variant="", noise=0.3, **options) -> list[Case]:
    """A premade flow at every size, unconditional and conditional; each of them in both orientations at some size.

    `defaults` names the size at which a case is selected, and `variant` tells cases of one constructor apart.
    """
    found = []
    for suffix, cond_dim in [("", None), ("_conditional", 2)]:
        build = functools.partial(_premade, constructor, {"cond_dim": cond_dim, **options})
        name = f"{constructor.__name__}{variant}{suffix}"
        found += entry(name, build, default=defaults[suffix], noise=noise, stacked=False)
    return found


def _premade(constructor, options, key, d):
    invert = (d == 2) == (options["cond_dim"] is not None)
    return constructor(key, base_dist=dst.StandardNormal((d,)), invert=invert, **options)


NARROW = {"flow_layers": 3, "nn_width": 5, "nn_activation": jnp.tanh}
# With less noise, for it is on three matrices in a row too.
SPLINES = {**NARROW, "flow_layers": 2, "nn_depth": 1, "knots": 3, "noise": 0.15}
SMALL = {**NARROW, "flow_layers": 2, "nn_depth": 1, "noise": 0.2}
FLOWS: list[Case] = [
    *premade_cases(flows.coupling_flow, {"": 5, "_conditional": 1}, **NARROW),
    *premade_cases(flows.masked_autoregressive_flow, {"": 2, "_conditional": 5}, **NARROW),
    *premade_cases(flows.block_neural_autoregressive_flow, {"": 1, "_conditional": 2}, nn_block_dim=4),
    *premade_cases(flows.planar_flow, {"": 2, "_conditional": 5}, flow_layers=3, width_size=4),
    *premade_cases(flows.ffjord, {"": 2, "_conditional": 1}, nn_width=4, nn_depth=1, **SOLVED),
    *premade_cases(flows.radial_flow, {"": 5, "_conditional": 2}, flow_layers=3, width_size=4),
    *premade_cases(flows.residual_flow, {"": 5, "_conditional": 2}, flow_layers=2, nn_width=4, nn_depth=1),
    *premade_cases(
        flows.sylvester_flow, {"": 2, "_conditional": 5}, flow_layers=2, width_size=4, kind="orthogonal", noise=0.2
    ),
    *premade_cases(flows.triangular_spline_flow, {"": 2, "_conditional": 1}, flow_layers=2, knots=4),
    *premade_cases(flows.nice, {"": 5, "_conditional": 1}, **NARROW),
    *premade_cases(flows.realnvp, {"": 1, "_conditional": 5}, **{**NARROW, "nn_depth": 1}),
    *premade_cases(flows.inverse_autoregressive_flow, {"": 5, "_conditional": 2}, **NARROW),
    *premade_cases(flows.neural_spline_flow, {"": 5, "_conditional": 2}, **SPLINES),
    *premade_cases(
        flows.neural_spline_flow, {"": 2, "_conditional": 1}, "_autoregressive", kind="autoregressive", **SPLINES
    ),
    *premade_cases(flows.bernstein_flow, {"": 2, "_conditional": 1}, degree=5, **SMALL),
    *premade_cases(flows.sum_of_squares_flow, {"": 1, "_conditional": 2}, polynomials=2, degree=2, **SMALL),
    *premade_cases(flows.neural_autoregressive_flow, {"": 5, "_conditional": 2}, units=3, **SMALL),
    *premade_cases(flows.unconstrained_monotonic_flow, {"": 2, "_conditional": 1}, units=4, nodes=16, **SMALL),
    *premade_cases(flows.logistic_mixture_flow, {"": 5, "_conditional": 2}, components=3, **SMALL),
    *premade_cases(flows.gaussianization_flow, {"": 5, "_conditional": 2}, components=3, **SMALL),
    *premade_cases(flows.heavy_tailed_flow, {"": 5, "_conditional": 1}, **SPLINES),
]
# Other flows under another name or transformer: as bijections they run only when all do.
LIKE_OTHERS = (
    *("nice", "realnvp", "inverse_autoregressive_flow", "bernstein_flow", "sum_of_squares_flow"),
    *("neural_autoregressive_flow", "unconstrained_monotonic_flow", "logistic_mixture_flow", "heavy_tailed_flow"),
)
BIJECTIONS += IMAGES + LINEAR + TRANSFORMERS


def on_set(constructor, default, sizes) -> list[Case]:
    """A flow that builds its own base; without a condition only when all run."""
    found = []
    for suffix, cond_dim in [("", None), ("_conditional", 2)]:
        options = {"cond_dim": cond_dim, "flow_layers": 2, "nn_width": 5, "nn_depth": 1, "knots": 3}
        build = functools.partial(_on_set, constructor, options)
        cases = entry(constructor.__name__ + suffix, build, default=default, sizes=sizes, stacked=False, noise=0.15)
        found += cases if suffix else map(only_when_all, cases)
    return found


def _on_set(constructor, options, key, d):
    return constructor(key, dim=d, **options)


FLOWS_ON_SETS: list[Case] = [
    *on_set(flows.circular_spline_flow, 2, (1, 2, 5)),
    *on_set(flows.simplex_flow, 3, (2, 3)),
    *on_set(flows.ordered_flow, 2, (1, 2, 5)),
    *on_set(flows.sphere_flow, 3, (2, 3)),
]
# Of a premade flow's two cases the conditional one runs always as a density, the other one as a bijection.
DISTRIBUTIONS: list[Case] = [
    *FAMILIES,
    *FLOWS_ON_SETS,
    *(case if case.name.endswith("_conditional") else only_when_all(case) for case in FLOWS),
    *IMAGE_DISTRIBUTIONS,
]


def _bijection_of(build, key, d):
    return build(key, d).bijection


BIJECTIONS_OF_FLOWS = [
    dataclasses.replace(
        only_when_all(case) if case.name.endswith("_conditional") else case,
        name=f"{case.name}.bijection",
        build=functools.partial(_bijection_of, case.build),
    )
    for case in FLOWS + IMAGE_FLOWS
]
BIJECTIONS += [only_when_all(case) if case.name.startswith(LIKE_OTHERS) else case for case in BIJECTIONS_OF_FLOWS]
