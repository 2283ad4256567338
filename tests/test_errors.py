import pytest

from recsparse import errors


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.DataError, ValueError),
        (errors.ColumnError, errors.DataError),
        (errors.DivergenceError, errors.DataError),
        (errors.ConfigError, ValueError),
        (errors.BudgetError, ValueError),
        (errors.FormatError, errors.RecsparseError),
        (errors.FetchError, errors.RecsparseError),
    ],
)
def test_one_handler_catches_what_a_user_can_mend(kind: type[Exception], also: type[Exception]) -> None:
    with pytest.raises(also):
        raise kind("the rating in row 3 is NaN")
    assert issubclass(kind, errors.RecsparseError)


def test_every_error_of_the_module_is_covered_by_the_base() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(kinds) == 8
    assert all(issubclass(kind, errors.RecsparseError) and kind.__doc__ for kind in kinds)
