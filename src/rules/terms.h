// What the losses of terms.cuh and term_kernel.hpp are made of: a row's elements, what is summed up over them, and the
// formulas that several losses share. See term_losses.h for the losses.
//
// The logits x of a row become z = cap(x) / temperature, with cap(x) = softcap * tanh(x / softcap) or x. With
// m = max z: gap_j = m - z_j, e_j = exp(-gap_j), others = (sum of e_j) - 1, p_j = e_j / (1 + others).
#pragma once

#include "state.h"

namespace mlefast::rules {

// The options of a call. What a loss does not know, it does not look at.
struct Options {
  double keep = 1, spread = 0;     // label smoothing: a target t becomes keep * t + spread, in every class
  double z_loss = 0;               // of lse^2
  double softcap = 0;              // 0: none
  double inverse_temperature = 1;  //
  double gamma = 0;                // focal loss
  double hessian = 1, floor = 0;   // the diagonal of the Hessian is multiplied by the one, and at least the other
};

template <class Ops> struct Element {
  using Vec = typename Ops::Vec;

  Vec x;       // the logit, or what a task without a softmax is given in its place
  Vec gap, e;  // see above; e comes multiplied by Ops::unit
  Vec p;       // once the row's total is known: its probability
  Vec target;  // the probability that the target gives it; 0 without probability targets
  Vec mass;    // what the loss puts on it: the smoothed target, or 1 at the target index, times the class weight
  Vec v, u;    // further inputs
  Vec weight, positive;     // factors of its class, 1 without
  Vec slope, bend;          // dz/dx and d2z/dx2
  typename Ops::Mask wins;  // x is the row's largest
};

template <class Ops> struct Row {
  using Vec = typename Ops::Vec;

  State<Ops> state;  // of z
  Vec total, log_total;
  Vec sum[2];     // of the task's terms, in its order
  Vec later[2];   // of the terms that need p
  Vec scale[2];   // factors of the gradient: upstream gradient / denominator, for each of two values
  Vec value[2];   // what is made of it: the row's loss and, if the task has one, another value;
  Vec factor[3];  // and what the gradient needs of it

  MLEFAST_FN Vec lse() const { return state.max + log_total; }
  MLEFAST_FN Vec beside() const { return state.others / total; }  // 1 - p of the winner, which does not cancel
};

// ---- formulas

// m * q - a for a class with the probability q: m = sum of a. Where it wins, q is 1 - others / total.
template <class Ops>
MLEFAST_FN typename Ops::Vec difference(const Element<Ops>& at, typename Ops::Vec m, typename Ops::Vec a,
                                        typename Ops::Vec beside) {
  return Ops::select(at.wins, (m - a) - m * beside, m * at.p - a);
}

// a * b, and 0 where a is 0, whatever b is: 0 log 0 = 0, and a masked class costs nothing that has no target.
template <class Ops> MLEFAST_FN typename Ops::Vec times(typename Ops::Vec a, typename Ops::Vec b) {
  return Ops::keep(Ops::unlike(a, Ops::set(0)), a * b);
}

template <class Ops> MLEFAST_FN typename Ops::Vec absolute(typename Ops::Vec x) { return Ops::max(x, Ops::set(0) - x); }

// The largest number that log1p takes.
template <class Ops> MLEFAST_FN typename Ops::Vec huge() {
  return Ops::set(static_cast<typename Ops::Value>(sizeof(typename Ops::Value) == 4 ? 0x1p120 : 0x1p1000));
}

// NaN in place of what is negative, for logarithms that are not taken of x itself.
template <class Ops> MLEFAST_FN typename Ops::Vec not_negative(typename Ops::Vec x) {
  const auto zero = Ops::set(0);
  return Ops::select(Ops::less(x, zero), zero / zero, x);
}

// log(a / b) for a, b > 0 with the difference a - b, which decides where both are close.
template <class Ops>
MLEFAST_FN typename Ops::Vec log_ratio(typename Ops::Vec a, typename Ops::Vec b, typename Ops::Vec difference) {
  const auto zero = Ops::set(0);
  const auto less = Ops::less(difference, zero);
  const auto size = Ops::select(less, zero - difference, difference) / Ops::select(less, a, b);
  const auto log = Ops::log1p(Ops::min(size, huge<Ops>()));
  return Ops::select(less, zero - log, log);
}

// softcap * tanh(x / softcap), its derivative and its second derivative.
template <class Ops> struct Capped {
  typename Ops::Vec value, slope, bend;
};

template <class Ops> MLEFAST_FN Capped<Ops> cap(typename Ops::Vec x, double softcap) {
  using Value = typename Ops::Value;
  const auto zero = Ops::set(0), one = Ops::set(1), two = Ops::set(2);
  const auto s = Ops::set(static_cast<Value>(softcap));
  const auto a = x / s, size = absolute<Ops>(a), square = a * a;
  const auto e = Ops::exp(zero - (size + size));
  const auto far = (one - e) / (one + e);
  // Lambert's continued fraction a / (1 + a^2 / (3 + a^2 / (5 + ...))): all terms positive, one division.
  constexpr int terms = sizeof(Value) == 4 ? 5 : 9;
  auto upper = Ops::set(static_cast<Value>(2 * terms + 1)), lower = one;
  for (int k = terms; k > 0; --k) {
    const auto next = Ops::set(static_cast<Value>(2 * k - 1)) * upper + square * lower;
    lower = upper, upper = next;
  }
  const auto near = size * (lower / upper);
  const auto tanh = Ops::select(Ops::less(size, Ops::set(static_cast<Value>(0.55))), near, far);
  const auto signed_tanh = Ops::select(Ops::less(a, zero), zero - tanh, tanh);
  const auto slope = two * two * e / ((one + e) * (one + e));
  return {s * signed_tanh, slope, zero - two * signed_tanh * slope / s};
}

}  // namespace mlefast::rules
