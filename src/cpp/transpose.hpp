// Short rows to and from scratch[class * stride + lane], a row in each lane.
#pragma once

#include <cstdint>

#include "../rules/qualifier.h"

namespace mlefast {

template <class Ops> class Transposer {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int lanes = Ops::lanes;
  static constexpr int64_t few = 4;  // so few classes that whole vectors would be mostly empty

 public:
  // Lanes beyond `rows`, which is at most their number, are set to 0.
  static void gather(const T* x, int64_t x_row, int64_t rows, int64_t classes, T* scratch, int64_t stride) {
    if (classes <= few) {
      for (int64_t i = 0; i < lanes; ++i)
        for (int64_t c = 0; c < classes; ++c) scratch[c * stride + i] = i < rows ? x[i * x_row + c] : T(0);
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

  static void scatter(const T* scratch, int64_t stride, int64_t rows, int64_t classes, T* out, int64_t out_row) {
    if (classes <= few) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < classes; ++c) out[i * out_row + c] = scratch[c * stride + i];
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

}  // namespace mlefast
