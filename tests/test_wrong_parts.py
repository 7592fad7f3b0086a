"""What is built from wrong parts: an error that says so where it is built."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import flowlib.bijections
import flowlib.distributions
import flowlib.flows
import flowlib.nn
from flowlib.distributions import AbstractDistribution
from flowlib.support import Box, Circle, Positive, Real

pytestmark = pytest.mark.usefixtures("unchecked_annotations")
# Of any type: what is given here is wrong.
bij: Any = flowlib.bijections
dst: Any = flowlib.distributions
flows: Any = flowlib.flows
nn: Any = flowlib.nn
KEY = jr.key(0)
BASE = dst.StandardNormal((2,))
SMALL: Any = {"base_dist": BASE, "flow_layers": 1, "nn_width": 3}
AFFINE = bij.Affine(np.zeros(2))


def vector_net(out: int, inputs: int = 3) -> eqx.nn.Linear:
    return eqx.nn.Linear(inputs, out, key=KEY)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(bij.Chain, AFFINE), r"Chain expected a sequence of bijections, got a single Affine: write \[\.\.\.\]"),
        (partial(bij.Stack, bij.Affine()), "Stack expected a sequence of bijections, got a single Affine"),
        (partial(bij.Concatenate, AFFINE), "Concatenate expected a sequence of bijections, got a single Affine"),
        (partial(dst.Joint, dst.Normal()), "Joint expected a sequence of distributions, got a single Normal"),
        (partial(dst.Mixture, dst.Normal()), "Mixture expected a sequence of distributions, got a single Normal"),
        (partial(bij.Chain, bij.Affine), "Chain expected a sequence of bijections, got the class Affine itself"),
        (partial(bij.Chain, [bij.Affine]), r"got the class Affine itself: call it to make one, Affine\(\.\.\.\)"),
        (partial(bij.Chain, 3), "Chain expected a sequence of bijections, got int"),
        (partial(bij.Invert, bij.Exp), "Invert expected a bijection, got the class Exp"),
        (partial(bij.Scan, bij.Exp), "Scan expected a bijection, got the class Exp"),
        (partial(bij.Sandwich, AFFINE, bij.Exp), "expected a bijection, got the class Exp"),
        (partial(dst.Joint, [dst.Normal]), "Joint expected distributions, got the class Normal"),
        (partial(dst.Mixture, [dst.Normal]), "Mixture expected distributions, got the class Normal"),
        (partial(dst.Transformed, dst.Normal, AFFINE), "distribution as base_dist, got the class Normal"),
        (partial(dst.Transformed, BASE, bij.Affine), "Transformed expected a bijection, got the class Affine"),
        (partial(dst.Folded, dst.Normal), "Folded expected a distribution as dist, got the class Normal"),
        (partial(dst.VmapMixture, dst.Normal, np.ones(1)), "expected a distribution, got the class Normal"),
        (partial(dst.Truncated, dst.Normal), "Truncated expected a distribution, got the class Normal"),
        (partial(flows.coupling_flow, KEY, **SMALL, transformer=bij.Tanh), "the class Tanh itself"),
        (partial(flows.coupling_flow, KEY, **{**SMALL, "base_dist": dst.Normal}), "got the class Normal itself"),
        (partial(flows.masked_autoregressive_flow, KEY, **SMALL, transformer=bij.Affine), "the class Affine itself"),
        (partial(bij.Coupling, KEY, transformer=bij.Affine, untransformed_dim=1, dim=2), "the class Affine itself"),
        (partial(bij.Coupling, KEY, transformer=bij.Affine(), untransformed_dim=1, dim=2, conditioner=eqx.nn.MLP),
         "conditioner expected .*, got the class MLP"),
    ],
)  # fmt: skip
def test_a_single_part_or_a_class_where_others_belong(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_parts_may_come_from_a_generator():
    chain = bij.Chain(bij.Affine(np.full(2, float(i))) for i in range(3))
    np.testing.assert_array_equal(chain.transform(jnp.zeros(2)), np.full(2, 3.0))
    assert dst.Joint(dst.Normal() for _ in range(2)).shape == (2,)


@pytest.mark.parametrize(
    ("activation", "got"), [("relu", "'relu'"), (None, "None"), (3, "3"), (eqx.nn.PReLU, "the class PReLU itself")]
)
def test_an_activation_that_is_no_function_is_found_where_the_flow_is_built(activation, got):
    message = (
        rf"activation \(nn_activation of a flow\) expected a function of one array, such as jax.nn.relu, got {got}"
    )
    for flow in (flows.coupling_flow, flows.masked_autoregressive_flow, flows.neural_spline_flow, flows.ffjord):
        with pytest.raises(TypeError, match=message):
            flow(KEY, base_dist=BASE, flow_layers=1, nn_activation=activation)
    with pytest.raises(TypeError, match=message):
        flows.circular_spline_flow(KEY, dim=2, flow_layers=1, nn_activation=activation)
    sizes = {"width": 2, "depth": 1}
    for net in (
        partial(nn.ResidualMLP, KEY, 2, 2, **sizes),
        partial(nn.ConvNet, KEY, 1, 1, width=2),
        partial(nn.ConvResNet, KEY, 1, 1, **sizes),
    ):
        with pytest.raises(TypeError, match=message):
            net(activation=activation)


def test_an_embedding_of_the_wrong_size_is_found_where_the_flow_is_built():
    message = r"embedding=\) to give shape \(4,\), the condition of the bijection \(cond_dim\), got \(5,\)"
    with pytest.raises(ValueError, match=message):
        flows.coupling_flow(KEY, **SMALL, cond_dim=4, embedding=vector_net(5), raw_cond_shape=(3,))
    inner = bij.AdditiveCondition(vector_net(2, 4), (2,), (4,))
    with pytest.raises(ValueError, match=message):
        bij.EmbedCondition(inner, vector_net(5), (3,))
    with pytest.raises(ValueError, match=r"does not take a condition of raw_cond_shape \(7,\)"):
        bij.EmbedCondition(inner, vector_net(4), (7,))
    with pytest.raises(TypeError, match="a module or function of one raw condition, got the class Linear"):
        bij.EmbedCondition(inner, eqx.nn.Linear, (3,))
    # Those of labels, which take whole numbers only, of pixels, and in a wrapper.
    bij.EmbedCondition(inner, eqx.nn.Embedding(5, 4, key=KEY), ())
    bij.EmbedCondition(inner, lambda image: jax.nn.one_hot(image.sum(dtype=jnp.int32), 4), (2, 2))
    made = jax.vmap(lambda key: bij.EmbedCondition(inner, eqx.nn.Linear(3, 4, key=key), (3,)))(jr.split(KEY, 2))
    assert made.cond_shape == (3,)


def test_vmap_over_an_axis_that_is_not_there():
    with pytest.raises(ValueError, match=r"arrays with an axis 1 to map over, got one of shape \(2,\)"):
        bij.Vmap(bij.Affine(np.zeros(2)), in_axes=eqx.if_array(1))
    with pytest.raises(ValueError, match=r"axis 0 to map over, got one of shape \(\)"):
        bij.Vmap(bij.Affine(), in_axes=eqx.if_array(0))
    conditional = bij.AdditiveCondition(vector_net(2), (2,), (3,))
    with pytest.raises(ValueError, match="in_axes_condition from -2 to 1, got 5"):
        bij.Vmap(conditional, axis_size=2, in_axes_condition=5)


def test_the_shape_of_events_comes_from_the_list_of_ranges():
    assert bij.ToSupport(["real", "positive"]).shape == (2,)
    assert bij.ToSupport([(0, 1), Circle(0, 360), Positive()]).shape == (3,)
    assert bij.ToSupport(Box((0.0, 1.0), (2.0, 3.0), (False, False))).shape == (2,)
    assert bij.ToSupport("positive").shape == bij.ToSupport((0, 1)).shape == ()
    assert bij.ToSupport("positive", 3).shape == (3,)
    y = bij.ToSupport(["real", "positive"]).transform(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(y, [1, np.exp(2)], rtol=1e-6)


def test_shapes_are_written_as_one_writes_them():
    flow = dst.Transformed(BASE, bij.AdditiveCondition(vector_net(2), (2,), (3,)))
    with pytest.raises(ValueError, match=r"expected a condition of shape \(\.\.\., 3\), got none"):
        flow.log_prob(np.zeros(2))
    with pytest.raises(ValueError, match=r"kl_divergence expected a condition of shape \(\.\.\., 3\), got none"):
        dst.kl_divergence(flow, BASE, key=KEY)


class Triangle(AbstractDistribution):
    """A user's own, which says nothing of its support."""

    shape: tuple[int, ...] = ()
    cond_shape: None = None

    def _log_prob(self, x, condition):
        return jnp.log(jnp.maximum(1 - jnp.abs(x), 0))

    def _sample(self, key, condition):
        return jr.uniform(key) + jr.uniform(jr.split(key)[0]) - 1


def test_the_support_of_a_distribution_is_the_reals_if_it_does_not_say():
    assert isinstance(Triangle().support, Real)
    moved = dst.Transformed(Triangle(), bij.Affine(1.0, 2.0))
    np.testing.assert_allclose(
        moved.log_prob(np.array([1.0, 2.0, 4.0])), [np.log(0.5), np.log(0.25), -np.inf], rtol=1e-6
    )


def test_an_embedding_in_a_precision_of_its_own_is_taken():
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), vector_net(4))
    bij.EmbedCondition(bij.AdditiveCondition(vector_net(2, 4), (2,), (4,)), net, (3,))
