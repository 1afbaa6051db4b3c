// One lane at a time: the instruction set of last resort, and the plainest statement of what every other one must do.
//
// The contract of an instruction set `Isa<T>` (T = float, double); lanes, Vec, Mask and, besides Vec's + - * /:
//   set, load, store          load/store take any address; with a count n <= lanes they touch n elements only;
//                             those of float take Float16 and BFloat16 as well, and round to the nearest, ties to even
//   streams, stream           whether stream(p, v) differs from store(p, v): it neither reads what is at p into a
//                             cache nor leaves v there; p can be divided by the size of what is stored
//   fuses, fma                whether a * b + c is rounded once
//   sqrt                      rounded to the nearest
//   constant                  set(x), read from memory once for all its uses that follow: where registers are few,
//                             compilers leave none to constants and read them again with every use
//   max, min                  of a NaN and a number: either, but max(number, NaN) is NaN; sums carry NaN, not these
//   less, equal               false where either is NaN
//   not_less, unlike          !(a < b) and !(a == b): true where either is NaN
//   any, both, either, select both is and, either is or
//   keep                      keep(mask, v) is v where mask is set, else +0
//   add_where, add_unless     add_where(mask, a, b) is a + b where mask is set, else a; add_unless where it is not set
//   fma_where                 fma_where(mask, a, b, c) is fma(a, b, c) where mask is set, else c
//   count, counted            count(mask, n): one more where mask is set, from n = set(0), in lanes of any format that
//                             counted(n) makes numbers of
//   power_of_two              the float whose exponent's bits are the lowest bits of v, its other bits being 0
//   table_bits                how many of v's lowest bits power_of_table looks up; 0: it has no such function
//   power_of_table            the float whose bits are the sum of the entry that v's lowest bits choose and of
//                             v's own, moved so that the lowest become the mantissa's first
//   split_exponent            see log1p in math.hpp
//   round_to_denormal         the float whose bits are the integer nearest to v, for 0 <= v <= 2^mantissa_bits
//   reduce_max, reduce_add    across the lanes, in a fixed order
//   Double, widen, narrow     float only: a Vec as two vectors of doubles, and back
//   columns                   how many elements of a row are transposed at a time: 16 bytes of T, if there are lanes
//   load_columns(p, row, v)   v[c] = element c of each lane's row, rows lying `row` elements apart; of halves, too
//   store_columns(p, row, v)  the reverse, row after row
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../rules/qualifier.h"
#include "../storage.hpp"

namespace mlefast {

template <class T> struct Bits;
template <> struct Bits<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23;
};
template <> struct Bits<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52;
};

// Of `Host`'s vectors: whether they fuse products and sums, and their tables.
template <class Host> struct HostOf {
  static constexpr bool fuses = Host::fuses;
  template <class T> static constexpr int table_bits = sizeof(T) == sizeof(typename Host::Value) ? Host::table_bits : 0;
};
template <> struct HostOf<void> {
  static constexpr bool fuses = false;
  template <class T> static constexpr int table_bits = 0;
};

// `Host` tells apart the scalar code of files that are compiled for different processors: without it the linker would
// keep one of the copies for all of them, perhaps the one that a processor cannot run.
template <class T, class Host = void> struct Scalar {
  using Value = T;
  using Double = Scalar<double, Host>;
  using Vec = T;
  using Mask = bool;
  using Int = typename Bits<T>::Int;
  static constexpr int lanes = 1, columns = 1;
  static constexpr bool fuses = HostOf<Host>::fuses, streams = false;
  static constexpr int table_bits = HostOf<Host>::template table_bits<T>;

  static MLEFAST_FN Vec set(T x) { return x; }
  static MLEFAST_FN Vec constant(T x) { return x; }
  template <class S> static MLEFAST_FN Vec load(const S* p) { return to_value(*p); }
  template <class S> static MLEFAST_FN Vec load(const S* p, int64_t n, T fill) { return n > 0 ? to_value(*p) : fill; }
  template <class S> static MLEFAST_FN void store(S* p, Vec v) { *p = from_value<S>(v); }
  template <class S> static MLEFAST_FN void stream(S* p, Vec v) { store(p, v); }
  template <class S> static MLEFAST_FN void store(S* p, Vec v, int64_t n) {
    if (n > 0) store(p, v);
  }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) {
    if constexpr (!fuses)
      return a * b + c;
    else if constexpr (sizeof(T) == 4)
      return __builtin_fmaf(a, b, c);
    else
      return __builtin_fma(a, b, c);
  }
  static MLEFAST_FN Vec sqrt(Vec v) {
    if constexpr (sizeof(T) == 4)
      return __builtin_sqrtf(v);
    else
      return __builtin_sqrt(v);
  }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return a > b ? a : b; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return a < b ? a : b; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return a < b; }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return !(a < b); }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return a == b; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return !(a == b); }
  static MLEFAST_FN bool any(Mask m) { return m; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return m ? yes : no; }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return a && b; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return a || b; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return m ? v : T(0); }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return m ? fma(a, b, c) : c; }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return m ? a + b : a; }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) { return m ? a : a + b; }
  static MLEFAST_FN Vec count(Mask m, Vec n) { return m ? n + 1 : n; }
  static MLEFAST_FN Vec counted(Vec n) { return n; }

  static MLEFAST_FN Int to_bits(T x) {
    Int i;
    std::memcpy(&i, &x, sizeof i);
    return i;
  }
  static MLEFAST_FN T from_bits(Int i) {
    T x;
    std::memcpy(&x, &i, sizeof x);
    return x;
  }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    using Unsigned = std::make_unsigned_t<Int>;
    return from_bits(static_cast<Int>(static_cast<Unsigned>(to_bits(v)) << Bits<T>::mantissa));
  }
  template <class Entry> static MLEFAST_FN Vec power_of_table(const Entry (&table)[1 << table_bits], Vec v) {
    const auto bits = static_cast<Entry>(to_bits(v));
    const Entry entry = table[bits % (1 << table_bits)];
    return from_bits(static_cast<Int>(entry + (bits << (Bits<T>::mantissa - table_bits))));
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    const Int k = (to_bits(u) - to_bits(T(0.75))) >> Bits<T>::mantissa;
    exponent = static_cast<T>(k);
    return from_bits(to_bits(T(1)) - k * (Int(1) << Bits<T>::mantissa));
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) {
    const T one_ulp_apart = static_cast<T>(Int(1) << Bits<T>::mantissa);
    return from_bits(to_bits(v + one_ulp_apart) - to_bits(one_ulp_apart));
  }

  static MLEFAST_FN T reduce_max(Vec v) { return v; }
  static MLEFAST_FN T reduce_add(Vec v) { return v; }
  static MLEFAST_FN void widen(Vec v, double (&wide)[2]) { wide[0] = v, wide[1] = 0; }
  static MLEFAST_FN Vec narrow(const double (&wide)[2]) { return static_cast<T>(wide[0]); }
  template <class S> static MLEFAST_FN void load_columns(const S* p, int64_t, Vec (&v)[1]) { v[0] = load(p); }
  template <class S> static MLEFAST_FN void store_columns(S* p, int64_t, Vec (&v)[1]) { store(p, v[0]); }
};

}  // namespace mlefast
