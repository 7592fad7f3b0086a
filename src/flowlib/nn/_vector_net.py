"""What networks of vectors have in common."""

from abc import abstractmethod

from jaxtyping import Array, Float

from flowlib._module import Module


class AbstractVectorNet(Module):
    """A network of vectors that takes a batch at once, one vector a column, along which XLA vectorises."""

    @property
    @abstractmethod
    def out_size(self) -> int:
        """The size of an output."""

    @abstractmethod
    def columns(self, x: Float[Array, "in_size n"], plus: Float[Array, " plus"] | None = None) -> Array:
        """The outputs for `n` inputs, one a column; `plus` is added to the first of each column."""

    def __call__(self, x: Float[Array, " in_size"]) -> Float[Array, " out_size"]:
        return self.columns(x[:, None])[:, 0]
