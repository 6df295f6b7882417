"""The run-time type checker that the tests put around every function of the package."""

from beartype import BeartypeConf, beartype

# PEP 484's tower: an int is a float where a float is annotated.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
