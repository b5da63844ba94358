"""A count with its noun, as a person reads it: 1 step, 2,000 steps, 0 batches."""


def with_noun(count: int, one: str, many: str = "") -> str:
    """The number and the noun of `one`, or of any other number, which ends in an s unless it is given."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
