"""The exceptions and warnings that flowlib defines; everything else is a plain ValueError or TypeError."""


class NonFiniteDataError(ValueError):
    """A training array holds NaN or infinity; the message names the row and column, counted from zero."""


class NonFiniteWarning(UserWarning):
    """A loss became NaN or infinite during a fit, which stopped and kept its last good parameters."""


class FileFormatError(ValueError):
    """A file is no flowlib file, is damaged, or holds what this version cannot rebuild."""
