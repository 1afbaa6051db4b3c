// What a step of training does to single numbers: activations with their slopes, dropout, and the optimizers' rules.
//
// Written over an `Ops` like the losses. Besides what those need, `Ops` has fma, sqrt and, for the activations,
//   tanh(z, slope)          with its slope, in another argument
//   times_normal(z, slope)  z times the normal distribution function of z, the same
// To add an activation: a struct here, its name in `Activations` and in the tests that list what each must give.
#pragma once

#include "losses.h"

namespace mlefast::rules {

template <class Ops> struct Activated {
  typename Ops::Vec value, slope;
};

struct Identity {
  static constexpr const char* name = "identity";
  template <class Ops> static MLEFAST_FN Activated<Ops> apply(typename Ops::Vec z) { return {z, Ops::set(1)}; }
};

// The slope at 0 is 0.
struct Relu {
  static constexpr const char* name = "relu";
  template <class Ops> static MLEFAST_FN Activated<Ops> apply(typename Ops::Vec z) {
    const auto zero = Ops::set(0);
    return {Ops::select(Ops::less(z, zero), zero, z), Ops::keep(Ops::less(zero, z), Ops::set(1))};
  }
};

struct Tanh {
  static constexpr const char* name = "tanh";
  template <class Ops> static MLEFAST_FN Activated<Ops> apply(typename Ops::Vec z) {
    Activated<Ops> result;
    result.value = Ops::tanh(z, result.slope);
    return result;
  }
};

// z Phi(z) with the normal distribution function itself: D. Hendrycks, K. Gimpel, 2016, arXiv:1606.08415.
struct Gelu {
  static constexpr const char* name = "gelu";
  template <class Ops> static MLEFAST_FN Activated<Ops> apply(typename Ops::Vec z) {
    Activated<Ops> result;
    result.value = Ops::times_normal(z, result.slope);
    return result;
  }
};

using Activations = List<Identity, Relu, Tanh, Gelu>;

// What dropout multiplies a unit by: 0 with probability `rate`, else `scale` = 1 / (1 - rate).
template <class Ops>
MLEFAST_FN typename Ops::Vec dropout(typename Ops::Vec uniform, typename Ops::Vec rate, typename Ops::Vec scale) {
  return Ops::keep(Ops::not_less(uniform, rate), scale);
}

// ---- optimizers: the parameters p of an objective with the gradient g, of which the penalty's part is added here

// What is below the smallest normal number becomes 0: moments that decay would otherwise stay denormal numbers forever
// (0.9 d rounds to d), and every operation on those costs more than the whole step.
template <class Ops> MLEFAST_FN typename Ops::Vec without_denormals(typename Ops::Vec v) {
  const auto smallest =
      Ops::set(static_cast<typename Ops::Value>(sizeof(typename Ops::Value) == 4 ? 0x1p-126 : 0x1p-1022));
  return Ops::keep(Ops::not_less(Ops::max(v, Ops::set(0) - v), smallest), v);
}

// The proximal step of threshold |p|: p moves towards 0 by the threshold, and no further.
template <class Ops> MLEFAST_FN typename Ops::Vec shrunk(typename Ops::Vec p, typename Ops::Vec threshold) {
  return p - Ops::max(Ops::min(p, threshold), Ops::set(0) - threshold);
}

// v <- mu v - rate g, p <- p + v; with Nesterov's momentum p <- p + mu v - rate g (I. Sutskever et al., ICML 2013).
template <class T> struct Momentum {
  T rate, momentum;
  T l2;         // times p is part of the gradient
  T threshold;  // of `shrunk`: where g = -l1 sign(p), a step has come to be rate l1 / (1 - mu)
  bool nesterov;

  template <class Ops>
  MLEFAST_FN void step(typename Ops::Vec& p, typename Ops::Vec gradient, typename Ops::Vec& velocity) const {
    const auto mu = Ops::set(momentum);
    if (l2 != 0) gradient = Ops::fma(Ops::set(l2), p, gradient);
    const auto move = Ops::set(rate) * gradient;
    velocity = without_denormals<Ops>(mu * velocity - move);
    p = p + (nesterov ? mu * velocity - move : velocity);
    if (threshold > 0) p = shrunk<Ops>(p, Ops::set(threshold));
  }
};

// Adam (D. P. Kingma, J. Ba, ICLR 2015) with decoupled decay (I. Loshchilov, F. Hutter, ICLR 2019):
// p <- decay p - rate mean / (root sqrt(square) + epsilon).
template <class T> struct AdaptiveMoments {
  T rate;                      // the learning rate / (1 - beta_1^t)
  T mean_share, square_share;  // 1 - beta: the moments move towards g and g^2 by this share of the way
  T root;                      // 1 / sqrt(1 - beta_2^t)
  T epsilon;
  T decay;      // 1 - learning rate x weight decay
  T l2;         // times p is part of the gradient
  T threshold;  // over the denominator, of `shrunk`: the learning rate x l1

  template <class Ops>
  MLEFAST_FN void step(typename Ops::Vec& p, typename Ops::Vec gradient, typename Ops::Vec& mean,
                       typename Ops::Vec& square) const {
    if (l2 != 0) gradient = Ops::fma(Ops::set(l2), p, gradient);
    mean = without_denormals<Ops>(Ops::fma(Ops::set(mean_share), gradient - mean, mean));
    square = without_denormals<Ops>(Ops::fma(Ops::set(square_share), gradient * gradient - square, square));
    const auto size = Ops::fma(Ops::set(root), Ops::sqrt(square), Ops::set(epsilon));
    p = Ops::set(decay) * p - Ops::set(rate) * mean / size;
    if (threshold > 0) p = shrunk<Ops>(p, Ops::set(threshold) / size);
  }
};

}  // namespace mlefast::rules
