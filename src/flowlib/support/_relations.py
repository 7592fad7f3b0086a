"""How supports relate: what fits into what, and what a bijection makes of one."""

import equinox as eqx
import jax.numpy as jnp

from flowlib.support._composed import Joined, Reshaped, Subset
from flowlib.support._sets import Box, Circle, Interval, Positive, Real
from flowlib.support._support import Support

# kind of a set -> kinds of the domains that can hold it.
_HOLDERS = {
    "real": {"real"},
    "positive": {"positive", "real"},
    "interval": {"interval", "positive", "circle", "real"},
    "circle": {"circle", "interval", "real"},
    # Not so for the simplex and the sphere: densities there are not those of volumes in the space around.
    "increasing": {"increasing", "real"},
}


def is_elementwise(support: Support) -> bool:
    """Whether the set treats all coordinates alike, so that it means the same in every shape."""
    if isinstance(support, Interval):
        return jnp.ndim(support.lower) == 0 and jnp.ndim(support.upper) == 0
    if isinstance(support, Subset):
        return is_elementwise(support.within)
    if isinstance(support, Box):
        return len(support.lower) == 1
    return isinstance(support, Real | Positive | Circle)


def reshaped(support: Support, shape: tuple[int, ...]) -> Support:
    """`support` for events of another shape, of which `shape` is the one it knows."""
    return support if is_elementwise(support) else Reshaped(support, shape)


def join(supports: list[Support], sizes: list[int | None], axis: int) -> Support:
    """The support of parts side by side: the parts' own where they all have the same, else a `Joined`."""
    if all(eqx.tree_equal(support, supports[0]) is True for support in supports[1:]):
        return supports[0]
    return Joined(tuple(supports), tuple(sizes), axis)


def fits(support: Support, domain: Support) -> bool:
    """Whether a set of the kind of `support` can lie inside a set of the kind of `domain`."""
    if "unknown" in (support.kind, domain.kind):
        return True
    if isinstance(support, Joined):
        others = domain.supports if isinstance(domain, Joined) else (domain,) * len(support.supports)
        same_layout = not isinstance(domain, Joined) or (support.sizes, support.axis) == (domain.sizes, domain.axis)
        return not same_layout or all(fits(part, other) for part, other in zip(support.supports, others, strict=True))
    if isinstance(domain, Joined):
        return all(fits(support, part) for part in domain.supports)
    return domain.kind in _HOLDERS.get(support.kind, {support.kind})


def fills(support: Support, domain: Support) -> bool:
    """Whether the two are surely the same set, so that the image of one is the image of the other."""
    return eqx.tree_equal(support, domain) is True


def image(support: Support, domain: Support, codomain: Support) -> Support:
    """Where a bijection from `domain` onto `codomain` takes the points of `support`."""
    return codomain if fills(support, domain) else Subset(codomain)
