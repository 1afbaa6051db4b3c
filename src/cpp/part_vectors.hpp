// Vectors of memory that may end within one: for loops whose last step is the others with fewer numbers.
#pragma once

#include <cstdint>

#include "../rules/qualifier.h"

namespace mlefast {

// A vector of memory at p: all of it, or its first n numbers.
template <class Ops, bool whole, class T> MLEFAST_FN typename Ops::Vec read(const T* p, int64_t n) {
  if constexpr (whole)
    return Ops::load(p);
  else
    return Ops::load(p, n, 0);
}
template <class Ops, bool whole, class T> MLEFAST_FN void write(T* p, typename Ops::Vec v, int64_t n) {
  if constexpr (whole)
    Ops::store(p, v);
  else
    Ops::store(p, v, n);
}

}  // namespace mlefast
