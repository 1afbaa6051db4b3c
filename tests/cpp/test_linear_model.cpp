// Linear models of few outputs, for every instruction set, against loops in long double.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "linear_model.hpp"

using namespace mlefast;

namespace {

template <class T> struct Problem {
  int64_t samples, features, outputs, classes;
  Array<T> x, coef, intercept, weight, probabilities, z;
  Array<T> coef_gradient, intercept_gradient;
  std::vector<int64_t> target;
  bool weighs, shifts;

  Problem(int64_t n, int64_t f, int64_t k, bool weighs_, bool shifts_)
      : samples(n),
        features(f),
        outputs(k),
        classes(k == 1 ? 2 : k),
        x(normals(n * f, 1, 1)),
        coef(normals(k * f, 1 / std::sqrt(double(f)), 2)),
        intercept(normals(k, 1, 3)),
        weight(normals(n, 1, 4)),
        probabilities(normals(n * classes, 1, 5)),
        z(normals(n * k, 1, 6)),
        coef_gradient(normals(k * f, 1, 7)),
        intercept_gradient(normals(k, 1, 8)),
        target(static_cast<size_t>(n)),
        weighs(weighs_),
        shifts(shifts_) {
    for (int64_t s = 0; s < n; ++s) {
      target[size_t(s)] = (s * 7 + 3) % classes;
      weight[s] = std::abs(weight[s]);
      T total = 0;
      for (int64_t k2 = 0; k2 < classes; ++k2) total += probability(s, k2) = std::abs(probability(s, k2)) + T(0.1);
      for (int64_t k2 = 0; k2 < classes; ++k2) probability(s, k2) /= total;
    }
  }

  T& probability(int64_t s, int64_t k) { return probabilities[s * classes + k]; }
  Long factor(int64_t s) { return weighs ? Long(weight[s]) : 1; }

  LinearModel<T> model(double scale) {
    return {samples,
            features,
            outputs,
            x.data(),
            coef.data(),
            shifts ? intercept.data() : nullptr,
            weighs ? weight.data() : nullptr,
            scale,
            coef_gradient.data(),
            shifts ? intercept_gradient.data() : nullptr};
  }

  // The logits of a sample's classes, and the sum of their terms' sizes.
  std::vector<Long> logits(int64_t s, Long& size) {
    std::vector<Long> all(static_cast<size_t>(classes), 0);
    size = 0;
    for (int64_t k = 0; k < outputs; ++k) {
      Long sum = shifts ? Long(intercept[k]) : 0, terms = std::abs(sum);
      for (int64_t f = 0; f < features; ++f) {
        const Long term = Long(x[s * features + f]) * Long(coef[k * features + f]);
        sum += term, terms += std::abs(term);
      }
      all[size_t(classes - outputs + k)] = sum;
      size = std::max(size, terms);
    }
    return all;
  }

  // Compares the gradients with those of these errors (samples, classes), known to `noise` units each.
  void check_gradient(const std::vector<Long>& errors, Long noise) {
    const Long unit = std::numeric_limits<T>::epsilon();
    Long worst = 0;
    for (int64_t k = 0; k < outputs; ++k)
      for (int64_t f = 0; f <= features; ++f) {
        Long sum = 0, terms = 0;
        for (int64_t s = 0; s < samples; ++s) {
          const Long v = f < features ? Long(x[s * features + f]) : 1;
          const Long error = errors[size_t(s * classes + classes - outputs + k)];
          sum += v * error, terms += std::abs(v) * (std::abs(error) + noise);
        }
        if (f == features && !shifts) continue;
        const Long got = f < features ? Long(coef_gradient[k * features + f]) : Long(intercept_gradient[k]);
        // Sums of 64 terms at a time, and of what these give.
        worst = std::max(worst, std::abs(got - sum) / (unit * (terms + std::numeric_limits<T>::min())));
      }
    CHECK(worst <= 12);
    if (!shifts)  // is not touched
      for (int64_t k = 0; k < outputs; ++k) CHECK(intercept_gradient[k] == T(normals(outputs, 1, 8)[size_t(k)]));
  }
};

template <class T>
void check_model(const InstructionSet& set, int64_t n, int64_t f, int64_t k, bool weighs, bool shifts) {
  INFO(n, " samples, ", f, " features, ", k, " outputs, weights ", weighs, ", intercepts ", shifts);
  const Long unit = std::numeric_limits<T>::epsilon();
  Problem<T> p(n, f, k, weighs, shifts);
  const Long scale = 0.375;

  std::vector<Long> errors(static_cast<size_t>(n * p.classes));
  Long loss = 0, largest = 1, doubt = 0;
  for (int64_t s = 0; s < n; ++s) {
    Long size = 0, total = 0;
    const auto z = p.logits(s, size);
    for (const Long v : z) total += expl(v);
    loss += p.factor(s) * (logl(total) - z[size_t(p.target[size_t(s)])]);
    doubt += p.factor(s) * (size + 4);
    largest = std::max(largest, size);
    for (int64_t c = 0; c < p.classes; ++c)
      errors[size_t(s * p.classes + c)] =
          scale * p.factor(s) * (expl(z[size_t(c)]) / total - (c == p.target[size_t(s)]));
  }
  const Long got = linear_loss(set, p.model(double(scale)), p.target.data());
  CHECK(std::abs(got - loss) <= 4 * unit * doubt);
  p.check_gradient(errors, scale * (largest + 1));

  Long widest = 0;
  for (int64_t s = 0; s < n; ++s) {
    Long size = 0, mean = 0;
    const auto z = p.logits(s, size);
    widest = std::max(widest, size * p.factor(s));
    for (int64_t c = 0; c < p.classes; ++c) mean += Long(p.probability(s, c)) * z[size_t(c)];
    for (int64_t c = 0; c < p.classes; ++c)
      errors[size_t(s * p.classes + c)] = scale * p.factor(s) * Long(p.probability(s, c)) * (z[size_t(c)] - mean);
  }
  linear_curvature(set, p.model(double(scale)), p.probabilities.data());
  p.check_gradient(errors, scale * (widest + 1));

  Array<T> z(normals(n * k, 1, 9));
  linear_logits(set, p.model(1), z.data());
  Long worst = 0;
  for (int64_t s = 0; s < n; ++s) {
    Long size = 0;
    const auto want = p.logits(s, size);
    for (int64_t c = 0; c < k; ++c)
      worst = std::max(worst, std::abs(Long(z[s * k + c]) - want[size_t(p.classes - k + c)]) / (size * unit + unit));
    for (int64_t c = 0; c < p.classes; ++c)
      errors[size_t(s * p.classes + c)] = c < p.classes - k ? 0 : Long(p.z[s * k + c - (p.classes - k)]);
  }
  CHECK(worst <= 6);
  linear_gradient(set, p.model(1), p.z.data());
  p.check_gradient(errors, 0);
}

template <class T> void check_models(const InstructionSet& set) {
  for (int64_t f = 1; f <= 70; ++f) check_model<T>(set, f % 9, f, 1 + f % 11, f % 2, f % 3);
  for (int64_t k = 1; k <= 13; ++k) check_model<T>(set, 67, 37, k, k % 2, k % 3);
  for (const int64_t n : {0, 1, 3, 4, 5, 63, 64, 65, 130}) check_model<T>(set, n, 21, 5, true, true);
  check_model<T>(set, 9, 3000, 7, false, true);   // several pieces of the features, blocks of fewer samples
  check_model<T>(set, 5, 70000, 2, true, false);  // and of the fewest
  check_model<T>(set, 2500, 200, 6, true, true);  // several threads
}

// The parts are cut by the machine's processors, whoever works on them.
template <class T> void check_bits(const InstructionSet& set) {
  std::vector<Problem<T>> made;
  for (const int threads : {1, 2, 4}) {
    const Threads limit(threads);
    Problem<T> p(3001, 300, 5, true, true);
    linear_loss(set, p.model(1), p.target.data());
    linear_logits(set, p.model(1), p.z.data());
    made.push_back(std::move(p));
    CHECK(made[0].coef_gradient.same_bits(made.back().coef_gradient));
    CHECK(made[0].intercept_gradient.same_bits(made.back().intercept_gradient));
    CHECK(made[0].z.same_bits(made.back().z));
  }
}

}  // namespace

TEST_CASE("linear models: every instruction set and type, sizes around lanes, tiles and blocks") {
  init_threads();  // so that there is more than one part, if there is more than one processor
  for (const auto* set : usable_sets()) {
    MESSAGE("instruction set: ", std::string(set->name));
    check_models<float>(*set);
    check_models<double>(*set);
  }
}

TEST_CASE("linear models: the same bits with any number of threads") {
  init_threads();
  for (const auto* set : usable_sets()) {
    check_bits<float>(*set);
    check_bits<double>(*set);
  }
}

TEST_CASE("linear models: a wrong target makes the loss NaN and touches nothing else") {
  for (const auto* set : usable_sets()) {
    Problem<float> p(9, 5, 3, false, true);
    p.target[4] = 3;
    CHECK(std::isnan(linear_loss(*set, p.model(1), p.target.data())));
  }
}
