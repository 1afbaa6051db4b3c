// What a kernel of rules/training.h is given. Plain memory, no ownership; matrices are contiguous, row by row.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../rules/training.h"

namespace mlefast {

// values <- f(values + bias), and the rest of it: see training.hpp.
template <class T> struct LayerRun {
  int64_t rows, columns;
  T* values;
  const T* bias;     // for each column
  T* slope;          // or null
  const T* uniform;  // or null: no dropout
  T rate, scale;     // of rules::dropout
};

// error <- error x slope in some columns, and these columns' sums.
template <class T> struct ErrorRun {
  int64_t rows, columns;
  int64_t first, last;  // columns
  T* error;
  const T* slope;  // or null: the error stays as it is
  T* bias_gradient;
};

template <class T> struct MomentumRun {
  int64_t n;
  T* parameters;
  const T* gradient;
  T* velocity;
  rules::Momentum<T> rule;
};

template <class T> struct AdaptiveRun {
  int64_t n;
  T* parameters;
  const T* gradient;
  T *mean, *square;
  rules::AdaptiveMoments<T> rule;
};

// Some samples of a linear model, whose rows lie anywhere, and their logits or the errors of these.
template <class T> struct LinearRun {
  int64_t samples, features, outputs;
  const T* const* x;   // rows of `features`
  const T* coef;       // (outputs, features)
  const T* intercept;  // for each output, or null
  T* z;                // (samples, z_row), of which the first `outputs` of each row
  int64_t z_row;
  T* coef_gradient;  // (outputs, features)
};

template <class T> struct TrainingKernels {
  void (*activate[rules::Activations::size])(const LayerRun<T>&);
  void (*backpropagate)(const ErrorRun<T>&);
  void (*momentum)(const MomentumRun<T>&);
  void (*adaptive)(const AdaptiveRun<T>&);
  void (*logits)(const LinearRun<T>&);        // z <- x coef' + intercept
  void (*add_gradient)(const LinearRun<T>&);  // coef_gradient += z' x
};

struct TrainingTable {
  TrainingKernels<float> float32;
  TrainingKernels<double> float64;

  template <class T> const TrainingKernels<T>& kernels() const {
    if constexpr (std::is_same_v<T, float>) return float32;
    if constexpr (std::is_same_v<T, double>) return float64;
  }
};

}  // namespace mlefast
