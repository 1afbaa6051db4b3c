#include "sparse.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <type_traits>

#include "threads.hpp"
#include "vectors.hpp"

namespace mlefast {
namespace {

constexpr int64_t grain = 1 << 18;   // multiply-adds that are worth a thread, about 100 us
constexpr int64_t sum_length = 512;  // entries that are summed up in their own type
constexpr int64_t tile = 64;         // outputs whose sums lie on the stack
constexpr int64_t at_once = 8;       // entries: a sum is loaded and stored once for so many
constexpr int64_t look_ahead = 16;   // entries

class FirstWrong {
  std::atomic<int64_t> row_{-1};

 public:
  void note(int64_t row) {
    int64_t seen = row_;
    while ((seen < 0 || row < seen) && !row_.compare_exchange_weak(seen, row)) continue;
  }
  int64_t row() const { return row_; }
};

template <class T, class I> bool has_range(const SparseRows<T, I>& x, int64_t r) {
  return 0 <= x.start[r] && x.start[r] <= x.start[r + 1] && int64_t{x.start[r + 1]} <= x.entries;
}

template <class T, class I> bool has_columns(const SparseRows<T, I>& x, int64_t r) {
  using U = std::make_unsigned_t<I>;  // to which negative ones are large
  const auto limit = static_cast<U>(std::min<uint64_t>(static_cast<uint64_t>(x.columns), U{1} << (8 * sizeof(I) - 1)));
  bool wrong = false;
  for (int64_t p = x.start[r]; p < x.start[r + 1]; ++p) wrong |= static_cast<U>(x.column[p]) >= limit;
  return !wrong;
}

// Rows that entries name lie anywhere, in a cache that is far away at best: they are asked for some entries ahead.
// Columns there are not checked yet, and address nothing but hints.
template <class T, class I> void ask_for(DenseRows<T> rows, I column, int64_t width) {
  constexpr int64_t line = 64, most = 8 * line;  // after which the processor has seen where it goes
  const auto ahead =
      static_cast<int64_t>(static_cast<uint64_t>(column) * static_cast<uint64_t>(rows.distance) * sizeof(T));
  for (int64_t byte = 0; byte < std::min<int64_t>(width * int64_t{sizeof(T)}, most); byte += line)
    prefetch(rows.data, ahead + byte);
}

// sum += the rows of `dense` that n of `available` entries name, each times its entry. Written for the compiler to
// vectorise over the outputs. Sums in registers, which takes a width known to it, and wider vectors were no faster:
// memory is what it waits for.
template <class T, class I>
void add_rows(const I* column, const T* value, int64_t n, int64_t available, DenseRows<const T> dense, int64_t width,
              T* __restrict sum) {
  int64_t p = 0;
  for (; p + at_once <= n; p += at_once) {
    const T* row[at_once];
    for (int64_t i = 0; i < at_once; ++i) row[i] = dense.data + int64_t{column[p + i]} * dense.distance;
    for (int64_t i = p + look_ahead; i < std::min(p + look_ahead + at_once, available); ++i)
      ask_for(dense, column[i], width);
    const T* x = value + p;
    for (int64_t c = 0; c < width; ++c) {
      T s = sum[c];
      for (int64_t i = 0; i < at_once; ++i) s += x[i] * row[i][c];
      sum[c] = s;
    }
  }
  for (; p < n; ++p) {
    const T* row = dense.data + int64_t{column[p]} * dense.distance;
    for (int64_t c = 0; c < width; ++c) sum[c] += value[p] * row[c];
  }
}

template <class T, class I>
void multiply_row(const I* column, const T* value, int64_t n, int64_t available, DenseRows<const T> dense,
                  int64_t width, T* out, bool add) {
  T sum[tile];
  double total[tile];
  std::fill_n(total, width, 0.0);
  for (int64_t p = 0; p < n; p += sum_length) {
    std::fill_n(sum, width, T(0));
    add_rows(column + p, value + p, std::min(sum_length, n - p), available - p, dense, width, sum);
    for (int64_t c = 0; c < width; ++c) total[c] += sum[c];
  }
  for (int64_t c = 0; c < width; ++c) out[c] = add ? out[c] + static_cast<T>(total[c]) : static_cast<T>(total[c]);
}

// Cuts the columns into ranges with about as many entries each, from a sample of them.
class Ranges {
  static constexpr int64_t buckets = 1024, samples = 1 << 16;
  int64_t columns_, bucket_, weight_[buckets + 1] = {};

 public:
  template <class T, class I>
  explicit Ranges(const SparseRows<T, I>& x) : columns_(x.columns), bucket_((x.columns + buckets - 1) / buckets) {
    const int64_t every = 1 + x.entries / samples;
    for (int64_t b = 0; b < buckets; ++b)  // each column is written, whether or not it has entries
      weight_[b + 1] = std::clamp<int64_t>(columns_ - b * bucket_, 0, bucket_);
    for (int64_t p = 0; p < x.entries; p += every) {
      const int64_t c = x.column[p];
      if (0 <= c && c < columns_) weight_[c / bucket_ + 1] += 4 * every;
    }
    for (int64_t b = 0; b < buckets; ++b) weight_[b + 1] += weight_[b];
  }

  int64_t begin(int64_t i, int64_t of) const {
    if (i == of) return columns_;
    const double share = static_cast<double>(weight_[buckets]) * static_cast<double>(i) / static_cast<double>(of);
    const auto* at = std::lower_bound(weight_, weight_ + buckets, share,
                                      [](int64_t w, double s) { return static_cast<double>(w) < s; });
    return std::min(columns_, (at - weight_) * bucket_);
  }
};

template <class T, class O> void add_product(T x, const T* __restrict dense, int64_t outputs, O* __restrict out) {
  for (int64_t c = 0; c < outputs; ++c) out[c] += static_cast<O>(x * dense[c]);
}

}  // namespace

template <class T, class I>
int64_t multiply(const SparseRows<T, I>& x, DenseRows<const T> dense, int64_t outputs, DenseRows<T> out, bool add) {
  const int64_t items = std::clamp<int64_t>((x.entries + x.rows) * outputs / grain, 1, std::max<int64_t>(x.rows, 1));
  const int64_t each = (x.rows + items - 1) / items;
  FirstWrong wrong;
  const Team team(items);
  team.for_each(items, [&](int64_t item, int) {
    for (int64_t r = item * each; r < std::min(x.rows, (item + 1) * each); ++r) {
      const bool fine = has_range(x, r) && has_columns(x, r);
      if (!fine) wrong.note(r);
      const int64_t first = fine ? x.start[r] : 0, n = fine ? x.start[r + 1] - first : 0;
      for (int64_t c = 0; c < outputs; c += tile)
        multiply_row(x.column + first, x.value + first, n, x.entries - first, {dense.data + c, dense.distance},
                     std::min(tile, outputs - c), out.data + r * out.distance + c, add);
    }
  });
  return wrong.row();
}

template <class T, class I, class O>
int64_t multiply_transposed(const SparseRows<T, I>& x, DenseRows<const T> dense, int64_t outputs, DenseRows<O> out,
                            bool add) {
  FirstWrong wrong;
  const Team team((x.entries + x.columns) * outputs / grain);
  const int64_t items = team.size(), each = (x.rows + items - 1) / items;
  const Ranges ranges(x);
  team.for_each(items, [&](int64_t item, int) {
    const int64_t begin = ranges.begin(item, items), end = ranges.begin(item + 1, items);
    for (int64_t c = begin; !add && c < end; ++c) std::fill_n(out.data + c * out.distance, outputs, O(0));
    for (int64_t r = 0; r < x.rows; ++r) {
      if (!has_range(x, r)) {
        wrong.note(r);
        continue;
      }
      if (r / each == item && !has_columns(x, r)) wrong.note(r);
      const int64_t first = x.start[r], last = x.start[r + 1];
      for (int64_t p = first; p < last; ++p) {
        const int64_t c = x.column[p];
        if (p + look_ahead < x.entries) {
          const int64_t later = x.column[p + look_ahead];
          if (later >= begin && later < end) ask_for(out, later, outputs);
        }
        if (c < begin || c >= end) continue;  // another thread's, or out of range
        add_product(x.value[p], dense.data + r * dense.distance, outputs, out.data + c * out.distance);
      }
    }
  });
  return wrong.row();
}

template <class T, class I> int64_t wrong_entry(const SparseRows<T, I>& x, int64_t r) {
  if (!has_range(x, r)) return -1;
  int64_t p = x.start[r];
  while (p < x.start[r + 1] && 0 <= x.column[p] && int64_t{x.column[p]} < x.columns) ++p;
  return p;
}

template int64_t multiply(const SparseRows<float, int32_t>&, DenseRows<const float>, int64_t, DenseRows<float>, bool);
template int64_t multiply(const SparseRows<float, int64_t>&, DenseRows<const float>, int64_t, DenseRows<float>, bool);
template int64_t multiply(const SparseRows<double, int32_t>&, DenseRows<const double>, int64_t, DenseRows<double>,
                          bool);
template int64_t multiply(const SparseRows<double, int64_t>&, DenseRows<const double>, int64_t, DenseRows<double>,
                          bool);
template int64_t multiply_transposed(const SparseRows<float, int32_t>&, DenseRows<const float>, int64_t,
                                     DenseRows<float>, bool);
template int64_t multiply_transposed(const SparseRows<float, int64_t>&, DenseRows<const float>, int64_t,
                                     DenseRows<float>, bool);
template int64_t multiply_transposed(const SparseRows<float, int32_t>&, DenseRows<const float>, int64_t,
                                     DenseRows<double>, bool);
template int64_t multiply_transposed(const SparseRows<float, int64_t>&, DenseRows<const float>, int64_t,
                                     DenseRows<double>, bool);
template int64_t multiply_transposed(const SparseRows<double, int32_t>&, DenseRows<const double>, int64_t,
                                     DenseRows<double>, bool);
template int64_t multiply_transposed(const SparseRows<double, int64_t>&, DenseRows<const double>, int64_t,
                                     DenseRows<double>, bool);
template int64_t wrong_entry(const SparseRows<float, int32_t>&, int64_t);
template int64_t wrong_entry(const SparseRows<float, int64_t>&, int64_t);
template int64_t wrong_entry(const SparseRows<double, int32_t>&, int64_t);
template int64_t wrong_entry(const SparseRows<double, int64_t>&, int64_t);

}  // namespace mlefast
