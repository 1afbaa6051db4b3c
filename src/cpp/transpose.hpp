// Rows to and from scratch[class * stride + lane], a row in each lane: short ones that are transposed, and columns of
// halves. Rows of any storage type; what is computed with lies in scratch.
//
// Both ways do more than move, because what they hold in registers need not be loaded again: `gather` finds each row's
// maximum, `scatter` makes final values of what is in scratch.
#pragma once

#include <cstdint>
#include <cstring>

#include "run.hpp"

namespace mlefast {

template <class Ops> class Transposer {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int lanes = Ops::lanes, columns = Ops::columns;

 public:
  // Lanes beyond `rows`, which is at most their number, are set to 0. `beyond` is the number of elements behind the
  // last row that are the run's as well. If classes are fewer than `columns`, scratch must have room for so many.
  template <class S>
  static MLEFAST_FN Vec gather(const S* x, int64_t x_row, int64_t rows, int64_t classes, int64_t beyond, T* scratch,
                               int64_t stride) {
    if (rows < lanes || classes + beyond < columns) {
      S copy[room];
      for (int64_t i = 0; i < lanes; ++i)
        for (int64_t c = 0; c < classes; ++c) copy[i * classes + c] = i < rows ? x[i * x_row + c] : S{};
      std::memset(static_cast<void*>(copy + lanes * classes), 0, columns * sizeof(S));
      return gather_whole(copy, classes, classes, scratch, stride);
    }
    return gather_whole(x, x_row, classes, scratch, stride);
  }

  template <class S, class Finish>
  static void scatter(const T* scratch, int64_t stride, int64_t rows, int64_t classes, int64_t beyond, S* out,
                      int64_t out_row, const Finish& finish) {
    if (rows < lanes || classes + beyond < columns) {
      S copy[room];
      scatter_whole(scratch, stride, classes, copy, classes, finish);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < classes; ++c) out[i * out_row + c] = copy[i * classes + c];
      return;
    }
    S behind[columns];  // what the last rows' stores cover if classes are fewer than `columns`
    for (int64_t i = classes; i < columns; ++i) behind[i] = out[lanes * out_row + i - classes];
    scatter_whole(scratch, stride, classes, out, out_row, finish);
    for (int64_t i = classes; i < columns; ++i) out[lanes * out_row + i - classes] = behind[i];
  }

 private:
  static constexpr int64_t room = lanes * packed_limit + columns;

  // `columns` classes at a time, of which the last ones overlap the ones before.
  static MLEFAST_FN int64_t within(int64_t c, int64_t classes) {
    return c + columns <= classes || classes < columns ? c : classes - columns;
  }

  template <class S>
  static MLEFAST_FN Vec gather_whole(const S* x, int64_t x_row, int64_t classes, T* scratch, int64_t stride) {
    Vec best[columns];
    for (auto& v : best) v = Ops::set(static_cast<T>(-__builtin_inf()));
    for (int64_t c = 0; c < classes; c += columns) {
      const int64_t at = within(c, classes);
      Vec v[columns];
      Ops::load_columns(x + at, x_row, v);
      for (int i = 0; i < columns; ++i)
        Ops::store(scratch + (at + i) * stride, v[i]), best[i] = Ops::max(best[i], v[i]);
    }
    for (int i = 1; i < columns && i < classes; ++i) best[0] = Ops::max(best[0], best[i]);
    return best[0];
  }

  template <class S, class Finish>
  static MLEFAST_FN void scatter_whole(const T* scratch, int64_t stride, int64_t classes, S* out, int64_t out_row,
                                       const Finish& finish) {
    for (int64_t c = 0; c < classes; c += columns) {
      const int64_t at = within(c, classes);
      Vec v[columns];
      for (int i = 0; i < columns; ++i) v[i] = Ops::load(scratch + (at + i) * stride);
      finish(v);
      Ops::store_columns(out + at, out_row, v);
    }
  }
};

// The same for rows that lie side by side, class by class. A class's rows are `stride` apart in scratch.
template <class Ops, int W> class Copier {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int lanes = Ops::lanes;

 public:
  // The maxima of W vectors of rows; if W is 1, of n rows.
  template <class S>
  static void gather(const S* x, int64_t x_class, int64_t n, int64_t classes, T* scratch, int64_t stride,
                     Vec (&max)[W]) {
    Vec best[W];
    for (auto& v : best) v = Ops::set(static_cast<T>(-__builtin_inf()));
    for (int64_t c = 0; c < classes; ++c)
      for (int w = 0; w < W; ++w) {
        const S* from = x + c * x_class + w * lanes;
        const Vec v = W > 1 || n == lanes ? Ops::load(from) : Ops::load(from, n, 0);
        Ops::store(scratch + c * stride + w * lanes, v);
        best[w] = Ops::max(best[w], v);
      }
    for (int w = 0; w < W; ++w) max[w] = best[w];
  }

  template <class S, class Finish>
  static void scatter(const T* scratch, int64_t stride, int64_t n, int64_t classes, S* out, int64_t out_class,
                      const Finish& finish) {
    for (int64_t c = 0; c < classes; ++c) {
      Vec v[W];
      for (int w = 0; w < W; ++w) v[w] = Ops::load(scratch + c * stride + w * lanes);
      finish(v);
      for (int w = 0; w < W; ++w) {
        S* to = out + c * out_class + w * lanes;
        W > 1 || n == lanes ? Ops::store(to, v[w]) : Ops::store(to, v[w], n);
      }
    }
  }
};

}  // namespace mlefast
