// What is asked of a softmax row: one struct per function, and the list of them that fills every table.
//
// A row of logits x has m = max x, others = (sum of exp(x_j - m)) - 1, total = 1 + others, p_j = exp(x_j - m) / total.
// `scale` is the factor of the row's gradient: class weight x upstream gradient / denominator.
//
// A struct states which inputs it reads, what it writes to the output array (`emit`) and the formulas of one row.
// These are the functions that are called most; a new loss goes into term_losses.h.
#pragma once

#include "state.h"

namespace mlefast::rules {

enum class Emit {
  nothing,          // no output array
  scaled_exp,       // factor() * exp(x_j - m) for every class, then at_target() for the target
  log_probability,  // (x_j - m) - log(total)
};

struct LogSumExp {
  static constexpr const char* name = "logsumexp";
  static constexpr Emit emit = Emit::nothing;
  static constexpr bool has_target = false, has_value = true;

  template <class Ops> static MLEFAST_FN typename Ops::Vec value(State<Ops> row, typename Ops::Vec) {
    return logsumexp(row);
  }
};

struct Softmax {
  static constexpr const char* name = "softmax";
  static constexpr Emit emit = Emit::scaled_exp;
  static constexpr bool has_target = false, has_value = false;

  template <class Ops> static MLEFAST_FN typename Ops::Vec factor(State<Ops> row, typename Ops::Vec scale) {
    return scale / row.total() + row.poison();
  }
};

struct LogSoftmax {
  static constexpr const char* name = "log_softmax";
  static constexpr Emit emit = Emit::log_probability;
  static constexpr bool has_target = false, has_value = false;

  // log(total); the entry of x_j is (x_j - m) - log_total, whose two terms never cancel: neither is positive.
  template <class Ops> static MLEFAST_FN typename Ops::Vec log_total(State<Ops> row) {
    return Ops::log1p(row.others) + row.poison();
  }
};

// loss = log(sum of exp(x)) - x_y, as (m - x_y) + log1p(others): lse itself is never rounded, so logits near 1e7 keep
// the loss's digits, and a confident row's loss is log1p(others) instead of the 0 that log(total) would round to.
struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr Emit emit = Emit::nothing;
  static constexpr bool has_target = true, has_value = true;

  template <class Ops> static MLEFAST_FN typename Ops::Vec value(State<Ops> row, typename Ops::Vec x_target) {
    return Ops::add_log1p(row.max - x_target, row.others) + row.poison();
  }
};

// d loss / d x_j = scale * (p_j - [j == y]).
struct CrossEntropyGrad : CrossEntropy {
  static constexpr const char* name = "cross_entropy_and_grad";
  static constexpr Emit emit = Emit::scaled_exp;

  template <class Ops> static MLEFAST_FN typename Ops::Vec factor(State<Ops> row, typename Ops::Vec scale) {
    return scale / row.total() + row.poison();
  }

  // p_y - 1 cancels where the target wins, and only there can p_y exceed 1/2: then it is -others / total.
  template <class Ops>
  static MLEFAST_FN typename Ops::Vec at_target(State<Ops> row, typename Ops::Vec x_target, typename Ops::Vec factor) {
    const auto wins = Ops::equal(row.max, x_target);
    const auto behind = Ops::select(wins, Ops::set(0), x_target - row.max);
    return factor * Ops::select(wins, Ops::set(0) - row.others, Ops::exp(behind) - row.total());
  }
};

template <class... T> struct List {
  static constexpr int size = sizeof...(T);
};

using Tasks = List<LogSumExp, Softmax, LogSoftmax, CrossEntropy, CrossEntropyGrad>;

}  // namespace mlefast::rules
