"""The run-time check of flowlib's annotations: beartype, which here takes an int for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
