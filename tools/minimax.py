"""Compute the polynomial coefficients in ``src/cpp/math.hpp``.

Run ``python tools/minimax.py`` (needs mpmath and NumPy).  Each polynomial minimises the largest error of the whole
function, in 60-digit arithmetic:

* exp(r) = 1 + r + r^2 q(r) on |r| <= log(2)/2.  The two leading coefficients are pinned to 1, so that exp(0) is 1.
* log1p(f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f), on 1 + f in [3/4, 3/2]; R(z) = z * (l1 + l2 z + ...),
  the fdlibm form (K. C. Ng, 1986), whose leading term is exact.

The printed coefficients are rounded to the target format one at a time, lowest order first, and the remaining ones
are fitted again after each rounding, so that the rounded polynomial stays close to the optimum.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np

mp.mp.dps = 60


def round_to(value: mp.mpf, dtype: type) -> mp.mpf:
    """Round to the nearest float of the storage type."""
    return mp.mpf(float(dtype(mp.nstr(value, 40))))


def minimax(target, weight, basis, lo, hi, points=301, iterations=40):
    """Coefficients that minimise max |weight * (target - sum c_i basis_i)| on [lo, hi]: Lawson's iteration.

    A weighted least-squares fit whose weights are multiplied by the error's size after each step (C. L. Lawson, 1961).
    """
    n = len(basis)
    nodes = [(lo + hi) / 2 + (hi - lo) / 2 * mp.cos(mp.pi * (k + mp.mpf(1) / 2) / points) for k in range(points)]
    rows = [[weight(x) * b(x) for b in basis] for x in nodes]
    right = [weight(x) * target(x) for x in nodes]
    lawson = [mp.mpf(1)] * points
    best, best_error = [], mp.inf
    for _ in range(iterations):
        normal = mp.matrix(n, n)
        rhs = mp.matrix(n, 1)
        for w, row, y in zip(lawson, rows, right):
            for i in range(n):
                rhs[i] += w * row[i] * y
                for j in range(i + 1):
                    normal[i, j] += w * row[i] * row[j]
        for i in range(n):
            for j in range(i):
                normal[j, i] = normal[i, j]
        solution = mp.lu_solve(normal, rhs)
        errors = [abs(y - sum(solution[i] * row[i] for i in range(n))) for row, y in zip(rows, right)]
        if max(errors) < best_error:
            best, best_error = [solution[i] for i in range(n)], max(errors)
        lawson = [w * (e + mp.mpf(10) ** -40) for w, e in zip(lawson, errors)]
        total = sum(lawson)
        lawson = [w / total for w in lawson]
    return best


def fit_rounded(target, weight, basis, lo, hi, dtype):
    """Minimax coefficients that are representable in ``dtype``."""
    fixed: list[mp.mpf] = []
    error = mp.mpf(0)
    for k in range(len(basis)):

        def rest(x, k=k, fixed=tuple(fixed)):
            return target(x) - sum(c * b(x) for c, b in zip(fixed, basis[:k]))

        coefficients = minimax(rest, weight, basis[k:], lo, hi)
        fixed.append(round_to(coefficients[0], dtype))

    def residual(x):
        return abs(weight(x) * (target(x) - sum(c * b(x) for c, b in zip(fixed, basis))))

    error = max(residual(lo + (hi - lo) * mp.mpf(i) / 4000) for i in range(4001))
    return fixed, error


def exp_coefficients(degree: int, dtype: type):
    half = mp.log(2) / 2 * (1 + mp.mpf(2) ** -18)  # a little slack for the rounding of the quotient
    basis = [lambda r, k=k: r**k for k in range(2, degree + 1)]
    return fit_rounded(lambda r: mp.exp(r) - 1 - r, lambda r: mp.exp(-r), basis, -half, half, dtype)


def log1p_coefficients(terms: int, dtype: type):
    def remainder(z):  # R(z) = (log1p(f) - f) / s + f = 2 (atanh(s) / s - 1)
        s = mp.sqrt(z)
        return 2 * (mp.atanh(s) / s - 1)

    def weight(z):  # an error of R reaches log1p(f) = 2 atanh(s) multiplied by s
        s = mp.sqrt(z)
        return s / (2 * mp.atanh(s))

    lo, hi = mp.mpf(10) ** -12, mp.mpf(1) / 25  # f in [-1/4, 1/2]: s in [-1/7, 1/5]
    basis = [lambda z, k=k: z**k for k in range(1, terms + 1)]
    return fit_rounded(remainder, weight, basis, lo, hi, dtype)


def main() -> None:
    for name, dtype, degree, terms in (("float", np.float32, 6, 3), ("double", np.float64, 11, 7)):
        coefficients, error = exp_coefficients(degree, dtype)
        print(f"{name} exp, c2..c{degree}: largest relative error {mp.nstr(error, 4)}")
        for c in coefficients:
            print("   ", float(c).hex(), repr(dtype(float(c))))
        coefficients, error = log1p_coefficients(terms, dtype)
        print(f"{name} log1p, l1..l{terms}: largest relative error {mp.nstr(error, 4)}")
        for c in coefficients:
            print("   ", float(c).hex(), repr(dtype(float(c))))


if __name__ == "__main__":
    main()
