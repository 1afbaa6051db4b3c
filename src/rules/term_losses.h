// The losses that are sums of terms: a struct for each, and the list of them that fills every table.
//
// A kernel passes over a row up to four times, and asks a loss in each for what it wants of an element:
//
//   its maximum                  (softmax) and its exponentials, of which it knows the sum
//   terms(at, sum)               `sums` terms, and `weighted` more that are multiples of e
//   settle(row, options)         what follows from them
//   later_terms(at, row, later)  `later` terms that need the probabilities
//   finish(row, options)         what follows from these
//   emit(at, row, out)           `outputs` numbers for each element: the gradient, and what else there may be
//
// `values` numbers are returned for each row; of an `elementwise` loss, one for each element: loss(at).
// To add a loss: a struct here, its name in `Losses`, a row in python/mlefast/_table.py, a reference in the tests.
#pragma once

#include "losses.h"
#include "terms.h"

namespace mlefast::rules {

struct Loss {
  static constexpr bool softmax = true, elementwise = false;
  static constexpr bool needs_gap = false;    // in the passes after the first, for which p is enough else
  static constexpr bool weighs_rows = false;  // the class weight of the target index multiplies the whole row
  static constexpr int sums = 0, weighted = 0, later = 0, values = 1, outputs = 1;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>&, typename Ops::Vec*) {}
  template <class Ops> static MLEFAST_FN void settle(Row<Ops>&, const Options&) {}
  template <class Ops> static MLEFAST_FN void later_terms(const Element<Ops>&, const Row<Ops>&, typename Ops::Vec*) {}
  template <class Ops> static MLEFAST_FN void finish(Row<Ops>&, const Options&) {}
};

// sum of mass_j (lse - z_j) + z_loss lse^2: every option of cross_entropy.
struct FullCrossEntropy : Loss {
  static constexpr const char* name = "cross_entropy";
  static constexpr int sums = 2, values = 2;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = at.mass;
    sum[1] = times<Ops>(at.mass, at.gap);
  }

  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options& options) {
    const auto z = Ops::set(static_cast<typename Ops::Value>(options.z_loss));
    const auto lse = row.lse();
    row.value[0] = row.sum[1] + row.sum[0] * row.log_total + times<Ops>(z, lse * lse);
    row.value[1] = lse;
    row.factor[0] = row.sum[0] + times<Ops>(z, lse + lse);
    row.factor[1] = row.beside();
  }

  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = difference(at, row.factor[0], at.mass, row.factor[1]) * (row.scale[0] * at.slope);
  }
};

// -(1 - p_y)^gamma log p_y: T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv:1708.02002.
struct FocalLoss : Loss {
  static constexpr const char* name = "focal_loss";
  static constexpr bool weighs_rows = true;
  static constexpr int sums = 1;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = times<Ops>(at.mass, at.gap);
  }

  // d loss / d z_j = ((1 - p_y)^gamma + gamma (1 - p_y)^(gamma - 1) p_y (-log p_y)) (p_j - [j == y])
  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options& options) {
    const auto zero = Ops::set(0), one = Ops::set(1);
    const auto gamma = Ops::set(static_cast<typename Ops::Value>(options.gamma));
    const auto nll = row.sum[0] + row.log_total, p = Ops::exp(zero - nll);
    row.factor[1] = row.beside();
    const auto rest = Ops::select(Ops::equal(row.sum[0], zero), row.factor[1], one - p);
    const auto power = Ops::exp(times<Ops>(gamma, Ops::log(rest)));
    const auto nll_by_rest = Ops::select(Ops::less(zero, rest), nll / rest, one);
    row.value[0] = times<Ops>(power, nll);
    row.factor[0] = power + times<Ops>(gamma * power * p, nll_by_rest);
  }

  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = difference(at, Ops::set(1), at.mass, row.factor[1]) * (row.factor[0] * row.scale[0]);
  }
};

// KL(t || p) = sum of t_j log(t_j / p_j).
struct KlDivergence : Loss {
  static constexpr const char* name = "kl_div";
  static constexpr bool needs_gap = true;
  static constexpr int sums = 1, later = 1;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = at.target;
  }
  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options&) { row.factor[1] = row.beside(); }

  // Where p is close to t, by their difference; where it is nothing beside t, by its logarithm.
  template <class Ops>
  static MLEFAST_FN void later_terms(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* later) {
    const auto t = not_negative<Ops>(at.target);
    const auto apart = Ops::select(at.wins, (t - Ops::set(1)) + row.factor[1], t - at.p);
    const auto far = Ops::less(at.p * Ops::set(0x1p60f), t);
    auto log = log_ratio<Ops>(t, at.p, apart);
    if (Ops::any(far)) log = Ops::select(far, Ops::log(t) + (at.gap + row.log_total), log);
    later[0] = times<Ops>(t, log);
  }
  template <class Ops> static MLEFAST_FN void finish(Row<Ops>& row, const Options&) { row.value[0] = row.later[0]; }

  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = difference(at, row.sum[0], at.target, row.factor[1]) * row.scale[0];
  }
};

// JS(t, p) = (KL(t || (t + p) / 2) + KL(p || (t + p) / 2)) / 2.
struct JsDivergence : Loss {
  static constexpr const char* name = "js_div";
  static constexpr int later = 2;

  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options&) { row.factor[1] = row.beside(); }

  template <class Ops> struct Pair {
    typename Ops::Vec sum, larger, smaller, apart;
    typename Ops::Mask p_smaller;
  };
  template <class Ops> static MLEFAST_FN Pair<Ops> pair(const Element<Ops>& at, const Row<Ops>& row) {
    const auto t = not_negative<Ops>(at.target);
    const auto apart = Ops::select(at.wins, (t - Ops::set(1)) + row.factor[1], t - at.p);
    return {t + at.p, Ops::max(t, at.p), Ops::min(t, at.p), absolute<Ops>(apart), Ops::less(Ops::set(0), apart)};
  }

  // log(2 p / (t + p)) / 2
  template <class Ops> static MLEFAST_FN typename Ops::Vec half_log(const Pair<Ops>& of) {
    const auto ratio = Ops::select(of.p_smaller, of.apart / (of.smaller + of.smaller), of.apart / of.sum);
    const auto log = Ops::log1p(Ops::min(ratio, huge<Ops>())) * Ops::set(0.5f);
    return Ops::select(of.p_smaller, Ops::set(0) - log, log);
  }

  // With s = t + p, r = |t - p| / s, a = |t - p| / min, b = |t - p| / max, an element's share of twice the divergence
  // is s/2 (r log(1 + a) - log(1 + a b / 4)), which does not cancel where t and p are close.
  template <class Ops>
  static MLEFAST_FN void later_terms(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* later) {
    const auto of = pair(at, row);
    const auto a = of.apart / of.smaller, b = of.apart / of.larger, r = of.apart / of.sum;
    const auto near =
        r * Ops::log1p(Ops::min(a, huge<Ops>())) - Ops::log1p(Ops::min(a * b * Ops::set(0.25f), huge<Ops>()));
    const auto far = Ops::less(Ops::set(0x1p60f), a);  // near is then 2 log 2
    const auto two_log_2 = Ops::set(static_cast<typename Ops::Value>(1.3862943611198906));
    later[0] = times<Ops>(of.sum * Ops::set(0.25f), Ops::select(far, two_log_2, near));
    later[1] = times<Ops>(at.p, half_log(of));
  }
  template <class Ops> static MLEFAST_FN void finish(Row<Ops>& row, const Options&) { row.value[0] = row.later[0]; }

  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = times<Ops>(at.p, half_log(pair(at, row)) - row.later[1]) * row.scale[0];
  }
};

// log p_y, and the entropy of p.
struct LogProbability : Loss {
  static constexpr const char* name = "log_prob";
  static constexpr bool needs_gap = true;
  static constexpr int sums = 1, weighted = 1, values = 2;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = times<Ops>(at.mass, at.gap);
    sum[1] = times<Ops>(at.e, at.gap);
  }

  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options&) {
    row.factor[0] = row.sum[1] / row.total;  // the mean gap
    row.factor[1] = row.beside();
    row.value[0] = Ops::set(0) - (row.sum[0] + row.log_total);
    row.value[1] = row.log_total + row.factor[0];
  }

  // d log p_y / d z_j = [j == y] - p_j;  d H / d z_j = p_j (gap_j - mean gap)
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = times<Ops>(at.p, at.gap - row.factor[0]) * row.scale[1] -
             difference(at, Ops::set(1), at.mass, row.factor[1]) * row.scale[0];
  }
};

// The Hessian of FullCrossEntropy times a vector v: with w = slope v, a row's mean of w under p, A = sum of mass + 2 z
// lse and the gradient g in z: slope (A p (w - mean) + 2 z p mean) + bend g v.
struct HessianProduct : Loss {
  static constexpr const char* name = "cross_entropy_hvp";
  static constexpr int sums = 1, weighted = 1, later = 1, values = 0;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = at.mass;
    sum[1] = times<Ops>(at.e, at.slope * at.v);
  }

  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options& options) {
    const auto z = Ops::set(static_cast<typename Ops::Value>(options.z_loss)), lse = row.lse();
    row.factor[0] = row.sum[0] + times<Ops>(z, lse + lse);
    row.factor[1] = row.beside();
    row.factor[2] = row.sum[1] / row.total;
  }

  // What rounding the mean has lost: it is all that remains of the product where one class is nearly certain.
  template <class Ops>
  static MLEFAST_FN void later_terms(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* later) {
    later[0] = times<Ops>(at.p, at.slope * at.v - row.factor[2]);
  }
  template <class Ops> static MLEFAST_FN void finish(Row<Ops>& row, const Options& options) {
    const auto z = Ops::set(static_cast<typename Ops::Value>(options.z_loss));
    row.sum[1] = times<Ops>(z + z, row.factor[2] + row.later[0]);
  }

  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    const auto centred = (at.slope * at.v - row.factor[2]) - row.later[0];
    const auto product = at.slope * times<Ops>(at.p, row.factor[0] * centred + row.sum[1]);
    const auto bent = times<Ops>(at.bend, difference(at, row.factor[0], at.mass, row.factor[1]) * at.v);
    out[0] = (product + bent) * row.scale[0];
  }
};

// The gradient of each row and the diagonal of its Hessian, sum of mass x p (1 - p).
struct GradientAndHessian : Loss {
  static constexpr const char* name = "cross_entropy_grad_hess";
  static constexpr int sums = 1, values = 0, outputs = 2;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = at.mass;
  }
  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options& options) {
    using Value = typename Ops::Value;
    row.factor[0] = row.sum[0] * Ops::set(static_cast<Value>(options.hessian)) * row.scale[0];
    row.factor[1] = row.beside();
    row.factor[2] = Ops::set(static_cast<Value>(options.floor));
  }
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = difference(at, row.sum[0], at.mass, row.factor[1]) * row.scale[0];
    const auto others = Ops::select(at.wins, row.factor[1], Ops::set(1) - at.p);
    const auto hessian = row.factor[0] * at.p * others;
    out[1] = Ops::select(Ops::less(hessian, row.factor[2]), row.factor[2], hessian);
  }
};

// ---- without a softmax

// The vector-Jacobian product of y = softmax(x), given y (as x) and v: y (v - sum of y v).
struct SoftmaxProduct : Loss {
  static constexpr const char* name = "softmax_vjp";
  static constexpr bool softmax = false;
  static constexpr int sums = 1, values = 0;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = times<Ops>(at.x, at.v);
  }
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = times<Ops>(at.x, at.v - row.sum[0]);
  }
};

// The same of y = log_softmax(x), given y: v - exp(y) sum of v.
struct LogSoftmaxProduct : Loss {
  static constexpr const char* name = "log_softmax_vjp";
  static constexpr bool softmax = false;
  static constexpr int sums = 1, values = 0;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) { sum[0] = at.v; }
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = at.v - Ops::exp(at.x) * row.sum[0];
  }
};

// -sum of x log x, of probabilities x.
struct Entropy : Loss {
  static constexpr const char* name = "entropy";
  static constexpr bool softmax = false;
  static constexpr int sums = 1;

  template <class Ops> static MLEFAST_FN void terms(const Element<Ops>& at, typename Ops::Vec* sum) {
    sum[0] = Ops::set(0) - times<Ops>(at.x, Ops::log(at.x));
  }
  template <class Ops> static MLEFAST_FN void settle(Row<Ops>& row, const Options&) { row.value[0] = row.sum[0]; }
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    out[0] = (Ops::set(0) - (Ops::log(at.x) + Ops::set(1))) * row.scale[0];
  }
};

// weight (positive t softplus(-x) + (1 - t) softplus(x)), softplus(x) = log(1 + exp(x)): nothing cancels for t in [0,
// 1].
struct BinaryCrossEntropy : Loss {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr bool softmax = false, elementwise = true;

  template <class Ops> static MLEFAST_FN typename Ops::Vec loss(const Element<Ops>& at) {
    const auto zero = Ops::set(0), minus = zero - at.x, size = Ops::max(at.x, minus);
    const auto log = Ops::log1p(Ops::exp(zero - size));
    const auto above = times<Ops>(at.target * at.positive, Ops::max(minus, zero) + log);
    const auto below = times<Ops>(Ops::set(1) - at.target, Ops::max(at.x, zero) + log);
    return times<Ops>(at.weight * at.u, above + below);
  }
  template <class Ops>
  static MLEFAST_FN void emit(const Element<Ops>& at, const Row<Ops>& row, typename Ops::Vec* out) {
    const auto zero = Ops::set(0), one = Ops::set(1);
    const auto e = Ops::exp(zero - absolute<Ops>(at.x)), larger = one / (one + e), smaller = e * larger;
    const auto negative = Ops::less(at.x, zero);
    const auto p = Ops::select(negative, smaller, larger), rest = Ops::select(negative, larger, smaller);
    const auto gradient = (one - at.target) * p - at.target * at.positive * rest;
    out[0] = times<Ops>(at.weight * at.u, gradient) * (row.scale[0] * at.v);
  }
};

using Losses = List<FullCrossEntropy, FocalLoss, KlDivergence, JsDivergence, LogProbability, HessianProduct,
                    GradientAndHessian, SoftmaxProduct, LogSoftmaxProduct, Entropy, BinaryCrossEntropy>;

}  // namespace mlefast::rules
