// exp and log1p over any instruction set: `Math<Isa>` is the `Ops` that the rules and the kernels are written over.
//
// | function   | valid arguments | largest error                | beyond                                       |
// |------------|-----------------|------------------------------|----------------------------------------------|
// | exp_scaled | x <= 8          | 1.0 ULP of exp(x) * scale    | exactly 0 at -inf and below `lowest`; NaN -> NaN |
// | exp        | x <= 8          | 1.0 ULP, subnormals included | the same                                     |
// | log1p      | 0 <= x < 2^126  | 1.5 ULP                      | NaN -> NaN                                   |
// | add_log1p  | the same, any a | 0.75 ULP of a result above 1 | the same                                     |
// | log        | 0 <= x < 2^126  | 1.5 ULP                      | 0 -> -inf; x < 0 and NaN -> NaN              |
//
// exp over every float32 <= 0 and over sampled float64 is held to that table by the tests. The coefficients are
// minimax, computed by tools/minimax.py, which also prints the polynomials' own errors (0.03 ULP and less).
#pragma once

#include <type_traits>

#include "../rules/qualifier.h"
#include "isa/scalar.hpp"

namespace mlefast {

template <class T> struct MathConstants;

template <> struct MathConstants<float> {
  // exp * scale = 2^(n + 32) exp(r), n = round(x / log 2). Adding `magic` = 1.5 * 2^23 + 127 + 32 rounds to an integer
  // in the low mantissa bits, which are those of the power's exponent.
  static constexpr float log2e = 0x1.715476p+0f, magic = 0x1.8p+23f + 127 + 32;
  static constexpr float ln2 = 0x1.62e43p-1f;
  static constexpr float ln2_hi = 0x1.63p-1f, ln2_lo = -0x1.bd0106p-13f;  // n * ln2_hi is exact: 9 bits times 8
  static constexpr int exp_terms = 5;
  static constexpr float exp_c[exp_terms] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558acp-5f, 0x1.12397ap-7f,
                                             0x1.6a5134p-10f};
  // Exponentials are kept multiplied by `scale`, so that none is a denormal number but those of x from -109.9 to
  // -109.5: an operation that takes or makes one costs 50 ns a vector on Intel processors, twenty times the whole exp.
  static constexpr float scale = 0x1p+32f, unscale = 0x1p-32f, log2_scale = 32;
  // n * log 2 of the n whose power's exponent has no bit set, which makes the product 0.
  static constexpr float lowest = -159 * ln2;
  static constexpr float smallest = 0x1p-126f;                            // the smallest normal number
  static constexpr float denormals_1 = 0x1p+64f, denormals_2 = 0x1p+53f;  // product 2^149 / scale: see Rescale
  static constexpr float denormals = 0x1p+23f;                            // how many there are
  static constexpr float rounding_digits = 0x1p+26f;                      // more than the last half unit is behind
  static constexpr int log_terms = 3;
  static constexpr float log_c[log_terms] = {0x1.5555b4p-1f, 0x1.992ac8p-2f, 0x1.36e8ap-2f};
};

template <> struct MathConstants<double> {
  static constexpr double log2e = 0x1.71547652b82fep+0, magic = 0x1.8p+52 + 1023 + 64;
  static constexpr double ln2 = 0x1.62e42fefa39efp-1;
  static constexpr double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;  // 31 bits times 11
  static constexpr int exp_terms = 10;
  static constexpr double exp_c[exp_terms] = {0x1.000000000000ap-1,  0x1.5555555555508p-3,  0x1.55555555506f4p-5,
                                              0x1.1111111124985p-7,  0x1.6c16c18466e64p-10, 0x1.a01a0139e92a6p-13,
                                              0x1.a019998e2c637p-16, 0x1.71df04eb4f1f6p-19, 0x1.28add07b1165dp-22,
                                              0x1.adafe332c0168p-26};
  static constexpr double scale = 0x1p+64, unscale = 0x1p-64, log2_scale = 64;
  static constexpr double lowest = -1087 * ln2;
  static constexpr double smallest = 0x1p-1022;
  static constexpr double denormals_1 = 0x1p+500, denormals_2 = 0x1p+510;  // product 2^1074 / scale
  static constexpr double denormals = 0x1p+52;
  static constexpr double rounding_digits = 0x1p+55;
  static constexpr int log_terms = 7;
  static constexpr double log_c[log_terms] = {0x1.5555555555773p-1, 0x1.99999998f1715p-2, 0x1.249249b1b18dep-2,
                                              0x1.c71c01a72e8d5p-3, 0x1.7474d8bb159cfp-3, 0x1.3853935849eddp-3,
                                              0x1.3ab8bdb99d2a8p-3};
};

// The same of exponentials against near pivots (see Pivot), where v = n log 2 + r with |r| <= log 2 / 2. An instruction
// set that looks up 2^(j/16) has n in sixteenths, and |r| <= log 2 / 32: its polynomial takes three operations less.
// With 2^(j/4) it takes two less.
template <class T, int table_bits> struct NearConstants : MathConstants<T> {
  static constexpr T limit = 1 << 20;  // of a maximum whose n is exact
  static constexpr double common = 1;  // a factor of all these exponentials
};
template <> struct NearConstants<float, 2> : MathConstants<float> {
  static constexpr float log2e = 0x1.715476p+2f, magic = 0x1.8p+23f + 4 * (127 + 32);
  static constexpr float ln2 = 0x1.62e43p-3f;
  static constexpr int exp_terms = 3;
  static constexpr float exp_c[exp_terms] = {0x1.000008p-1f, 0x1.55755cp-3f, 0x1.5520p-5f};
  static constexpr float limit = 1 << 19;
  static constexpr double common = 1;  // no entry is wrong by more than 0.32 ULP, and where all bits are 0 it stays 0
};
template <> struct NearConstants<float, 4> : MathConstants<float> {
  static constexpr float log2e = 0x1.715476p+4f, magic = 0x1.8p+23f + 16 * (127 + 32);
  static constexpr float ln2 = 0x1.62e43p-5f;
  static constexpr int exp_terms = 2;
  static constexpr float exp_c[exp_terms] = {0x1.000262p-1f, 0x1.555656p-3f};
  static constexpr float lowest = -158 * MathConstants<float>::ln2;  // below, powers would be denormal
  static constexpr float limit = 1 << 17;
  // It falls out as the pivot itself does. With this one no entry of the table is wrong by more than 0.19 ULP, with 1
  // one is by 0.45 (tools/minimax.py).
  static constexpr double common = 0x1.084921d5e487dp+0;
};
// The bits of common * 2^(j/16), or 2^(j/4), less what j, at the end of n's bits, adds to them. A table for each
// instruction set, because it has a symbol.
template <class Isa, int bits = Isa::table_bits> struct PowerTable;
template <class Isa> struct PowerTable<Isa, 2> {
  alignas(16) static constexpr uint32_t entries[4] = {0, 0xfff837f0, 0xfff504f3, 0xfff744fd};
};
template <class Isa> struct PowerTable<Isa, 4> {
  alignas(64) static constexpr uint32_t entries[16] = {
      0x00042491, 0x0001fe49, 0x00001a50, 0xfffe7b96, 0xfffd252c, 0xfffc1a45, 0xfffb5e39, 0xfffaf486,
      0xfffae0d1, 0xfffb26e9, 0xfffbcac8, 0xfffcd094, 0xfffe3ca4, 0x0000137e, 0x000259dd, 0x000514b1};
};

template <class Isa> struct Math : Isa {
  using Value = typename Isa::Value;
  using Vec = typename Isa::Vec;
  using Mask = typename Isa::Mask;
  using Constants = MathConstants<Value>;
  using Near = NearConstants<Value, Isa::table_bits>;

  // v[q] = exp(v[q]) * scale.
  template <int K> static MLEFAST_FN void exp_scaled(Vec (&v)[K]) {
    exp_against<false>(Isa::constant(Constants::lowest), Isa::constant(Constants::magic), v);
  }

  // The same against other numbers than 0. `once`: log 2 is subtracted as one number; see Pivot for what lowest and
  // magic are then, and for the error. Where there is a table, all are multiplied by Near::common besides.
  template <bool once, int K> static MLEFAST_FN void exp_against(Vec lowest, Vec magic, Vec (&v)[K]) {
    exp_against<once>([=](int) { return lowest; }, [=](int) { return magic; }, v);
  }
  // And where lowest(q) and magic(q) are those of v[q].
  template <bool once, int K, class Lowest, class Magic>
  static MLEFAST_FN void exp_against(const Lowest& lowest, const Magic& magic, Vec (&v)[K]) {
    Vec power[K], p[K], lost[K];
    Mask kept[K];
    reduce<once>(lowest, magic, v, power, p, lost, kept);
    for (int q = 0; q < K; ++q)
      if constexpr (!fades<once>)
        v[q] = Isa::keep(kept[q], Isa::fma(p[q], v[q] * power[q], power[q]));
      else if constexpr (Isa::fuses)  // 2^n + 2^n v (1 + v p): 2^n v is exact, and is there before the polynomial
        v[q] = Isa::fma(p[q], v[q] * power[q], power[q]);
      else
        v[q] = mantissa(v[q], p[q], lost[q]) * power[q];
  }

  // In parts, which a sum fuses: exp(v[q]) * scale is v[q] * power[q] afterwards, to the same bits. (A table's powers
  // are rounded, and so would be their products.)
  template <bool once> static constexpr bool has_parts = !(once && Isa::table_bits > 0);
  // Whether the power is 0 where v is raised to `lowest`.
  template <bool once> static constexpr bool fades = !once || Near::common == 1;
  template <bool once, int K> static MLEFAST_FN void exp_parts(Vec lowest, Vec magic, Vec (&v)[K], Vec (&power)[K]) {
    exp_parts<once>([=](int) { return lowest; }, [=](int) { return magic; }, v, power);
  }
  template <bool once, int K, class Lowest, class Magic>
  static MLEFAST_FN void exp_parts(const Lowest& lowest, const Magic& magic, Vec (&v)[K], Vec (&power)[K]) {
    static_assert(has_parts<once>);
    Vec p[K], lost[K];
    Mask kept[K];
    reduce<once>(lowest, magic, v, power, p, lost, kept);
    for (int q = 0; q < K; ++q) v[q] = mantissa(v[q], p[q], lost[q]);
  }

  // v = n log 2 + r: afterwards v[q] is r, power[q] is 2^n * scale and exp(r) = 1 + r p. Unless powers fade, v is not
  // raised to `lowest`, and where it is below that, kept[q] is not set and the rest may be no number. K
  // vectors at once: their operations alternate, because the processor looks ahead by less than the length of two such
  // chains (measured: 6.1 ns a vector with K = 1, 3.9 with K = 4, 16 floats).
  template <bool once, int K, class Lowest, class Magic>
  static MLEFAST_FN void reduce(const Lowest& lowest, const Magic& magic, Vec (&v)[K], Vec (&power)[K], Vec (&p)[K],
                                Vec (&lost)[K], Mask (&kept)[K]) {
    static_assert(!once || Isa::fuses);
    using Of = std::conditional_t<once, Near, Constants>;
    Vec shifted[K];
    const Vec log2e = Isa::constant(Of::log2e);
    for (int q = 0; q < K; ++q)  // a NaN stays one
      if constexpr (fades<once>)
        v[q] = Isa::max(lowest(q), v[q]);
      else
        kept[q] = Isa::not_less(v[q], lowest(q));
    for (int q = 0; q < K; ++q) shifted[q] = Isa::fma(v[q], log2e, magic(q));
    for (int q = 0; q < K; ++q) power[q] = shifted[q] - magic(q);
    if constexpr (once) {
      const Vec minus_ln2 = Isa::constant(-Of::ln2);
      for (int q = 0; q < K; ++q) v[q] = Isa::fma(power[q], minus_ln2, v[q]);
    } else {
      const Vec minus_hi = Isa::constant(-Constants::ln2_hi);
      for (int q = 0; q < K; ++q) v[q] = Isa::fma(power[q], minus_hi, v[q]);  // exact
      if constexpr (!Isa::fuses)
        for (int q = 0; q < K; ++q) lost[q] = low_part(v[q], power[q] * Isa::set(Constants::ln2_lo));
      const Vec minus_lo = Isa::constant(-Constants::ln2_lo);
      for (int q = 0; q < K; ++q) v[q] = Isa::fma(power[q], minus_lo, v[q]);
    }
    constexpr int last = Of::exp_terms - 1;
    const Vec highest = Isa::constant(Of::exp_c[last]);
    for (int q = 0; q < K; ++q) p[q] = highest;
    add_terms<Of, last - 1>(v, p);
    if constexpr (Isa::fuses) {
      const Vec one = Isa::constant(1);
      for (int q = 0; q < K; ++q) p[q] = Isa::fma(p[q], v[q], one);
    }
    // For products, because exponents that are added would make numbers of some NaN.
    for (int q = 0; q < K; ++q)
      if constexpr (has_parts<once>)
        power[q] = Isa::power_of_two(shifted[q]);
      else
        power[q] = Isa::power_of_table(PowerTable<Isa>::entries, shifted[q]);
  }

  // exp(r) of what `reduce` leaves. Where products are not fused, p lacks its constant term: 1 + (r + (r^2 p + lost)),
  // so that the roundings that a fused operation would spare come in at their smallest.
  static MLEFAST_FN Vec mantissa(Vec r, Vec p, Vec lost) {
    const Vec one = Isa::constant(1);
    if constexpr (Isa::fuses) return Isa::fma(p, r, one);
    return one + (r + (p * (r * r) + lost));
  }

  // The rest of Horner's scheme. (A recursion and no loop, whose index would make a symbol of the coefficients where it
  // is not unrolled: each instruction set's file would define it.)
  template <class Of, int term, int K> static MLEFAST_FN void add_terms(const Vec (&v)[K], Vec (&p)[K]) {
    const Vec c = Isa::constant(Of::exp_c[term]);
    for (int q = 0; q < K; ++q) p[q] = Isa::fma(p[q], v[q], c);
    if constexpr (term > 0) add_terms<Of, term - 1>(v, p);
  }

  // What the rounding of high - low loses.
  static MLEFAST_FN Vec low_part(Vec high, Vec low) {
    const Vec difference = high - low;
    return (high - difference) - low;
  }

  static MLEFAST_FN Vec exp(Vec x) {
    Vec v[1] = {x};
    exp_scaled(v);
    return v[0] * Isa::set(Constants::unscale);
  }

  static MLEFAST_FN Vec log1p(Vec x) {
    Vec k;
    const Vec f = split_log1p(x, k);
    return Isa::fma(k, Isa::set(Constants::ln2_hi), log_of_split(k, f));
  }

  // a + log1p(x): a + k log 2 loses nothing.
  static MLEFAST_FN Vec add_log1p(Vec a, Vec x) {
    Vec k;
    const Vec f = split_log1p(x, k);
    const Vec high = k * Isa::set(Constants::ln2_hi), sum = a + high, of_high = sum - a;
    const Vec lost = (a - (sum - of_high)) + (high - of_high);
    return sum + (log_of_split(k, f) + Isa::keep(Isa::equal(lost, lost), lost));  // not where a is infinite
  }

  static MLEFAST_FN Vec log(Vec x) {
    const auto denormal = Isa::less(x, Isa::set(Constants::smallest));
    const Vec normal = Isa::select(denormal, x * Isa::set(Constants::scale), x);
    Vec k;
    const Vec shrink = Isa::split_exponent(normal, k);
    k = k - Isa::keep(denormal, Isa::set(Constants::log2_scale));
    const Vec f = Isa::fma(normal, shrink, Isa::set(-1));
    const Vec result = Isa::fma(k, Isa::set(Constants::ln2_hi), log_of_split(k, f)), zero = Isa::set(0);
    const Vec known = Isa::select(Isa::equal(x, zero), Isa::set(static_cast<Value>(-__builtin_inf())), result);
    return Isa::select(Isa::less(x, zero), Isa::set(static_cast<Value>(__builtin_nan(""))), known);
  }

 private:
  template <int term> static MLEFAST_FN Vec add_log_terms(Vec z, Vec r) {
    r = Isa::fma(r, z, Isa::set(Constants::log_c[term]));
    if constexpr (term > 0) return add_log_terms<term - 1>(z, r);
    return r;
  }

  // 1 + x = 2^k (1 + f) with 3/4 <= 1 + f < 3/2, so that k = 0 and f = x where the result is small. f is rounded once.
  static MLEFAST_FN Vec split_log1p(Vec x, Vec& k) {
    const Vec one = Isa::set(1);
    const Vec shrink = Isa::split_exponent(one + x, k);
    return Isa::fma(x, shrink, shrink - one);
  }

  // k log 2 + log(1 + f) but for k ln2_hi, a number without rounding
  static MLEFAST_FN Vec log_of_split(Vec k, Vec f) {
    const Vec half = Isa::set(Value(0.5));
    const Vec s = f / (Isa::set(2) + f), z = s * s;
    Vec r = Isa::set(Constants::log_c[Constants::log_terms - 1]);
    r = add_log_terms<Constants::log_terms - 2>(z, r);
    const Vec half_square = half * f * f;
    const Vec correction = Isa::fma(k, Isa::set(Constants::ln2_lo), s * Isa::fma(r, z, half_square));
    return f - (half_square - correction);
  }
};

}  // namespace mlefast
