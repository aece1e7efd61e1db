"""Choosing a few of many, evenly."""


def evenly_spread(total: int, count: int) -> list[int]:
    """Choose `count` of `total` places, evenly, first and last included (the first alone if count is 1).

    Args:
        total: Number of places.
        count: Number to choose, at least 1; all places if there are fewer.

    Returns:
        Distinct ascending places in range(total).
    """
    if count >= total:
        return list(range(total))
    if count == 1:
        return [0]
    # floor(x + 1/2) of i * (total - 1) / (count - 1), in integers so that no rounding doubles a place.
    steps = count - 1
    return [(2 * i * (total - 1) + steps) // (2 * steps) for i in range(count)]
