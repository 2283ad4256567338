"""What recsparse raises: one clear sentence with the value, where it was and what to do."""


class RecsparseError(Exception):
    """Base of every error a user can cause or mend. The command line prints it without a traceback."""


class DataError(RecsparseError, ValueError):
    """A value in somebody's data or arguments cannot be used (a NaN rating, an unknown id, a missing column)."""


class ColumnError(DataError):
    """A file does not have a column that was asked for."""


class ConfigError(RecsparseError, ValueError):
    """A setting is unknown, of the wrong type or impossible."""


class DivergenceError(DataError):
    """Training ended in infinite or NaN values; the model that was fitted is that of an earlier epoch."""


class FormatError(RecsparseError):
    """A file is corrupt, truncated, or of a version this release does not read."""


class FetchError(RecsparseError):
    """Public data could not be downloaded or did not match its checksum."""


class BudgetError(RecsparseError, ValueError):
    """A budget cannot be met; the message names the nearest sizes that can."""
