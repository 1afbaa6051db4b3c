// What is known of a softmax row, or of any part of one, and how two parts are merged.
//
// A part is summed up by its maximum and by the sum of exp(x - maximum) over all its elements *but one* that attains
// the maximum. Leaving that one out keeps every digit of a confident row: its total is 1 + others, and log(1 + others)
// and others / (1 + others) stay exact where log(total) and 1 - 1 / total would round to zero.
//
// The rules are written over an `Ops` policy: on the CPU a vector (a row per lane) or a scalar, on a GPU a thread.
// Ops gives: Vec, Mask, set(number), exp (arguments <= 0), log1p, add_log1p(a, x) = a + log1p(x), log, equal, unlike,
// less, any, keep, select(mask, yes, no), max, min, and the arithmetic operators of Vec.
#pragma once

#include "qualifier.h"

namespace mlefast::rules {

template <class Ops> struct State {
  using Vec = typename Ops::Vec;

  Vec max;     // -inf for a part that is empty or wholly masked
  Vec others;  // >= 0; NaN if the part holds a NaN

  MLEFAST_FN Vec total() const { return Ops::set(1) + others; }

  // 0 for an ordinary row, NaN for one whose maximum is infinite: what has no softmax must not look as if it had.
  MLEFAST_FN Vec poison() const { return max - max; }
};

// exp(from - to) for from <= to; 1 where both are equal, so that (-inf) - (-inf) is not NaN.
template <class Ops> MLEFAST_FN typename Ops::Vec rescale(typename Ops::Vec from, typename Ops::Vec to) {
  return Ops::select(Ops::equal(from, to), Ops::set(1), Ops::exp(from - to));
}

// Two parts of one row become one. The loser's own maximum, left out of its sum so far, now counts among the others.
template <class Ops> MLEFAST_FN State<Ops> merge(State<Ops> a, State<Ops> b) {
  const auto max = Ops::max(a.max, b.max);
  const auto to_a = rescale<Ops>(a.max, max);
  const auto to_b = rescale<Ops>(b.max, max);
  return {max, a.others * to_a + b.others * to_b + Ops::min(to_a, to_b)};
}

template <class Ops> MLEFAST_FN typename Ops::Vec logsumexp(State<Ops> row) {
  return Ops::add_log1p(row.max, row.others);
}

}  // namespace mlefast::rules
