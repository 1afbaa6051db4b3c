// The kernels of a step of training over any instruction set, and the table of them. Included by the files in isa/
// only: everything here is compiled with their flags.
#pragma once

#include "instruction_set.hpp"
#include "linear_kernel.hpp"
#include "part_vectors.hpp"
#include "training_math.hpp"
#include "vectors.hpp"

namespace mlefast {

template <class Isa, class Function> struct LayerKernel {
  using T = typename Isa::Value;

  static void activate(const LayerRun<T>& given) {
    const LayerRun<T> run = given;                   // a copy that no store can change
    constexpr int lanes = Isa::lanes, together = 4;  // measured best of 1, 2, 4 for tanh and gelu
    for (int64_t row = 0; row < run.rows; ++row) {
      const int64_t start = row * run.columns;
      int64_t c = 0;
      for (; c + together * lanes <= run.columns; c += together * lanes)
        some<TrainingMath<Several<Isa, together>>, true>(run, start + c, c, 0);
      for (; c + lanes <= run.columns; c += lanes) some<TrainingMath<Isa>, true>(run, start + c, c, 0);
      if (c < run.columns) some<TrainingMath<Isa>, false>(run, start + c, c, run.columns - c);
    }
  }

 private:
  template <class Ops, bool whole>
  static MLEFAST_FN void some(const LayerRun<T>& run, int64_t at, int64_t column, int64_t n) {
    auto [value, slope] =
        Function::template apply<Ops>(read<Ops, whole>(run.values + at, n) + read<Ops, whole>(run.bias + column, n));
    if (run.uniform) {
      const auto factor =
          rules::dropout<Ops>(read<Ops, whole>(run.uniform + at, n), Ops::set(run.rate), Ops::set(run.scale));
      value = value * factor, slope = slope * factor;
    }
    write<Ops, whole>(run.values + at, value, n);
    if (run.slope) write<Ops, whole>(run.slope + at, slope, n);
  }
};

// Down some columns at a time, whose sums wait in registers.
template <class Isa> struct ErrorKernel {
  using T = typename Isa::Value;

  static void backpropagate(const ErrorRun<T>& given) {
    const ErrorRun<T> run = given;
    constexpr int lanes = Isa::lanes, together = 4;
    int64_t c = run.first;
    for (; c + together * lanes <= run.last; c += together * lanes) down<together, true>(run, c, 0);
    for (; c + lanes <= run.last; c += lanes) down<1, true>(run, c, 0);
    if (c < run.last) down<1, false>(run, c, run.last - c);
  }

 private:
  template <int K, bool whole> static MLEFAST_FN void down(const ErrorRun<T>& run, int64_t column, int64_t n) {
    Sum<Isa> sum[K];
    for (int64_t row = 0; row < run.rows; ++row) {
      const int64_t start = row * run.columns + column;
      for (int q = 0; q < K; ++q) {
        const int64_t at = start + q * Isa::lanes;
        auto v = read<Isa, whole>(run.error + at, n);
        if (run.slope) {
          v = v * read<Isa, whole>(run.slope + at, n);
          write<Isa, whole>(run.error + at, v, n);
        }
        sum[q].add(v);
      }
    }
    for (int q = 0; q < K; ++q) write<Isa, whole>(run.bias_gradient + column + q * Isa::lanes, sum[q].lanes(1), n);
  }
};

struct MomentumStep {
  template <class Ops, bool whole, class T>
  static MLEFAST_FN void some(const MomentumRun<T>& run, int64_t at, int64_t n) {
    auto p = read<Ops, whole>(run.parameters + at, n), velocity = read<Ops, whole>(run.velocity + at, n);
    run.rule.template step<Ops>(p, read<Ops, whole>(run.gradient + at, n), velocity);
    write<Ops, whole>(run.velocity + at, velocity, n);
    write<Ops, whole>(run.parameters + at, p, n);
  }
};

struct AdaptiveStep {
  template <class Ops, bool whole, class T>
  static MLEFAST_FN void some(const AdaptiveRun<T>& run, int64_t at, int64_t n) {
    auto p = read<Ops, whole>(run.parameters + at, n), mean = read<Ops, whole>(run.mean + at, n);
    auto square = read<Ops, whole>(run.square + at, n);
    run.rule.template step<Ops>(p, read<Ops, whole>(run.gradient + at, n), mean, square);
    write<Ops, whole>(run.mean + at, mean, n);
    write<Ops, whole>(run.square + at, square, n);
    write<Ops, whole>(run.parameters + at, p, n);
  }
};

// A step over a run of parameters.
template <class Isa, class Step, class Run> void along(const Run& given) {
  const Run run = given;
  constexpr int lanes = Isa::lanes, together = 2;
  int64_t i = 0;
  for (; i + together * lanes <= run.n; i += together * lanes)
    Step::template some<Several<Isa, together>, true>(run, i, 0);
  for (; i + lanes <= run.n; i += lanes) Step::template some<Isa, true>(run, i, 0);
  if (i < run.n) Step::template some<Isa, false>(run, i, run.n - i);
}

template <class Isa, class... Function>
constexpr TrainingKernels<typename Isa::Value> make_training_kernels(rules::List<Function...>) {
  using T = typename Isa::Value;
  return {{LayerKernel<Isa, Function>::activate...},
          ErrorKernel<Isa>::backpropagate,
          along<Isa, MomentumStep, MomentumRun<T>>,
          along<Isa, AdaptiveStep, AdaptiveRun<T>>,
          LinearKernel<Isa>::logits,
          LinearKernel<Isa>::add_gradient};
}

template <template <class> class Isa> constexpr TrainingTable make_training_table() {
  return {make_training_kernels<Isa<float>>(rules::Activations{}),
          make_training_kernels<Isa<double>>(rules::Activations{})};
}

}  // namespace mlefast
