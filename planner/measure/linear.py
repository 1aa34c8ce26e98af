"""Writes one row as a weighted sum of others, with the weights that let the least noise through. Pure.

Solving for every single cost first, as one is tempted to, fails as soon as two kinds of layer always come together,
although their sum, all that is asked for, is well determined.
"""

from collections.abc import Sequence

__all__ = ["minimum_norm_weights"]

_TOLERANCE = 1e-9


def minimum_norm_weights(
    rows: Sequence[Sequence[float]], whole: Sequence[float], *, scales: Sequence[float]
) -> tuple[float, ...] | None:
    """Weights w with Σ w·row = ``whole`` that minimise Σ (w · scale)²; ``None`` when no weights reach ``whole``.

    The best linear unbiased combination when row i's time has a standard error proportional to ``scales[i]``
    (Gauss–Markov): w = V⁻¹A λ with (AᵀV⁻¹A) λ = whole. A singular system is fine as long as it is consistent.
    """
    inverse = [1.0 / (scale * scale) for scale in scales]
    size = len(whole)
    matrix = [
        [sum(v * row[i] * row[j] for v, row in zip(inverse, rows, strict=True)) for j in range(size)]
        for i in range(size)
    ]
    multipliers = _solve(matrix, list(whole))
    if multipliers is None:
        return None
    weights = [
        v * sum(m * value for m, value in zip(multipliers, row, strict=True))
        for v, row in zip(inverse, rows, strict=True)
    ]
    for column in range(size):
        reached = sum(weight * row[column] for weight, row in zip(weights, rows, strict=True))
        if abs(reached - whole[column]) > 1e-6 * max(1.0, abs(whole[column])):
            return None
    return tuple(weights)


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """One solution of a symmetric, possibly singular system by Gauss–Jordan with full pivoting on the diagonal.

    Directions that nothing determines get 0; the caller checks that the whole was reached.
    """
    size = len(right)
    # Equilibrate: counts of 1 and of 60 would otherwise decide what passes for zero.
    scale = [matrix[i][i] ** -0.5 if matrix[i][i] > 0 else 1.0 for i in range(size)]
    work = [[matrix[i][j] * scale[i] * scale[j] for j in range(size)] + [right[i] * scale[i]] for i in range(size)]
    used: list[int] = []
    for _ in range(size):
        pivot = max((i for i in range(size) if i not in used), key=lambda i: abs(work[i][i]))
        if abs(work[pivot][pivot]) < _TOLERANCE:
            break
        used.append(pivot)
        _eliminate(work, pivot)
    if not used:
        return None
    return [work[i][size] / work[i][i] * scale[i] if i in used else 0.0 for i in range(size)]


def _eliminate(work: list[list[float]], pivot: int) -> None:
    for row in range(len(work)):
        factor = work[row][pivot] / work[pivot][pivot]
        if row != pivot and factor:
            work[row] = [value - factor * other for value, other in zip(work[row], work[pivot], strict=True)]
