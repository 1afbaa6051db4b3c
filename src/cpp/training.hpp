// A step of training over whole arrays: hands them to the kernels, and to threads if they are large. The results do not
// depend on the number of threads. Nothing is allocated.
#pragma once

#include "instruction_set.hpp"

namespace mlefast {

// Elements for each thread. Two threads halve the time from 2^19 elements on (sgd 165 -> 91 us) while their processors
// are free; where one is not, they take 4 ms, a turn of the scheduler. A step's products keep the processors busy with
// the BLAS's threads, so that what comes between them stays with one thread for longer than a kernel on its own would.
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
