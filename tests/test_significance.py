"""Many rows of sign flips at once give what each gives alone."""

import numpy as np
import pytest

from promptseg.significance import sign_flip_each, sign_flip_p


@pytest.mark.parametrize("n_units", [1, 5, 16, 17, 40])
def test_rows_that_share_their_units_have_the_p_of_each(n_units: int):
    """To the last digit: the flips are the same, gone through or drawn."""
    rng = np.random.default_rng(n_units)
    rows = rng.normal(0.3, 1, size=(6, n_units))

    assert sign_flip_each(rows) == [sign_flip_p(row) for row in rows]


def test_a_unit_that_is_absent_from_a_row_is_not_in_it():
    """Three of twenty have none in the first row: seventeen, whose flips are others."""
    rng = np.random.default_rng(3)
    rows = rng.normal(0.5, 1, size=(2, 20))
    rows[0, [2, 5, 11]] = np.nan
    rows[1, :10] = np.nan  # ten are left, and gone through
    first, second = sign_flip_each(rows)

    assert first == pytest.approx(sign_flip_p(rows[0, np.isfinite(rows[0])]), abs=0.01)
    assert second == sign_flip_p(rows[1, 10:])


def test_no_row_has_no_p():
    """Two arms have no pair of others."""
    assert sign_flip_each(np.zeros((0, 0))) == []
