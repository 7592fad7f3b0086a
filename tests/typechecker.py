"""The run-time check of flowlib's annotations: beartype, with the numeric tower of PEP 484 (an int where a float may be)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
