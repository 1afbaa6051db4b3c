// What memory allows: a sum, a copy and an update in place that load, add or multiply once and store, over any
// instruction set. They are compiled with the kernels' flags, so that they differ from them in their work alone.
#pragma once

#include "vectors.hpp"

namespace mlefast {

// `ahead` is how many bytes before their use cache lines are asked for; 0 leaves that to the processor.
template <class T> struct LimitKernels {
  double (*sum)(const T* x, int64_t n, int64_t ahead);
  void (*copy)(const T* x, T* out, int64_t n, int64_t ahead);
  void (*update)(T* x, int64_t n, int64_t ahead, T factor);
};

template <class Isa> struct Limits {
  using T = typename Isa::Value;
  using Vec = typename Isa::Vec;
  static constexpr int vectors = 8;  // independent sums: enough to hide an addition's latency
  static constexpr int64_t step = vectors * Isa::lanes;
  static constexpr int64_t line = 64, bytes = step * static_cast<int64_t>(sizeof(T));

  static MLEFAST_FN void ask(const T* p, int64_t ahead, bool to_write) {
    if (ahead == 0) return;
    for (int64_t at = 0; at < bytes; at += line) to_write ? prefetch_to_write(p, ahead + at) : prefetch(p, ahead + at);
  }

  static double sum(const T* x, int64_t n, int64_t ahead) {
    Vec part[vectors];
    for (auto& p : part) p = Isa::set(0);
    int64_t i = 0;
    for (; i + step <= n; i += step) {
      ask(x + i, ahead, false);
      for (int k = 0; k < vectors; ++k) part[k] = part[k] + Isa::load(x + i + k * Isa::lanes);
    }
    double total = 0;
    for (const auto& p : part) total += double(Isa::reduce_add(p));
    for (; i < n; ++i) total += double(x[i]);
    return total;
  }

  static void copy(const T* x, T* out, int64_t n, int64_t ahead) {
    int64_t i = 0;
    for (; i + step <= n; i += step) {
      ask(out + i, ahead, true);
      Vec v[vectors];
      for (int k = 0; k < vectors; ++k) v[k] = Isa::load(x + i + k * Isa::lanes);
      for (int k = 0; k < vectors; ++k) Isa::store(out + i + k * Isa::lanes, v[k]);
    }
    for (; i < n; ++i) out[i] = x[i];
  }

  static void update(T* x, int64_t n, int64_t ahead, T factor) {
    const Vec by = Isa::set(factor);
    int64_t i = 0;
    for (; i + step <= n; i += step) {
      ask(x + i, ahead, true);
      for (int k = 0; k < vectors; ++k) Isa::store(x + i + k * Isa::lanes, Isa::load(x + i + k * Isa::lanes) * by);
    }
    for (; i < n; ++i) x[i] *= factor;
  }

  static constexpr LimitKernels<T> table() { return {sum, copy, update}; }
};

}  // namespace mlefast
