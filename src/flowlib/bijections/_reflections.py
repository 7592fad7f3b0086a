"""Products of Householder reflections, applied to columns."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from flowlib.constraints import unit_vector


def reflect(
    vectors: Float[Array, "count dim"], columns: Float[Array, "dim n"], *, transpose: bool = False
) -> Float[Array, "dim n"]:
    """H_1 H_2 ... H_count x for each column, with H_i = I - 2 v_i v_i^T / |v_i|^2; a vector of 0 reflects nothing.

    With V the unit vectors as rows, the product is I - V^T M^-1 V, where M is upper triangular: 1/2 on the diagonal
    and V V^T above (Joffrain et al. 2006, ACM Transactions on Mathematical Software 32, 2). Two products and a small
    triangular solve, O(count dim) a column, replace one pass after another. V^T M^-1 has columns no longer
    than 2 whatever the vectors, so that rounding in the solve is not amplified.

    Args:
        vectors: the normal vectors of the planes, of any lengths.
        columns: what to reflect.
        transpose: reverse the order of the reflections, which undoes them.
    """
    if len(vectors) == 0:
        return columns
    unit = jax.vmap(unit_vector)(vectors)
    overlaps = jnp.matmul(unit, unit.T, precision="highest")
    half = jnp.asarray(0.5, unit.dtype)
    upper = jnp.where(jnp.eye(len(unit), dtype=bool), half, jnp.triu(overlaps))
    along = jnp.matmul(unit, columns, precision="highest")
    solved = solve_triangular(upper, along, trans=1 if transpose else 0)
    return columns - jnp.matmul(unit.T, solved, precision="highest")


def packed_vectors(packed: Float[Array, "dim dim"]) -> Float[Array, "dim-1 dim"]:
    """Vectors v_i whose first entry other than 0 is v_i[i] = 1, followed by column i of `packed` below its diagonal.

    So LAPACK packs them. None of them is 0 whatever the numbers, and where these are 0, reflection i turns the sign
    of coordinate i.
    """
    dim = len(packed)
    return (jnp.tril(packed, -1) + jnp.eye(dim, dtype=packed.dtype))[:, : dim - 1].T
