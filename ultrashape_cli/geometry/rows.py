"""Equal rows of integer arrays, found by hashing."""

import numpy as np

from ultrashape_cli.geometry.jit import kernel


@kernel
def first_equal_rows(rows):
    """Return, for each row of `[N, 3]` int64, the index `[N]` of the first row equal to it."""
    capacity = 16
    while capacity < 2 * len(rows):
        capacity *= 2
    table = np.full(capacity, -1, np.int64)
    first = np.empty(len(rows), np.int64)
    for i in range(len(rows)):
        a, b, c = rows[i, 0], rows[i, 1], rows[i, 2]
        # Odd multipliers of the 64-bit golden ratio; products wrap around.
        code = a * -7046029254386353131 + b * -4417276706812531889 + c * 2862933555777941757
        code ^= code >> 29
        code *= -4658895280553007687
        slot = (code ^ (code >> 32)) & (capacity - 1)
        while True:
            j = table[slot]
            if j < 0:
                table[slot] = i
                first[i] = i
                break
            if rows[j, 0] == a and rows[j, 1] == b and rows[j, 2] == c:
                first[i] = j
                break
            slot = (slot + 1) & (capacity - 1)
    return first
