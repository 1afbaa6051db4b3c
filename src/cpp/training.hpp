// A step of training over whole arrays: hands them to the kernels, and to threads if they are large. The results do not
// depend on the number of threads. Nothing is allocated.
#pragma once

#include "instruction_set.hpp"

namespace mlefast {

// Elements from which on a second thread is worth it. A step's products run in the BLAS, whose threads wait in busy
// loops as OpenMP's do, and both kinds take the processors from each other: what follows a product at once stays with
// one thread up to the size at which that costs more than the exchange.
inline constexpr int64_t layer_grain = 1 << 18, step_grain = 1 << 20;

// values (rows, columns) <- f(values + bias) for the activation's place in rules::Activations; slope <- f' if there is
// one; both times rules::dropout(uniform) if there is that.
template <class T> void activate(const InstructionSet& set, int activation, const LayerRun<T>& layer);

// error (rows, columns) <- error x slope, and bias_gradient <- the sums of its columns: of float32 added in float64, of
// float64 with their rounding errors, so that the error does not grow with the rows.
template <class T> void backpropagate(const InstructionSet& set, const ErrorRun<T>& errors);

// The rule's step of all n parameters; the first n_weights alone have l1, l2 and decay.
template <class T> void step(const InstructionSet& set, const MomentumRun<T>& run, int64_t n_weights);
template <class T> void step(const InstructionSet& set, const AdaptiveRun<T>& run, int64_t n_weights);

// out (n, row_bytes) <- the rows of x that `index` names. Returns -1, or the place of the first index that is none, and
// then writes nothing.
int64_t take_rows(const char* x, int64_t rows, int64_t row_bytes, const int64_t* index, int64_t n, char* out);

}  // namespace mlefast
