// What a kernel of rules/term_losses.h is given: consecutive rows of arrays that share their strides. Plain memory, no
// ownership; everything is of the type that is computed in.
#pragma once

#include <cstdint>

#include "../rules/term_losses.h"

namespace mlefast {

template <class T> struct TermRun {
  int64_t rows, classes;
  int64_t row, class_;  // strides, in elements, of all arrays in the shape of the logits: x to out

  const T* x;
  const T* probabilities;  // of the targets, or null
  const T* v;              // further inputs of a loss, or null
  const T* u;
  T* out[2];  // the gradient and a second array, or null; the first may be x itself

  const int64_t* target;  // a class for each row, or null
  int64_t ignore_index;   // a row with this target has loss and gradient 0, whatever its logits hold
  const T* weight;        // factors for each class, or null
  const T* positive;
  const T* upstream[2];  // a factor of the gradient for each row, or null
  double scale[2];       // and one for all rows
  rules::Options options;

  T* value[2];    // for each row, or null
  uint8_t* hit;   // whether the row's first largest logit is the target's (or its most probable class), or null
  double* total;  // the sum of the first values, or null
};

// As many vectors of rows as the transposed form has arrays, each with room for so many classes at least.
inline constexpr int term_arrays = 6;
inline constexpr int64_t least_packed = 4;

template <class T> using TermRowsKernel = void (*)(const TermRun<T>&, T* scratch);

// One loss's kernels for one type on one instruction set.
template <class T> struct TermKernels {
  TermRowsKernel<T> rows;     // contiguous classes
  TermRowsKernel<T> columns;  // contiguous rows, class by class
  TermRowsKernel<T> packed;   // as `rows`, for few classes; scratch: term_arrays x lanes x classes elements,
                              // `least_packed` classes at least
  int64_t packed_vectors;     // rows of fewer vectors are quicker in it; of half as many, with two arrays to transpose
};

}  // namespace mlefast
