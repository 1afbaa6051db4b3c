// What a row's exponentials are taken against: its maximum, or a number close to that.
//
// A near pivot is a multiple n log 2. With k = round(x / log 2), x - k log 2 is exact and small, and
// exp(x - n log 2) = 2^(k - n) exp(x - k log 2): two operations on a vector less than by way of x - max, and no
// rounding of that difference, which moves the exponential by up to half a unit for each 1 of it. log 2 as a single
// number is wrong by 2^-29 of itself (float), of which only (k - n) times counts, the rest being common to all of a
// row: with g the gap between the pivot and x,
//
// | type   | largest error of exp(x - pivot)                                           |
// |--------|---------------------------------------------------------------------------|
// | float  | 1.0 + 0.046 g ULP, from a table of 4 1.05 + 0.046 g, of 16 1.15 + 0.046 g |
// | double | 1.0 + 0.31 g ULP                                                          |
//
// Where products are not fused, and for maxima so large that n would not be exact, the pivot is the maximum itself.
#pragma once

#include "../rules/state.h"
#include "vectors.hpp"

namespace mlefast {

// Of one row. `Ops` are those of the vectors.
template <class Ops> class Pivot {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Constants = MathConstants<T>;
  using Double = Math<Scalar<double, Ops>>;
  using One = Math<Scalar<T, Ops>>;
  using Near = typename Ops::Near;
  static constexpr T infinity = static_cast<T>(__builtin_inf());

  T max, multiple = 0;
  bool near = Ops::fuses;

 public:
  static constexpr T limit = Near::limit;

  // Of a row that has nothing but -inf so far: any number would do for its exponentials.
  Pivot() : max(-infinity) {}
  // n is a multiple of 8, so that most rows have the pivot of the row before, and need not wait for their maxima.
  explicit Pivot(T row_max) : max(row_max) {
    if constexpr (Ops::fuses) {
      near = (max >= -limit && max <= limit) || max == -infinity;
      if (near && max > -infinity)
        multiple = ((max * (Constants::log2e / 8) + Constants::magic) - Constants::magic) * 8;
    }
  }
  bool is_near() const { return near; }

  // exp(maximum - pivot), with the error of a lane of vectors, so that a winner has no probability above 1.
  double top() const {
    if constexpr (Ops::fuses)
      if (near && max > -infinity) {
        T v[1] = {max};
        One::template exp_against<true>(lowest(), magic(), v);
        return double(v[0]) * Constants::unscale;
      }
    return 1;
  }

  // exp(from - this), for what was taken against `from`, of a maximum that is not larger. No pivot is rounded on the
  // way.
  double ratio(const Pivot& from) const {
    if (from.max == -infinity) return 0;
    if (near && from.near) return power_of_two(double(from.multiple) - double(multiple));
    if (near) return Double::exp(beyond(from.max)) * Near::common;
    const double unit = from.near ? Near::common : 1;
    return Double::exp(from.near ? -from.beyond(max) : double(from.max) - double(max)) / unit;
  }

  bool operator==(const Pivot& other) const {
    return near == other.near && (near ? multiple == other.multiple : max == other.max);
  }

  // As vectors: what is subtracted from logits beforehand, and exp_parts' numbers.
  struct Vectors {
    Vec shift, lowest, magic;
  };
  Vectors vectors() const {
    if (near) return {Ops::set(0), Ops::set(lowest()), Ops::set(magic())};
    return {Ops::set(max == -infinity ? 0 : max), Ops::set(Constants::lowest), Ops::set(Constants::magic)};
  }

 private:
  T lowest() const { return Near::lowest + multiple * Constants::ln2; }
  T magic() const { return Near::magic - multiple * (1 << Ops::table_bits); }
  double beyond(T x) const { return Double::fma(-double(multiple), double(Constants::ln2), double(x)); }  // x - pivot
  static double power_of_two(double n) {
    using Of = MathConstants<double>;
    return n < -1000 ? 0 : Double::power_of_two((Of::magic - Of::log2_scale) + n);
  }
};

// Of W vectors of rows, one in each lane, that are all near or none: what exp_parts wants, and exp(max - pivot) as it
// takes that, times `scale`.
template <class Ops, int W> struct LanePivots {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Constants = MathConstants<T>;
  using Near = typename Ops::Near;

  bool near;
  Vec max[W];  // 0 for rows of -inf, whose logits it does not equal, and for those that are NaN in the end
  Vec lowest[W], magic[W], top[W];  // if they are near

  // `wanted`: whether near pivots are worth their costs, which are the same for any number of classes.
  MLEFAST_FN LanePivots(const rules::State<Ops> (&rows)[W], bool wanted) : near(Ops::fuses && wanted) {
    const Vec zero = Ops::set(0), limit = Ops::set(Pivot<Ops>::limit);
    for (int w = 0; w < W; ++w) {
      max[w] = Ops::keep(Ops::equal(rows[w].max - rows[w].max, zero), rows[w].max);
      if (near) near = !Ops::any(Ops::not_less(Ops::max(zero - max[w], max[w]), limit));
    }
    if constexpr (Ops::fuses)
      if (near)
        for (int w = 0; w < W; ++w) {
          const Vec even = Ops::set(Constants::magic);
          const Vec multiple = (Ops::fma(max[w], Ops::set(Constants::log2e / 8), even) - even) * Ops::set(8);
          lowest[w] = Ops::fma(multiple, Ops::set(Constants::ln2), Ops::set(Near::lowest));
          magic[w] = Ops::fma(multiple, Ops::set(-(1 << Ops::table_bits)), Ops::set(Near::magic));
          Vec v[1] = {max[w]};
          Ops::template exp_against<true>(lowest[w], magic[w], v);
          top[w] = v[0];
        }
  }

  // Sums of exponentials as multiples of exp(max).
  template <bool is_near> MLEFAST_FN Vec sum_of(const Sum<Ops>& terms, int w) const {
    if constexpr (is_near)
      return terms.lanes_over(top[w]);
    else
      return terms.lanes(Constants::unscale);
  }
  template <bool is_near> MLEFAST_FN Vec sum_of(Vec terms, int w) const {
    return is_near ? terms / top[w] : terms * Ops::set(Constants::unscale);
  }
};

}  // namespace mlefast
