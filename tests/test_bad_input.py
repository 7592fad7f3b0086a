"""Bad input to constructors and public methods: one line each, naming what was expected and what came.

Data given to fits are in `test_train_input.py`; every bijection and distribution is called with wrong shapes,
conditions and keys in `test_contract.py`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import paramax
import pytest

from flowlib import bijections as bij
from flowlib import distributions as dst
from flowlib import flows
from flowlib.nn import MLP

# Users have no run-time check of annotations, which would be the first to complain.
pytestmark = pytest.mark.usefixtures("unchecked_annotations")

KEY = jr.key(0)
NORMAL = dst.StandardNormal((2,))
AFFINE = bij.Affine(jnp.zeros(2), 1.0)


def shifted(cond_dim):
    return bij.AdditiveCondition(eqx.nn.Linear(cond_dim, 2, key=KEY), (2,), (cond_dim,))


def wrong(argument) -> Any:
    """An argument that a type checker would refuse."""
    return argument


def log_of_shifted(loc):
    return bij.Chain([bij.Invert(bij.Exp((2,))), bij.Loc(loc)])


def coupling(**changes):
    arguments = {"transformer": bij.Affine(), "untransformed_dim": 1, "dim": 2, "nn_width": 4, "nn_depth": 1}
    return bij.Coupling(KEY, **(arguments | changes))


def autoregressive(**changes):
    return bij.MaskedAutoregressive(KEY, **({"transformer": bij.Affine(), "dim": 2, "nn_width": 4} | changes))


def spline(**changes):
    return bij.RationalQuadraticSpline(**({"knots": 4, "interval": 2.0} | changes))


def flow(constructor=flows.coupling_flow, **changes):
    return constructor(KEY, **({"base_dist": NORMAL} | changes))


VALUES = {
    "zero scale": (lambda: bij.Affine(0, 0), "scale must be positive and finite, got 0"),
    "negative scale": (lambda: bij.Scale(jnp.asarray([1.0, -2.0])), "scale must be positive and finite, got -2"),
    "NaN scale": (lambda: bij.Affine(0, math.nan), "scale must be finite, got nan"),
    "NaN loc": (lambda: bij.Loc(math.nan), "loc must be finite, got nan"),
    "unequal parameters": (lambda: bij.Affine(jnp.zeros(2), jnp.ones(3)), r"\(2,\) and \(3,\) do not broadcast"),
    "zero diagonal": (lambda: bij.TriangularAffine(0, jnp.zeros((2, 2))), "diagonal of arr must be positive, got 0"),
    "no square": (lambda: bij.TriangularAffine(0, jnp.ones((2, 3))), r"square matrix as arr, got shape \(2, 3\)"),
    "zero df": (lambda: dst.StudentT(0), "got 0"),
    "negative concentration": (lambda: dst.Gamma(-1, 1), "got -1"),
    "zero rate": (lambda: dst.Exponential(0), "got 0"),
    "zero alpha": (lambda: dst.Beta(0, 1), "got 0"),
    "upside-down uniform": (lambda: dst.Uniform(1, 0), "minval|maxval"),
    "covariance": (lambda: dst.MultivariateNormal(jnp.zeros(2), -jnp.eye(2)), "positive definite"),
    "zero knots": (lambda: spline(knots=0), "knots must be an integer of at least 1, got 0"),
    "upside-down interval": (lambda: spline(interval=(1.0, -1.0)), r"lower < upper, got \(1.0, -1.0\)"),
    "wide bins": (lambda: spline(min_width=1.0), "5 bins fit, got 1.0"),
    "zero derivative": (lambda: spline(min_derivative=0.0), r"min_derivative in \(0, 1\), got 0.0"),
    "edges": (lambda: spline(edges="loose"), "one of .*identity.*, got 'loose'"),
    "zero exponent": (lambda: bij.Power(0), "exponent other than 0, got 0"),
    "tanh bound": (lambda: bij.LeakyTanh(0), r"max_val in \(0, 8\], got 0"),
    "zero vector": (lambda: bij.Householder(jnp.zeros(3)), "a vector other than zero, got 0"),
    "cosine axis": (lambda: bij.DiscreteCosine((2, 3), axis=2), r"axis of shape \(2, 3\), got axis 2"),
    "no permutation": (lambda: bij.Permute(np.array([0, 0, 1])), r"each of 0 to 2 once, got \[0, 0, 1\]"),
    "order": (lambda: autoregressive(order=[0, 2]), "order to hold each of 0 to 1 once"),
    "zero width": (lambda: coupling(nn_width=0), "nn_width must be an integer of at least 1, got 0"),
    "negative depth": (lambda: autoregressive(nn_depth=-1), "nn_depth must be an integer of at least 0, got -1"),
    "zero layers": (lambda: flow(flow_layers=0), "flow_layers must be an integer of at least 1, got 0"),
    "fractional layers": (lambda: flow(flow_layers=1.5), "flow_layers must be an integer of at least 1, got 1.5"),
    "zero cond_dim": (lambda: flow(cond_dim=0), "cond_dim must be an integer of at least 1, got 0"),
    "zero blocks": (
        lambda: flow(flows.block_neural_autoregressive_flow, nn_block_dim=0),
        "block_dim must be an integer of at least 1, got 0",
    ),
    "planar slope": (lambda: flow(flows.planar_flow, negative_slope=0.0), r"negative_slope in \(0, 1\], got 0.0"),
    "flow knots": (lambda: flow(flows.triangular_spline_flow, knots=0), "knots must be an integer of at least 1"),
    "mixing": (lambda: flow(mixing="spin"), "mixing must be one of .*'linear'.*, got 'spin'"),
    "kind of spline flow": (
        lambda: flow(flows.neural_spline_flow, kind="affine"),
        "kind must be one of .*'autoregressive'.*, got 'affine'",
    ),
    "spline flow width": (
        lambda: flow(flows.neural_spline_flow, nn_width=4.0),
        r"nn_width must be an integer of at least 1, got 4\.0",
    ),
    "realnvp blocks": (lambda: flow(flows.realnvp, nn_depth=-1), "nn_depth must be an integer of at least 0, got -1"),
    "tolerance": (lambda: bij.NumericalInverse(AFFINE, tolerance=0.0), "positive tolerance, got 0.0"),
}

SHAPES = {
    "empty chain": (lambda: bij.Chain([]), "at least one bijection, got none"),
    "chain": (lambda: bij.Chain([AFFINE, bij.Exp((3,))]), r"shape \(2,\) at index 1, got \(3,\)"),
    "chain conditions": (lambda: bij.Chain([shifted(2), shifted(3)]), r"one condition shape.*\(2,\) and \(3,\)"),
    "transformed": (lambda: dst.Transformed(NORMAL, bij.Exp((3,))), r"shape \(2,\) like its base, got \(3,\)"),
    "concatenate": (
        lambda: bij.Concatenate([bij.Exp((2, 3)), bij.Exp((3, 2))]),
        r"agree off axis 0, got \[\(2, 3\), \(3, 2\)\]",
    ),
    "concatenate conditions": (lambda: bij.Concatenate([shifted(2), shifted(3)]), r"\(2,\) and \(3,\)"),
    "concatenate scalars": (lambda: bij.Concatenate([bij.Exp(), bij.Exp()]), "axis"),
    "stack": (lambda: bij.Stack([bij.Exp((2,)), bij.Exp((3,))]), r"\(2,\) and, at index 1, \(3,\)"),
    "stack axis": (lambda: bij.Stack([AFFINE, AFFINE], axis=2), "axis between -2 and 1, got 2"),
    "scan without arrays": (lambda: bij.Scan(bij.Exp((2,))), "stacked arrays to scan over"),
    "scan lengths": (lambda: bij.Scan(eqx.tree_at(lambda a: a.loc, AFFINE, jnp.ones((3, 2)))), "common leading axis"),
    "reshape": (lambda: bij.Reshape(AFFINE, (3,)), r"shape with 2 elements like \(2,\), got \(3,\)"),
    "empty reshape": (lambda: bij.Reshape(), "a bijection, or shape and out_shape"),
    "reshape condition": (lambda: bij.Reshape(AFFINE, cond_shape=(2,)), "unconditional bijection"),
    "indexed": (lambda: bij.Indexed(AFFINE, slice(0, 1), (3,)), r"shape \(1,\) like x\[idxs\], got \(2,\)"),
    "indexed twice": (lambda: bij.Indexed(AFFINE, jnp.asarray([1, 1]), (3,)), r"at most once, got positions \[1, 1\]"),
    "embed unconditional": (lambda: bij.EmbedCondition(AFFINE, jnp.ravel, (2,)), "conditional bijection"),
    "vmap": (lambda: bij.Vmap(bij.Exp()), "axis_size; got sizes"),
    "vmap both": (lambda: bij.Vmap(AFFINE, in_axes=eqx.if_array(0), axis_size=2), "got both"),
    "coupling size": (lambda: coupling(untransformed_dim=2), "below dim 2, got 2"),
    "coupling mask": (lambda: coupling(untransformed_dim=None, mask=[True, True]), "2 booleans, not all True"),
    "coupling neither": (lambda: coupling(untransformed_dim=None), "got both or neither"),
    "coupling transformer": (lambda: coupling(transformer=bij.Exp((3,))), r"\(\) or \(1,\), got shape \(3,\)"),
    "transformer count": (lambda: autoregressive(transformer=[bij.Exp()] * 3), "2 transformers.*got 3"),
    "joint autoregressive": (lambda: autoregressive(transformer=AFFINE), r"of shape \(\), got shape \(2,\)"),
    "base of matrices": (lambda: flow(base_dist=dst.StandardNormal((2, 2))), r"vectors as events.*got shape \(2, 2\)"),
    "half an embedding": (lambda: flow(cond_dim=2, embedding=jnp.ravel), "embedding and raw_cond_shape"),
    "embedding without size": (lambda: flow(embedding=jnp.ravel, raw_cond_shape=()), "cond_dim"),
}

SUPPORTS = {
    "chain": (lambda: bij.Chain([AFFINE, bij.Invert(bij.Exp((2,)))]), "index 1, Invert, needs positive.*gives real"),
    "transformed": (
        lambda: dst.Transformed(NORMAL, bij.Invert(bij.Sigmoid((2,)))),
        "needs interval input, but the base StandardNormal has real support",
    ),
    "scan": (
        lambda: bij.Scan(eqx.filter_vmap(log_of_shifted)(jnp.ones((3, 2)))),
        "needs positive input but gives real",
    ),
}

TYPES = {
    "no bijection": (lambda: bij.Chain(wrong([AFFINE, jnp.exp])), "a bijection"),
    "no bijection inverted": (lambda: bij.Invert(wrong(3)), "a bijection, got int"),
    "no distribution": (lambda: dst.Transformed(wrong(AFFINE), AFFINE), "a distribution as base_dist, got Affine"),
    "no base": (lambda: flow(base_dist=3), "a distribution, got int"),
    "no key for a flow": (
        lambda: flows.coupling_flow(wrong(3), base_dist=NORMAL),
        "PRNG key such as jax.random.key.0., got 3",
    ),
    "no key for a layer": (lambda: bij.Planar(wrong(None), dim=2), "PRNG key.*got None"),
    "keys": (lambda: NORMAL.sample(jr.split(KEY, 2)), "PRNG key.*shape"),
    "strings": (lambda: AFFINE.transform(wrong(["a", "b"])), "x must hold real numbers, got dtype <U1"),
    "objects": (lambda: NORMAL.log_prob(np.array([None, 1.0])), "x must hold real numbers, got dtype object"),
    "complex": (lambda: NORMAL.log_prob(jnp.asarray([1j, 2])), "x must hold real numbers, got dtype complex"),
    "ragged": (lambda: NORMAL.log_prob(wrong([[1.0], [1.0, 2.0]])), "x must"),
    "no function": (lambda: bij.FunctionBijection(wrong(3), ()), "fn to be callable, got int"),
}


def single_line(error):
    return str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", VALUES)
def test_values_out_of_range(name):
    make, message = VALUES[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert single_line(error)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_fit(name):
    make, message = SHAPES[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert single_line(error)


@pytest.mark.parametrize("name", SUPPORTS)
def test_supports_that_do_not_fit(name):
    make, message = SUPPORTS[name]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert single_line(error)


@pytest.mark.parametrize("name", TYPES)
def test_things_of_the_wrong_type(name):
    make, message = TYPES[name]
    with pytest.raises(TypeError, match=message) as error:
        make()
    assert single_line(error)


def test_a_conditioner_of_the_wrong_size():
    layer = coupling(conditioner=MLP(KEY, 1, 5, width=4, depth=1))
    with pytest.raises(ValueError, match=r"conditioner to give shape \(2,\), got \(5,\)"):
        layer.transform(jnp.ones(2))


def test_an_embedding_of_the_wrong_size():
    layer = bij.EmbedCondition(shifted(2), eqx.nn.Linear(4, 2, key=KEY), (4,))
    # Put in where nothing is checked.
    layer = eqx.tree_at(lambda layer: layer.embedding_net, layer, eqx.nn.Linear(4, 3, key=KEY))
    with pytest.raises(ValueError, match=r"\(embedding=\) to give shape \(2,\), .* got \(3,\)"):
        layer.transform(jnp.ones(2), jnp.ones(4))


def test_values_are_not_looked_at_while_tracing():
    scale = jax.jit(lambda scale: paramax.unwrap(bij.Affine(0.0, scale)).scale)(jnp.asarray(-1.0))
    assert np.isnan(scale)
