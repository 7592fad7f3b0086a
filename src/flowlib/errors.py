"""The exceptions and warnings that flowlib defines; everything else is a plain ValueError or TypeError."""

from typing import Any


class NonFiniteDataError(ValueError):
    """A training array holds NaN or infinity; the message names the row and column, counted from zero."""


class NonFiniteWarning(UserWarning):
    """A loss became NaN or infinite during a fit, which stopped and kept its last good parameters."""


class DataWarning(UserWarning):
    """Training data look unusual.

    Constant or equal columns, a single row, perhaps rows and columns exchanged; columns with one value in many rows, or
    rounded to a step; columns that lose their scale in the precision of the fit.
    """


class FileFormatError(ValueError):
    """A file is no flowlib file, is damaged, or holds what this version cannot rebuild."""


class CheckpointError(OSError):
    """A checkpoint cannot be written or read; the message says why, where, and what to do.

    Any other exception that ends a fit in its midst (of a stream of data, for instance) carries these attributes too.

    Attributes:
        fitted: what the fit that it stopped would have returned, so that nothing is lost; None if there was none.
        losses: likewise, the losses.
    """

    fitted: Any = None
    losses: Any = None


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint is of another fit: its settings, or the arrays of its state, are not those of this one."""


class CheckpointWarning(UserWarning):
    """A checkpoint is torn or damaged, and was passed over."""
