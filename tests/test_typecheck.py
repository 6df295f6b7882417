"""Types are checked at the first calls of every function in a test, and shapes too."""

import jaxtyping
import numpy as np
import pytest
import typecheck

from promptseg.contrast import _means
from promptseg.metric import dice
from promptseg.plan import Plan
from promptseg.sample import task_name

FLAT = np.zeros(9, bool)


def test_shapes_types_and_fields_are_checked():
    """Of functions, and of what makes a dataclass."""
    with pytest.raises(jaxtyping.TypeCheckError, match="dice"):
        dice(FLAT, FLAT)
    with pytest.raises(jaxtyping.TypeCheckError, match="_means"):
        _means(np.zeros(3), np.zeros(4, int), 2)  # one name, two lengths
    with pytest.raises(jaxtyping.TypeCheckError, match="task_name"):
        task_name(3, "CT")
    with pytest.raises(jaxtyping.TypeCheckError, match="Plan"):
        Plan(strategies="box")


def test_only_the_first_calls_of_a_test_are_checked():
    """And those of the next test again."""
    for _ in range(typecheck.MOST):
        assert task_name("liver", "CT") == "liver (CT)"
    assert task_name(3, "CT") == "3 (CT)"

    typecheck.begin_test()
    with pytest.raises(jaxtyping.TypeCheckError, match="task_name"):
        task_name(3, "CT")
