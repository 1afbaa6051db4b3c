// The driver and its kernels against a reference in long double, for every instruction set that this processor has.
// Arrays end where their heap blocks end and start at odd addresses, so that a sanitizer sees any step outside them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "driver.hpp"
#include "math.hpp"
#include "threads.hpp"
#include "vectors.hpp"

using namespace mlefast;

namespace {

enum Task { logsumexp, softmax, log_softmax, cross_entropy, cross_entropy_and_grad };

// How the logits of rows x classes lie in memory.
enum class Layout { contiguous, columns, strided };

template <class T> struct Problem {
  int64_t rows, classes;
  std::vector<T> x, weight;  // x is row by row
  std::vector<int32_t> target;
  int32_t ignore_index = -100;
};

template <class S> struct Result {
  std::vector<S> out;
  std::vector<ValueOf<S>> value;
  double total = 0;
};

template <class T> Problem<T> make_problem(int64_t rows, int64_t classes, const char* kind, unsigned seed = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 3);
  Problem<T> p{rows, classes, {}, {}, {}};
  for (int64_t i = 0; i < rows * classes; ++i) {
    double x = normal(random);
    if (kind == std::string("masked") && random() % 2) x = -INFINITY;
    if (kind == std::string("wide")) x *= 40;
    p.x.push_back(static_cast<T>(x));
  }
  for (int64_t c = 0; c < classes; ++c) p.weight.push_back(static_cast<T>(0.5 + double(random() % 100) / 100));
  for (int64_t r = 0; r < rows; ++r) {
    p.target.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(classes)));
    if (r % 5 == 3) p.target.back() = p.ignore_index;
    if (kind == std::string("masked")) p.x[static_cast<size_t>(r * classes)] = 1;  // never all of a row
    if (kind == std::string("confident")) p.x[static_cast<size_t>(r * classes + r % classes)] += T(10 + 5 * (r % 12));
  }
  return p;
}

// The problem's logits, stored as S.
template <class S>
Result<S> run(const InstructionSet& set, int task, const Problem<ValueOf<S>>& p, Layout layout, bool in_place) {
  using T = ValueOf<S>;
  const bool writes = task == softmax || task == log_softmax || task == cross_entropy_and_grad;
  const int64_t step = layout == Layout::strided ? 3 : 1;
  const int64_t size = p.rows * p.classes * step - (step - 1);
  const int64_t row_stride = layout == Layout::columns ? 1 : p.classes * step;
  const int64_t class_stride = layout == Layout::columns ? p.rows : step;
  // new S[size + 1], used from its second element on: an odd address, and no slack at the end
  const std::unique_ptr<S[]> x(new S[static_cast<size_t>(size) + 1]), out(new S[static_cast<size_t>(size) + 1]);
  std::fill_n(x.get(), size + 1, from_value<S>(-7));
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t c = 0; c < p.classes; ++c)
      x[static_cast<size_t>(1 + r * row_stride + c * class_stride)] =
          from_value<S>(p.x[static_cast<size_t>(r * p.classes + c)]);

  Result<S> result;
  result.value.assign(static_cast<size_t>(p.rows), T(-1));
  Call<S> call{};
  call.x = x.get() + 1;
  call.out = !writes ? nullptr : in_place ? x.get() + 1 : out.get() + 1;
  call.classes = p.classes, call.x_class = class_stride, call.out_class = class_stride;
  call.axes.add({p.rows, row_stride, row_stride});
  const bool has_target = task >= cross_entropy;
  call.target = has_target ? p.target.data() : nullptr;
  call.target_bytes = 4, call.target_signed = true, call.ignore_index = p.ignore_index;
  call.weight = has_target ? p.weight.data() : nullptr;
  call.scale = has_target ? -0.5 : 1;
  call.value = task == logsumexp || has_target ? result.value.data() : nullptr;
  result.total = run_task(set, task, call);
  if (writes)
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t c = 0; c < p.classes; ++c) result.out.push_back(call.out[r * row_stride + c * class_stride]);
  return result;
}

using Long = long double;

// Relative error in units of T's epsilon; of denormal numbers, in the smallest of them.
template <class T> double ulps(T got, Long want) {
  if (Long(got) == want || (got != got && want != want)) return 0;
  const Long unit =
      std::max(std::abs(want) * std::numeric_limits<T>::epsilon(), Long(std::numeric_limits<T>::denorm_min()));
  const double error = static_cast<double>(std::abs(Long(got) - want) / unit);
  return error == error ? error : INFINITY;
}

template <class T> void check(const InstructionSet& set, const Problem<T>& p, Layout layout) {
  Result<T> got[5], in_place[5];
  for (int task = logsumexp; task <= cross_entropy_and_grad; ++task) {
    got[task] = run<T>(set, task, p, layout, false);
    in_place[task] = run<T>(set, task, p, layout, true);
    CHECK(got[task].out == in_place[task].out);
    const double totals[2] = {got[task].total, in_place[task].total};
    CHECK((totals[0] == totals[1] || (std::isnan(totals[0]) && std::isnan(totals[1]))));
  }
  Long total = 0;
  double worst = 0;
  for (int64_t r = 0; r < p.rows; ++r) {
    const T* x = p.x.data() + r * p.classes;
    const int64_t winner = std::max_element(x, x + p.classes) - x;
    Long others = 0, lead = INFINITY;
    for (int64_t c = 0; c < p.classes; ++c) {
      if (c == winner) continue;
      others += std::exp(Long(x[c]) - x[winner]);
      lead = std::min(lead, Long(x[winner]) - x[c]);
    }
    const Long sum = 1 + others, loss_of_winner = std::log1p(others);
    const double confident =
        others < 0.5 && std::isfinite(static_cast<double>(lead)) ? 0.5 * static_cast<double>(lead) : 0;
    const auto measure = [&](T value, Long want, double allowed) {
      worst = std::max(worst, ulps(value, want) / allowed);
    };
    const auto at = static_cast<size_t>(r);
    const Long lse = x[winner] + loss_of_winner;
    const double cancelled = static_cast<double>(std::max(std::abs(Long(x[winner])), loss_of_winner) / std::abs(lse));
    measure(got[logsumexp].value[at], lse, (4 + confident) * std::max(1.0, cancelled));
    const int32_t y = p.target[at];
    const bool ignored = y == p.ignore_index;
    const Long w = ignored ? 0 : Long(p.weight[static_cast<size_t>(y)]);
    const Long loss = ignored ? 0 : w * ((Long(x[winner]) - x[y]) + loss_of_winner);
    total += loss;
    for (const int task : {cross_entropy, cross_entropy_and_grad}) measure(got[task].value[at], loss, 5 + confident);
    for (int64_t c = 0; c < p.classes; ++c) {
      const auto i = static_cast<size_t>(r * p.classes + c);
      const Long gap = Long(x[winner]) - x[c], e = std::exp(-gap);
      const double entry = 4 + 0.5 * (std::isfinite(static_cast<double>(gap)) ? static_cast<double>(gap) : 0);
      measure(got[softmax].out[i], e / sum, entry);
      measure(got[log_softmax].out[i], -gap - loss_of_winner, 4 + (gap == 0 ? confident : 0));
      Long gradient = c == y ? -(c == winner ? others : sum - e) / sum : e / sum;
      if (ignored) gradient = 0;
      measure(got[cross_entropy_and_grad].out[i], Long(-0.5) * w * gradient, entry + 2 + (c == y ? confident : 0));
    }
  }
  CHECK(worst <= 1);
  if (std::isinf(static_cast<double>(total)))
    CHECK(got[cross_entropy].total == static_cast<double>(total));
  else
    CHECK(got[cross_entropy].total == doctest::Approx(static_cast<double>(total)).epsilon(1e-6));
}

// Halves give the results of the same logits in float32, rounded once.
template <class S> void check_halves(const InstructionSet& set, Problem<float> p, Layout layout) {
  for (auto& x : p.x) x = to_value(from_value<S>(x));
  for (int task = logsumexp; task <= cross_entropy_and_grad; ++task) {
    const auto want = run<float>(set, task, p, layout, false);
    for (const bool in_place : {false, true}) {
      const auto got = run<S>(set, task, p, layout, in_place);
      INFO("task ", task, ", ", p.rows, " x ", p.classes, ", layout ", int(layout), ", in place ", in_place);
      CHECK(got.value == want.value);
      CHECK((got.total == want.total || std::isnan(want.total)));
      bool same = got.out.size() == want.out.size();
      for (size_t i = 0; same && i < want.out.size(); ++i) same = got.out[i].bits == from_value<S>(want.out[i]).bits;
      CHECK(same);
    }
  }
}

template <class S> void check_halves(const InstructionSet& set) {
  for (const Layout layout : {Layout::contiguous, Layout::columns, Layout::strided}) {
    // Many classes, one after another: float32 adds them up in tiles of other sizes.
    for (const int64_t classes : {1, 2, 3, 7, 8, 15, 16, 17, 33, 100, 128, 129, 513, 1023, 1025, 4100})
      for (const int64_t rows : {int64_t(1), layout == Layout::columns && classes > 1100 ? 7 : int64_t(37)})
        check_halves<S>(set, make_problem<float>(rows, classes, "ordinary"), layout);
    for (const char* kind : {"masked", "wide", "confident"})
      for (const int64_t classes : {5, 300, 700, 1000})
        check_halves<S>(set, make_problem<float>(70, classes, kind), layout);
  }
}

template <class T> void check_everything(const InstructionSet& set) {
  for (const Layout layout : {Layout::contiguous, Layout::columns, Layout::strided}) {
    for (int64_t classes = 1; classes <= 40; ++classes) check(set, make_problem<T>(37, classes, "ordinary"), layout);
    for (const int64_t classes : {63, 64, 65, 127, 128, 129, 257, 511, 512, 513, 1023, 1024, 1025, 2049})
      check(set, make_problem<T>(6, classes, "ordinary"), layout);
    // What four vectors of rows hold, and a few rows more.
    for (const int64_t classes : {64,  65,  95,  96,  97,  127, 128, 129, 131, 159, 160, 161, 256,  257,
                                  352, 353, 383, 384, 385, 511, 512, 513, 704, 705, 768, 769, 1000, 1024})
      check(set, make_problem<T>(37, classes, "ordinary"), layout);
    for (const char* kind : {"masked", "wide", "confident"}) {
      for (const int64_t classes : {2, 7, 100, 700, 3000}) check(set, make_problem<T>(13, classes, kind), layout);
      for (const int64_t classes : {131, 300, 1000}) check(set, make_problem<T>(70, classes, kind), layout);
    }
    for (const int64_t rows : {1, 15, 16, 17, 63, 64, 65, 200})
      check(set, make_problem<T>(rows, 10, "ordinary"), layout);
  }
}

}  // namespace

template <int table_bits> void check_power_table(long double units) {
  for (int j = 0; j < 1 << table_bits; ++j) {
    const uint32_t entry = PowerTable<Scalar<float>, table_bits>::entries[j];
    const uint32_t bits = entry + (127u << 23) + (uint32_t(j) << (23 - table_bits));
    float power;
    std::memcpy(&power, &bits, sizeof power);
    const long double exact = NearConstants<float, table_bits>::common * std::exp2(j / (1.0L * (1 << table_bits)));
    CHECK(std::abs(power - exact) < units * (exact < 2 ? 0x1p-23L : 0x1p-22L));
  }
}

TEST_CASE("tables of powers of two are those of a common factor, to a fifth and a third of a unit") {
  check_power_table<4>(0.19L);
  check_power_table<2>(0.32L);
  CHECK(PowerTable<Scalar<float>, 2>::entries[0] == 0);  // which makes powers fade
}

TEST_CASE("every instruction set, layout and length") {
  init_threads();
  for (const auto* set : usable_sets()) {
    MESSAGE("instruction set: ", std::string(set->name));
    check_everything<float>(*set);
    check_everything<double>(*set);
    check_halves<Float16>(*set);
    check_halves<BFloat16>(*set);
  }
}

TEST_CASE("a long row is the same whether threads share it or not") {
  init_threads();
  for (const auto* set : usable_sets()) {
    const auto p = make_problem<float>(2, 50000, "ordinary");
    for (int task = logsumexp; task <= cross_entropy_and_grad; ++task) {
      set_thread_limit(1);
      const auto alone = run<float>(*set, task, p, Layout::contiguous, false);
      set_thread_limit(4);
      const auto shared = run<float>(*set, task, p, Layout::contiguous, false);
      set_thread_limit(0);
      CHECK(alone.out == shared.out);
      CHECK(alone.value == shared.value);
      CHECK(alone.total == shared.total);
    }
  }
}

TEST_CASE("every half is converted as it should be") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Float16 h{static_cast<uint16_t>(bits)};
    const BFloat16 b{static_cast<uint16_t>(bits)};
    const uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent == 0
                           ? std::ldexp(static_cast<float>(mantissa), -24)
                           : std::ldexp(static_cast<float>(mantissa + 1024), static_cast<int>(exponent) - 25);
    const float value = bits & 0x8000 ? -size : size;
    if (std::isnan(value)) {
      CHECK(std::isnan(to_value(h)));
      CHECK(std::isnan(to_value(from_value<Float16>(value))));
      continue;
    }
    if (to_value(h) != value || from_value<Float16>(value).bits != bits) CHECK(to_value(h) == value);
    if (std::isinf(value) || bits == 0x8000) continue;
    // Halfway to the next number it is the even one; a little beyond, the next.
    const float next = to_value(Float16{static_cast<uint16_t>(bits + 1)}), finite = std::isinf(next) ? 65536 : size;
    const float middle = std::isinf(next) ? std::copysign(65520.0f, value) : (value + next) / 2;
    CHECK(from_value<Float16>(middle).bits == (bits % 2 ? bits + 1 : bits));
    CHECK(from_value<Float16>(std::nextafter(middle, 2 * std::copysign(finite + 1, value))).bits == bits + 1);
    if (!std::isnan(to_value(b))) CHECK(from_value<BFloat16>(to_value(b)).bits == bits);
  }
  CHECK(from_value<BFloat16>(float_of(0x3f808000)).bits == 0x3f80);
  CHECK(from_value<BFloat16>(float_of(0x3f818000)).bits == 0x3f82);
  CHECK(from_value<BFloat16>(float_of(0x3f808001)).bits == 0x3f81);
  CHECK(std::isnan(to_value(from_value<BFloat16>(NAN))));
}

TEST_CASE("targets are checked before a kernel reads them") {
  const std::vector<int16_t> target = {0, 4, -100, 5, -1};
  const std::vector<float> weight = {1, 2, 3, 4, 5};
  const auto checked = check_targets<float>(target.data(), 2, true, 5, 5, -100, weight.data());
  CHECK(checked.first_wrong == 3);
  const auto good = check_targets<float>(target.data(), 2, true, 3, 5, -100, weight.data());
  CHECK(good.first_wrong == -1);
  CHECK(good.count == 2);
  CHECK(good.weight == 6);
}

TEST_CASE("a target that changes after the check touches no other memory") {
  for (const auto* set : usable_sets())
    for (const int64_t classes : {5, 300}) {
      auto p = make_problem<float>(20, classes, "ordinary");
      p.target[7] = 1000000, p.target[9] = -12345;
      for (const Layout layout : {Layout::contiguous, Layout::columns}) {
        const auto result = run<float>(*set, cross_entropy_and_grad, p, layout, false);
        for (int64_t c = 0; c < classes; ++c) CHECK(std::isnan(result.out[static_cast<size_t>(7 * classes + c)]));
        CHECK(std::isnan(result.value[9]));
        CHECK_FALSE(std::isnan(result.value[8]));
      }
    }
}
