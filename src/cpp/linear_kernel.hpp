// The two products of a linear model of few outputs over any instruction set. A BLAS packs both factors of a product
// for reuse; here one is so narrow that the packing costs as much as the product. Included by training_kernel.hpp.
#pragma once

#include "part_vectors.hpp"
#include "training_run.hpp"

namespace mlefast {

template <class Isa> struct LinearKernel {
  using T = typename Isa::Value;
  using Vec = typename Isa::Vec;
  static constexpr int lanes = Isa::lanes;
  // A tile of so many sums, with three operands and one more, fills the sixteen registers of AVX2.
  static constexpr int wide = 4, narrow = 3;

  static void logits(const LinearRun<T>& given) {
    const LinearRun<T> run = given;  // a copy that no store can change
    for (int64_t s = 0; s < run.samples; ++s)
      for (int64_t k = 0; k < run.outputs; ++k) run.z[s * run.z_row + k] = run.intercept ? run.intercept[k] : T(0);
    // All coefficients of so many features stay in the first-level cache, beside the samples of a tile.
    constexpr int64_t cached = 24576 / sizeof(T), unit = 16 * lanes;
    const int64_t fits = cached / (run.outputs + wide) / unit * unit, most = fits > unit ? fits : unit;
    for (int64_t first = 0; first < run.features; first += most) {
      const int64_t left = run.features - first, n = left < most ? left : most;
      int64_t s = 0;
      for (; s + wide <= run.samples; s += wide) products<wide>(run, s, first, n);
      for (; s < run.samples; ++s) products<1>(run, s, first, n);
    }
  }

  static void add_gradient(const LinearRun<T>& given) {
    const LinearRun<T> run = given;
    int64_t f = 0;
    for (; f + wide * lanes <= run.features; f += wide * lanes) sums<wide, true>(run, f, 0);
    for (; f + lanes <= run.features; f += lanes) sums<1, true>(run, f, 0);
    if (f < run.features) sums<1, false>(run, f, run.features - f);
  }

 private:
  // Of R samples with all outputs, over n features.
  template <int R> static MLEFAST_FN void products(const LinearRun<T>& run, int64_t s, int64_t first, int64_t n) {
    int64_t k = 0;
    for (; k + narrow <= run.outputs; k += narrow) dot<R, narrow>(run, s, k, first, n);
    if (run.outputs - k == 2)
      dot<R, 2>(run, s, k, first, n);
    else if (run.outputs - k == 1)
      dot<R, 1>(run, s, k, first, n);
  }

  template <int R, int K>
  static MLEFAST_FN void dot(const LinearRun<T>& run, int64_t s, int64_t k, int64_t first, int64_t n) {
    Vec sum[R][K];
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < K; ++q) sum[r][q] = Isa::set(0);
    const T* x[R];
    const T* coef[K];
    for (int r = 0; r < R; ++r) x[r] = run.x[s + r] + first;
    for (int q = 0; q < K; ++q) coef[q] = run.coef + (k + q) * run.features + first;
    const auto add = [&](const auto& load) {
      Vec w[K];
      for (int q = 0; q < K; ++q) w[q] = load(coef[q]);
      for (int r = 0; r < R; ++r) {
        const Vec v = load(x[r]);
        for (int q = 0; q < K; ++q) sum[r][q] = Isa::fma(v, w[q], sum[r][q]);
      }
    };
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) add([=](const T* p) { return Isa::load(p + i); });
    if (i < n) add([=](const T* p) { return Isa::load(p + i, n - i, 0); });
    for (int r = 0; r < R; ++r)
      for (int q = 0; q < K; ++q) run.z[(s + r) * run.z_row + k + q] += Isa::reduce_add(sum[r][q]);
  }

  // Of all samples with all outputs, in V vectors of features or in the first n lanes of one.
  template <int V, bool whole> static MLEFAST_FN void sums(const LinearRun<T>& run, int64_t feature, int64_t n) {
    int64_t k = 0;
    for (; k + narrow <= run.outputs; k += narrow) weigh<V, narrow, whole>(run, feature, k, n);
    if (run.outputs - k == 2)
      weigh<V, 2, whole>(run, feature, k, n);
    else if (run.outputs - k == 1)
      weigh<V, 1, whole>(run, feature, k, n);
  }

  template <int V, int K, bool whole>
  static MLEFAST_FN void weigh(const LinearRun<T>& run, int64_t feature, int64_t k, int64_t n) {
    Vec sum[K][V];
    for (int q = 0; q < K; ++q)
      for (int v = 0; v < V; ++v) sum[q][v] = Isa::set(0);
    for (int64_t s = 0; s < run.samples; ++s) {
      const T *x = run.x[s] + feature, *error = run.z + s * run.z_row + k;
      Vec e[K];
      for (int q = 0; q < K; ++q) e[q] = Isa::set(error[q]);
      for (int v = 0; v < V; ++v) {
        const Vec values = read<Isa, whole>(x + v * lanes, n);
        for (int q = 0; q < K; ++q) sum[q][v] = Isa::fma(e[q], values, sum[q][v]);
      }
    }
    for (int q = 0; q < K; ++q)
      for (int v = 0; v < V; ++v) {
        T* const at = run.coef_gradient + (k + q) * run.features + feature + v * lanes;
        write<Isa, whole>(at, read<Isa, whole>(at, n) + sum[q][v], n);
      }
  }
};

}  // namespace mlefast
