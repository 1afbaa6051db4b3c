// Products of sparse rows against plain loops in long double; arrays end where their heap blocks end, for sanitizers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "sparse.hpp"
#include "threads.hpp"

using namespace mlefast;

namespace {

template <class T, class I> struct Random {
  std::vector<I> start, column;
  std::vector<T> value;
  SparseRows<T, I> x;

  Random(int64_t rows, int64_t columns, int64_t longest) : start{0} {
    std::mt19937 random(7);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t n = r % 3 == 1 || columns == 0 ? 0 : static_cast<int64_t>(random()) % (longest + 1);
      for (int64_t i = 0; i < n; ++i) {  // in any order, some of them twice
        column.push_back(static_cast<I>(random() % static_cast<unsigned>(columns)));
        value.push_back(static_cast<T>(random() % 1000) / 250 - 2);
      }
      start.push_back(static_cast<I>(column.size()));
    }
    column.shrink_to_fit(), value.shrink_to_fit(), start.shrink_to_fit();
    x = {rows, columns, static_cast<int64_t>(value.size()), start.data(), column.data(), value.data()};
  }
};

template <class T> std::vector<T> numbers(int64_t n) {
  std::mt19937 random(11);
  std::vector<T> v(static_cast<size_t>(n));
  for (auto& each : v) each = static_cast<T>(random() % 1000) / 500 - 1;
  return v;
}

// Whether each number of out (rows, outputs) is the sum of its terms, added to 1 if `add`.
template <class T, class I, class O>
bool right(const SparseRows<T, I>& x, const std::vector<T>& dense, int64_t outputs, const std::vector<O>& out,
           bool transposed, bool add) {
  std::vector<long double> want(out.size(), add ? 1 : 0), size(out.size(), add ? 1 : 0);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t p = x.start[r]; p < x.start[r + 1]; ++p)
      for (int64_t k = 0; k < outputs; ++k) {
        const int64_t c = x.column[p], to = transposed ? c : r, from = transposed ? r : c;
        const long double term = static_cast<long double>(x.value[p]) * dense[static_cast<size_t>(from * outputs + k)];
        want[static_cast<size_t>(to * outputs + k)] += term;
        size[static_cast<size_t>(to * outputs + k)] += std::abs(term);
      }
  bool fine = true;
  for (size_t i = 0; i < out.size(); ++i)
    fine &= std::abs(out[i] - want[i]) <=
            static_cast<long double>(x.entries + 3) * std::numeric_limits<T>::epsilon() * size[i];
  return fine;
}

template <class T, class I, class O> void check(int64_t rows, int64_t columns, int64_t longest, int64_t outputs) {
  const Random<T, I> random(rows, columns, longest);
  const auto& x = random.x;
  const auto b = numbers<T>(columns * outputs), e = numbers<T>(rows * outputs);
  std::vector<T> first;
  std::vector<O> first_transposed;
  for (const bool add : {false, true})
    for (const int threads : {1, 2, 5}) {
      set_thread_limit(threads);
      std::vector<T> out(static_cast<size_t>(rows * outputs), T(1));
      std::vector<O> sums(static_cast<size_t>(columns * outputs), O(1));
      CHECK(multiply<T, I>(x, {b.data(), outputs}, outputs, {out.data(), outputs}, add) == -1);
      CHECK(multiply_transposed<T, I, O>(x, {e.data(), outputs}, outputs, {sums.data(), outputs}, add) == -1);
      set_thread_limit(0);
      CHECK(right(x, b, outputs, out, false, add));
      CHECK(right(x, e, outputs, sums, true, add));
      if (threads == 1) first = out, first_transposed = sums;
      CHECK(first == out);
      CHECK(first_transposed == sums);
    }
}

}  // namespace

TEST_CASE("products of sparse rows") {
  for (const int64_t outputs : {1, 2, 5, 8, 20, 63, 64, 65, 130}) {
    CAPTURE(outputs);
    check<float, int32_t, float>(40, 30, 12, outputs);
    check<float, int64_t, double>(40, 30, 12, outputs);
    check<double, int32_t, double>(40, 30, 12, outputs);
    check<double, int64_t, double>(3, 5, 2000, outputs);
    check<float, int32_t, double>(900, 2000, 40, outputs);  // several threads
    check<float, int32_t, float>(0, 4, 1, outputs);
    check<float, int32_t, float>(4, 0, 1, outputs);
  }
}

TEST_CASE("what is out of range is named and not followed") {
  Random<float, int32_t> good(300, 200, 30);
  const std::vector<float> dense = numbers<float>(300 * 8);
  std::vector<float> out(300 * 8);
  const auto both = [&](int64_t row) {
    for (const int threads : {1, 4}) {
      set_thread_limit(threads);
      CHECK(multiply<float, int32_t>(good.x, {dense.data(), 8}, 8, {out.data(), 8}, false) == row);
      CHECK(multiply_transposed<float, int32_t, float>(good.x, {dense.data(), 8}, 8, {out.data(), 8}, false) == row);
      set_thread_limit(0);
    }
  };
  both(-1);
  constexpr int32_t most = std::numeric_limits<int32_t>::max(), least = std::numeric_limits<int32_t>::min();
  for (const int32_t wrong : {-1, 200, most, least}) {
    int64_t row = 100;
    while (good.start[static_cast<size_t>(row)] == good.start[static_cast<size_t>(row) + 1]) ++row;
    auto& place = good.column[static_cast<size_t>(good.start[static_cast<size_t>(row)])];
    const int32_t right = place;
    place = wrong;
    both(row);
    CHECK(wrong_entry(good.x, row) == good.start[static_cast<size_t>(row)]);
    place = right;
  }
  for (const int32_t wrong : {-1, most, least}) {
    const int32_t right = good.start[100];
    good.start[100] = wrong;
    both(99);
    CHECK(wrong_entry(good.x, 99) == -1);
    good.start[100] = right;
  }
}
