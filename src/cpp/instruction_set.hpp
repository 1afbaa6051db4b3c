// An instruction set's kernels, for every task and storage type: what a file in isa/ makes and dispatch.cpp chooses
// from.
#pragma once

#include "../rules/losses.h"
#include "limit_kernels.hpp"
#include "run.hpp"

namespace mlefast {

template <class T> struct StorageKernels {
  int lanes;
  int64_t packed_limit;  // rows of at most so many classes go through `packed`
  Kernels<T> task[rules::Tasks::size];
  void (*exp)(const T* x, T* y, int64_t n);  // of x <= 0, for the tests of its promise
};

struct InstructionSet {
  const char* name;
  StorageKernels<float> float32;
  StorageKernels<double> float64;
  LimitKernels<float> limit32;
  LimitKernels<double> limit64;

  template <class T> const StorageKernels<T>& kernels() const;
  template <class T> const LimitKernels<T>& limits() const;
};

template <> inline const StorageKernels<float>& InstructionSet::kernels<float>() const { return float32; }
template <> inline const StorageKernels<double>& InstructionSet::kernels<double>() const { return float64; }

template <> inline const LimitKernels<float>& InstructionSet::limits<float>() const { return limit32; }
template <> inline const LimitKernels<double>& InstructionSet::limits<double>() const { return limit64; }

// One for each file in isa/, built where the compiler can (CMakeLists.txt).
extern const InstructionSet scalar_set, avx2_set, avx512_set, neon_set;

}  // namespace mlefast
