// An instruction set's kernels, for every task and storage type: what a file in isa/ makes and dispatch.cpp chooses
// from.
#pragma once

#include "../rules/losses.h"
#include "limit_kernels.hpp"
#include "run.hpp"
#include "term_run.hpp"
#include "training_run.hpp"

namespace mlefast {

template <class S> struct StorageKernels {
  using T = ValueOf<S>;
  int lanes;
  Kernels<S> task[rules::Tasks::size];
  void (*exp)(const T* x, T* y, int64_t n);  // of x <= 0, for the tests of its promise
  void (*to_values)(const S* x, T* y, int64_t n);
  void (*from_values)(const T* x, S* y, int64_t n);
};

struct TermTable {
  TermKernels<float> float32[rules::Losses::size];
  TermKernels<double> float64[rules::Losses::size];

  template <class T> const TermKernels<T>* kernels() const {
    if constexpr (std::is_same_v<T, float>) return float32;
    if constexpr (std::is_same_v<T, double>) return float64;
  }
};

struct InstructionSet {
  const char* name;
  StorageKernels<float> float32;
  StorageKernels<double> float64;
  StorageKernels<Float16> float16;
  StorageKernels<BFloat16> bfloat16;
  LimitKernels<float> limit32;
  LimitKernels<double> limit64;
  const TermTable* terms;
  const TrainingTable* training;

  template <class S> const StorageKernels<S>& kernels() const {
    if constexpr (std::is_same_v<S, float>) return float32;
    if constexpr (std::is_same_v<S, double>) return float64;
    if constexpr (std::is_same_v<S, Float16>) return float16;
    if constexpr (std::is_same_v<S, BFloat16>) return bfloat16;
  }

  template <class T> const LimitKernels<T>& limits() const {
    if constexpr (std::is_same_v<T, float>) return limit32;
    if constexpr (std::is_same_v<T, double>) return limit64;
  }
};

// One for each file in isa/, built where the compiler can (CMakeLists.txt).
extern const InstructionSet scalar_set, avx2_set, avx512_set, neon_set;
extern const TermTable scalar_terms, avx2_terms, avx512_terms, neon_terms;
extern const TrainingTable scalar_training, avx2_training, avx512_training, neon_training;

}  // namespace mlefast
