// The losses of rules/term_losses.h: every instruction set, type, layout and option against the scalar kernels in
// float64, which the Python tests hold to a reference. Arrays end where their heap blocks end, for sanitizers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "dispatch.hpp"
#include "term_driver.hpp"

using namespace mlefast;

namespace {

template <class... Loss> std::vector<std::string> names_of(rules::List<Loss...>) { return {Loss::name...}; }
const std::vector<std::string> names = names_of(rules::Losses{});

enum class Layout { contiguous, columns, strided };

struct Inputs {
  int64_t rows, classes;
  std::vector<double> x, t, v, u, weight, positive, upstream;
  std::vector<int64_t> target;
};

Inputs make_inputs(int64_t rows, int64_t classes, bool probabilities_in_x) {
  std::mt19937 random(static_cast<unsigned>(rows * 10007 + classes));
  std::normal_distribution<double> normal(0, 3);
  Inputs in{rows, classes, {}, {}, {}, {}, {}, {}, {}, {}};
  // Numbers that every type holds, so that all are given the same: of eight bits.
  const auto rounded = [](double x) { return std::clamp(std::round(x * 16) / 16, -15.0, 15.0); };
  for (int64_t i = 0; i < rows * classes; ++i) {
    in.x.push_back(rounded(probabilities_in_x ? double(random() % 256) / 256 : normal(random)));
    if (!probabilities_in_x && random() % 9 == 0) in.x.back() = -INFINITY;
    in.t.push_back(random() % 4 ? double(random() % 64) / 64 : 0.0);
    in.v.push_back(rounded(normal(random)));
    in.u.push_back(double(1 + random() % 7) / 4);
  }
  for (int64_t c = 0; c < classes; ++c) in.weight.push_back(0.5 + double(random() % 64) / 64);
  for (int64_t c = 0; c < classes; ++c) in.positive.push_back(0.5 + double(random() % 64) / 64);
  for (int64_t r = 0; r < rows; ++r) {
    in.upstream.push_back(rounded(normal(random)));
    in.target.push_back(r % 5 == 3 ? -100 : static_cast<int64_t>(random() % static_cast<unsigned>(classes)));
    in.x[static_cast<size_t>(r * classes)] = probabilities_in_x ? 0.5 : 1;  // never all of a row masked
    if (r % 4 == 1 && !probabilities_in_x) in.x[static_cast<size_t>(r * classes + r % classes)] = 30;
    if (in.target.back() >= 0 && !probabilities_in_x) {
      auto& x = in.x[static_cast<size_t>(r * classes + in.target.back())];
      if (std::isinf(x)) x = -2;
    }
  }
  return in;
}

struct Outcome {
  std::vector<double> out, second, value, other;
  std::vector<uint8_t> hit;
  double total = 0;
};

template <class E> struct Strided {
  int64_t row, cls;
  std::unique_ptr<E[]> memory;  // used from its second element on: an odd address, and no slack at the end

  Strided(int64_t rows, int64_t classes, Layout layout, const std::vector<double>& values)
      : row(layout == Layout::columns      ? 1
            : layout == Layout::contiguous ? classes
                                           : classes * 3),
        cls(layout == Layout::columns      ? rows
            : layout == Layout::contiguous ? 1
                                           : 3) {
    const int64_t size = (rows - 1) * row + (classes - 1) * cls + 1;
    memory.reset(new E[static_cast<size_t>(size) + 1]);
    std::fill_n(memory.get(), size + 1, from_value<E>(-7));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < classes; ++c)
        data()[r * row + c * cls] =
            from_value<E>(static_cast<ValueOf<E>>(values[static_cast<size_t>(r * classes + c)]));
  }
  E* data() { return memory.get() + 1; }
  std::vector<double> values(int64_t rows, int64_t classes) {
    std::vector<double> all;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < classes; ++c) all.push_back(double(to_value(data()[r * row + c * cls])));
    return all;
  }
};

template <class T> std::vector<T> narrowed(const std::vector<double>& from) { return {from.begin(), from.end()}; }

template <class S>
Outcome run(const InstructionSet& set, size_t loss, const Inputs& in, Layout layout, bool index, bool options) {
  using T = ValueOf<S>;
  const auto rows = in.rows, classes = in.classes;
  Strided<S> x(rows, classes, layout, in.x), out(rows, classes, layout, in.v);
  Strided<T> t(rows, classes, layout, in.t), v(rows, classes, layout, in.v), u(rows, classes, layout, in.u);
  Strided<T> second(rows, classes, layout, in.v);
  const auto weight = narrowed<T>(in.weight), positive = narrowed<T>(in.positive), upstream = narrowed<T>(in.upstream);
  std::vector<T> value(static_cast<size_t>(rows), T(-1)), other = value;
  Outcome result;
  result.hit.assign(static_cast<size_t>(rows), 2);
  TermCall<S> call{};
  const std::string name = names[loss];
  const bool binary = name == "binary_cross_entropy", two = binary || name == "cross_entropy_grad_hess";
  const bool softmax = !binary && name != "entropy" && name.find("vjp") == std::string::npos;
  call.x = x.data(), call.out = out.data(), call.second = two ? second.data() : nullptr;
  call.probabilities = softmax && index ? nullptr : t.data();
  call.v = v.data(), call.u = u.data();
  call.classes = classes, call.x_class = x.cls;
  call.axes.add({rows, x.row, x.row});
  call.target = softmax && index ? in.target.data() : nullptr;
  call.target_bytes = 8, call.target_signed = true, call.ignore_index = -100;
  call.weight = weight.data(), call.positive = positive.data();
  call.upstream[0] = upstream.data();
  call.scale[0] = -0.5, call.scale[1] = 0.25;
  if (options) call.options = {0.875, 0.125 / double(classes), 0.01, 5, 0.5, 1.5, 2, 1e-16};
  call.value[0] = value.data(), call.value[1] = other.data();
  call.hit = softmax ? result.hit.data() : nullptr;
  result.total = run_terms(set, static_cast<int>(loss), call);
  result.out = out.values(rows, classes);
  if (two) result.second = second.values(rows, classes);
  result.value.assign(value.begin(), value.end());
  result.other.assign(other.begin(), other.end());
  return result;
}

// The largest error, in units of the type's epsilon times the size of what the numbers were made from.
double error_of(const std::vector<double>& got, const std::vector<double>& want, double epsilon, double rounding = 0) {
  double worst = got.size() == want.size() ? 0 : INFINITY;
  for (size_t i = 0; i < got.size() && worst < INFINITY; ++i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    const double unit =
        epsilon * 800 * (1 + std::abs(want[i])) + (rounding > 0 ? rounding * std::abs(want[i]) + 0x1p-25 : 0);
    const double error = std::abs(got[i] - want[i]) / unit;
    worst = error == error ? std::max(worst, error) : INFINITY;
  }
  return worst;
}

template <class S> void check(const InstructionSet& set, int64_t rows, int64_t classes, Layout layout) {
  using T = ValueOf<S>;
  constexpr double epsilon = std::numeric_limits<T>::epsilon();
  constexpr double rounding = std::is_same_v<S, BFloat16> ? 0x1p-8 : is_half<S> ? 0x1p-11 : 0;  // half a unit
  for (size_t loss = 0; loss < names.size(); ++loss) {
    const std::string& name = names[loss];
    auto in = make_inputs(rows, classes, name == "entropy" || name == "softmax_vjp");
    if (name == "log_softmax_vjp")
      for (auto& x : in.x) x = -std::abs(x);  // log-probabilities
    for (const bool index : {false, true})
      for (const bool options : {false, true}) {
        const bool needs_index = name == "focal_loss" || name == "log_prob",
                   needs_t = name == "kl_div" || name == "js_div";
        if ((index && needs_t) || (!index && needs_index) || (options && (needs_t || name == "log_prob"))) continue;
        const auto want = run<double>(scalar_set, loss, in, Layout::contiguous, index, options);
        const auto got = run<S>(set, loss, in, layout, index, options);
        INFO(name, ", ", rows, " x ", classes, ", layout ", int(layout), ", index ", index, ", options ", options);
        // An entropy's gradient at 0 is infinite, which no error is taken of.
        CHECK(error_of(got.out, want.out, epsilon, rounding) <= 1);
        CHECK(error_of(got.second, want.second, epsilon) <= 1);
        CHECK(error_of(got.value, want.value, epsilon) <= 1);
        CHECK(error_of(got.other, want.other, epsilon) <= 1);
        CHECK(error_of({got.total}, {want.total}, epsilon * double(rows)) <= 1);
        CHECK(got.hit == want.hit);
      }
  }
}

template <class S> void check_all(const InstructionSet& set) {
  for (const Layout layout : {Layout::contiguous, Layout::columns, Layout::strided}) {
    for (const int64_t classes : {1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 127, 128, 129, 200, 1025})
      check<S>(set, classes > 150 ? 5 : 37, classes, layout);
    for (const int64_t rows : {1, 7, 8, 16, 17}) check<S>(set, rows, 10, layout);
  }
}

}  // namespace

TEST_CASE("losses of terms: every instruction set, type and layout") {
  for (const auto* set : usable_sets()) {
    MESSAGE("instruction set: ", std::string(set->name));
    check_all<float>(*set);
    check_all<double>(*set);
    check_all<Float16>(*set);
    check_all<BFloat16>(*set);
  }
}
