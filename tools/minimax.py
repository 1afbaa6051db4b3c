"""Compute the polynomial coefficients in ``src/cpp/math.hpp`` and ``src/cpp/training_math.hpp``.

Run ``python tools/minimax.py [exp] [near2] [near4] [log1p] [tanh] [normal]`` (needs mpmath and NumPy; takes minutes).
Each polynomial minimises the largest error of the whole function, in 60-digit arithmetic:

* exp(r) = 1 + r + r^2 q(r) on |r| <= log(2)/2.  The two leading coefficients are pinned to 1, so that exp(0) is 1.
* The same on |r| <= log(2)/8 and log(2)/32 for exponentials whose powers 2^(j/4) and 2^(j/16) come from a table, which
  is printed as well.
* log1p(f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f), on 1 + f in [3/4, 3/2]; R(z) = z * (l1 + l2 z + ...),
  the fdlibm form (K. C. Ng, 1986), whose leading term is exact.
* tanh(x) = x + x z P(z), z = x^2, on |x| <= 0.7, beyond which exponentials give it without cancellation.
* The normal distribution's tail Phi(-t) = exp(-t^2/2) G(u) / (t + k), u = (t - k) / (t + k), on 0 <= t <= the number
  beyond which the exponential is 0 (the mapping of M. M. Shepherd, J. G. Laframboise, 1981); k makes G nearly even.

The printed coefficients are rounded to the target format one at a time, lowest order first, and the remaining ones
are fitted again after each rounding, so that the rounded polynomial stays close to the optimum.
"""

from __future__ import annotations

import sys

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


def near_coefficients(table_bits: int, degree: int, dtype: type):
    # Numbers up to 2^19 times quarters of log2(e), or 2^17 times sixteenths, are rounded by 0.05 of one.
    half = mp.log(2) / 2 / 2**table_bits * mp.mpf("1.06")
    basis = [lambda r, k=k: r**k for k in range(2, degree + 1)]
    return fit_rounded(lambda r: mp.exp(r) - 1 - r, lambda r: mp.exp(-r), basis, -half, half, dtype)


def print_power_table(table_bits: int) -> None:
    """Print the float32 bits of c * 2^(j/n), less j's own, and their largest error in ULP.

    c, in [1, 2^(1/16)), is the best of many that were drawn at random; with 1 the powers can become 0.
    """
    j = np.arange(2**table_bits)
    for c in (1.0, float.fromhex("0x1.084921d5e487dp+0")):
        entries = c * 2.0 ** (j / len(j))
        digits = np.where(entries >= 2, entries / 2, entries) * 2.0**23
        print(f"2^(j/{len(j)}) times {c.hex()}: largest error {np.abs(digits - np.rint(digits)).max():.3f} ULP")
        bits = entries.astype(np.float32).view(np.uint32).astype(np.int64) - (127 << 23) - (j << 23 - table_bits)
        print("   ", ", ".join(f"0x{b & 0xFFFFFFFF:08x}" for b in bits))


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


def tanh_coefficients(terms: int, dtype: type):
    def remainder(z):
        x = mp.sqrt(z)
        return (mp.tanh(x) / x - 1) / z

    def weight(z):
        x = mp.sqrt(z)
        return x * z / mp.tanh(x)

    basis = [lambda z, k=k: z**k for k in range(terms)]
    return fit_rounded(
        remainder, weight, basis, mp.mpf(10) ** -12, mp.mpf(7) ** 2 / 100 * (1 + mp.mpf(2) ** -18), dtype
    )


def normal_coefficients(degree: int, dtype: type, k: int, last: int):
    def scaled_tail(u):
        t = k * (1 + u) / (1 - u)
        return mp.exp(t * t / 2) * mp.erfc(t / mp.sqrt(2)) / 2 * (t + k)

    basis = [lambda u, power=power: u**power for power in range(degree + 1)]
    return fit_rounded(
        scaled_tail, lambda u: 1 / scaled_tail(u), basis, mp.mpf(-1), mp.mpf(last - k) / (last + k), dtype
    )


TABLES = {
    "exp": lambda dtype: exp_coefficients({4: 6, 8: 11}[dtype().itemsize], dtype),
    "near2": lambda dtype: near_coefficients(2, 4, dtype),
    "near4": lambda dtype: near_coefficients(4, 3, dtype),
    "log1p": lambda dtype: log1p_coefficients({4: 3, 8: 7}[dtype().itemsize], dtype),
    "tanh": lambda dtype: tanh_coefficients({4: 6, 8: 12}[dtype().itemsize], dtype),
    "normal": lambda dtype: normal_coefficients(*{4: (10, dtype, 3, 15), 8: (24, dtype, 4, 39)}[dtype().itemsize]),
}


def main(names: list[str]) -> None:
    for name in names or TABLES:
        for dtype in (np.float32,) if name.startswith("near") else (np.float32, np.float64):
            coefficients, error = TABLES[name](dtype)
            print(f"{dtype.__name__} {name}: largest relative error 2^{mp.nstr(mp.log(error, 2), 4)}")
            for c in coefficients:
                print("   ", float(c).hex(), repr(dtype(float(c))), flush=True)
        if name.startswith("near"):
            print_power_table(int(name[-1]))


if __name__ == "__main__":
    main(sys.argv[1:])
