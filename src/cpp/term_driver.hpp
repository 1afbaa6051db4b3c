// From N-d arrays to the kernels of rules/term_losses.h, as driver.hpp does it for those of losses.h. All arrays in the
// shape of the logits have the logits' strides.
#pragma once

#include "driver.hpp"

namespace mlefast {

template <class S> struct TermCall {
  using T = ValueOf<S>;
  const S* x;
  const T *probabilities, *v, *u;  // or null
  S* out;                          // or null; x itself to overwrite it
  T* second;                       // the second output, or null
  int64_t classes, x_class;
  RowAxes axes;  // the last one varies fastest in target, upstream, value and hit

  const void* target;  // contiguous integers, one for each row, or null
  int target_bytes;    // 1, 2, 4, 8
  bool target_signed;
  int64_t ignore_index;
  const T *weight, *positive;  // contiguous, one for each class, or null
  const T* upstream[2];        // contiguous, one for each row, or null
  double scale[2];
  rules::Options options;

  T* value[2];   // contiguous, one for each row, or null
  uint8_t* hit;  // the same
};

// The sum of the first values.
template <class S> double run_terms(const InstructionSet& set, int loss, const TermCall<S>& call);

}  // namespace mlefast
