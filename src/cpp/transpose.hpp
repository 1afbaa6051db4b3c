// Rows to and from scratch[class * stride + lane], a row in each lane: short ones that are transposed, and columns of
// halves. Rows of any storage type; what is computed with lies in scratch.
#pragma once

#include <cstdint>

#include "storage.hpp"

namespace mlefast {

template <class Ops> class Transposer {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int lanes = Ops::lanes;
  static constexpr int64_t few = 4;  // so few classes that whole vectors would be mostly empty

 public:
  // Lanes beyond `rows`, which is at most their number, are set to 0.
  template <class S>
  static void gather(const S* x, int64_t x_row, int64_t rows, int64_t classes, T* scratch, int64_t stride) {
    if (classes <= few) {
      for (int64_t i = 0; i < lanes; ++i)
        for (int64_t c = 0; c < classes; ++c) scratch[c * stride + i] = i < rows ? to_value(x[i * x_row + c]) : T(0);
      return;
    }
    for (int64_t c = 0; c < classes; c += lanes) {
      const int64_t columns = classes - c < lanes ? classes - c : lanes;
      Vec v[lanes];
      if (columns == lanes && rows == lanes)
        for (int i = 0; i < lanes; ++i) v[i] = Ops::load(x + i * x_row + c);
      else
        for (int i = 0; i < lanes; ++i) v[i] = i < rows ? Ops::load(x + i * x_row + c, columns, 0) : Ops::set(0);
      Ops::transpose(v);
      for (int i = 0; i < lanes; ++i)
        if (i < columns) Ops::store(scratch + (c + i) * stride, v[i]);
    }
  }

  template <class S>
  static void scatter(const T* scratch, int64_t stride, int64_t rows, int64_t classes, S* out, int64_t out_row) {
    if (classes <= few) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < classes; ++c) out[i * out_row + c] = from_value<S>(scratch[c * stride + i]);
      return;
    }
    for (int64_t c = 0; c < classes; c += lanes) {
      const int64_t columns = classes - c < lanes ? classes - c : lanes;
      Vec v[lanes];
      for (int i = 0; i < lanes; ++i) v[i] = i < columns ? Ops::load(scratch + (c + i) * stride) : Ops::set(0);
      Ops::transpose(v);
      if (columns == lanes && rows == lanes)
        for (int i = 0; i < lanes; ++i) Ops::store(out + i * out_row + c, v[i]);
      else
        for (int i = 0; i < lanes; ++i)
          if (i < rows) Ops::store(out + i * out_row + c, v[i], columns);
    }
  }
};

// The same for rows that lie side by side, class by class.
template <class Ops> class Copier {
  using T = typename Ops::Value;
  static constexpr int lanes = Ops::lanes;

 public:
  template <class S>
  static void gather(const S* x, int64_t x_class, int64_t rows, int64_t classes, T* scratch, int64_t stride) {
    for (int64_t c = 0; c < classes; ++c)
      Ops::store(scratch + c * stride,
                 rows == lanes ? Ops::load(x + c * x_class) : Ops::load(x + c * x_class, rows, 0));
  }

  template <class S>
  static void scatter(const T* scratch, int64_t stride, int64_t rows, int64_t classes, S* out, int64_t out_class) {
    for (int64_t c = 0; c < classes; ++c) {
      const auto v = Ops::load(scratch + c * stride);
      rows == lanes ? Ops::store(out + c * out_class, v) : Ops::store(out + c * out_class, v, rows);
    }
  }
};

}  // namespace mlefast
