#include "training.hpp"

#include <algorithm>
#include <cstring>

#include "threads.hpp"
#include "vectors.hpp"

namespace mlefast {
namespace {

// part(begin, end) over [0, n), cut at multiples of `unit`, by as many threads as the elements are worth.
template <class Part> void over_threads(int64_t n, int64_t unit, int64_t elements, int64_t grain, const Part& part) {
  const int64_t units = (n + unit - 1) / unit;
  const Team team(std::min(units, 1 + elements / grain));
  const int64_t each = (units + team.size() - 1) / team.size() * unit;
  team.for_each(team.size(), [&](int64_t i, int) {
    if (i * each < n) part(i * each, std::min(n, (i + 1) * each));
  });
}

template <class T> rules::Momentum<T> without_penalty(rules::Momentum<T> rule) {
  rule.l2 = rule.threshold = 0;
  return rule;
}
template <class T> rules::AdaptiveMoments<T> without_penalty(rules::AdaptiveMoments<T> rule) {
  rule.l2 = rule.threshold = 0, rule.decay = 1;
  return rule;
}

template <class T> MomentumRun<T> part_of(const MomentumRun<T>& run, int64_t begin, int64_t end) {
  return {end - begin, run.parameters + begin, run.gradient + begin, run.velocity + begin, run.rule};
}
template <class T> AdaptiveRun<T> part_of(const AdaptiveRun<T>& run, int64_t begin, int64_t end) {
  return {end - begin, run.parameters + begin, run.gradient + begin, run.mean + begin, run.square + begin, run.rule};
}

template <class Run> void step_with(void (*kernel)(const Run&), const Run& run, int64_t n_weights) {
  Run free = run;
  free.rule = without_penalty(run.rule);
  over_threads(run.n, 1024, run.n, step_grain, [&](int64_t begin, int64_t end) {
    const int64_t border = std::clamp(n_weights, begin, end);
    if (begin < border) kernel(part_of(run, begin, border));
    if (border < end) kernel(part_of(free, border, end));
  });
}

}  // namespace

template <class T> void activate(const InstructionSet& set, int activation, const LayerRun<T>& layer) {
  const auto kernel = set.training->kernels<T>().activate[activation];
  over_threads(layer.rows, 1, layer.rows * layer.columns, layer_grain, [&](int64_t begin, int64_t end) {
    const auto from = [&](auto* array) { return array ? array + begin * layer.columns : array; };
    LayerRun<T> some = layer;
    some.rows = end - begin;
    some.values = from(layer.values), some.slope = from(layer.slope), some.uniform = from(layer.uniform);
    kernel(some);
  });
}

template <class T> void backpropagate(const InstructionSet& set, const ErrorRun<T>& errors) {
  const auto kernel = set.training->kernels<T>().backpropagate;
  over_threads(errors.columns, 64, errors.rows * errors.columns, layer_grain, [&](int64_t begin, int64_t end) {
    ErrorRun<T> some = errors;
    some.first = begin, some.last = end;
    kernel(some);
  });
}

template <class T> void step(const InstructionSet& set, const MomentumRun<T>& run, int64_t n_weights) {
  step_with(set.training->kernels<T>().momentum, run, n_weights);
}

template <class T> void step(const InstructionSet& set, const AdaptiveRun<T>& run, int64_t n_weights) {
  step_with(set.training->kernels<T>().adaptive, run, n_weights);
}

template void activate(const InstructionSet&, int, const LayerRun<float>&);
template void activate(const InstructionSet&, int, const LayerRun<double>&);
template void backpropagate(const InstructionSet&, const ErrorRun<float>&);
template void backpropagate(const InstructionSet&, const ErrorRun<double>&);
template void step(const InstructionSet&, const MomentumRun<float>&, int64_t);
template void step(const InstructionSet&, const MomentumRun<double>&, int64_t);
template void step(const InstructionSet&, const AdaptiveRun<float>&, int64_t);
template void step(const InstructionSet&, const AdaptiveRun<double>&, int64_t);

int64_t take_rows(const char* x, int64_t rows, int64_t row_bytes, const int64_t* index, int64_t n, char* out) {
  for (int64_t i = 0; i < n; ++i)
    if (index[i] < 0 || index[i] >= rows) return i;
  constexpr int64_t line = 64, most = 4096;  // bytes of the next row that are asked for while this one is copied
  for (int64_t i = 0; i < n; ++i) {
    if (i + 1 < n)
      for (int64_t byte = 0; byte < std::min(row_bytes, most); byte += line)
        prefetch(x, index[i + 1] * row_bytes + byte);
    std::memcpy(out + i * row_bytes, x + index[i] * row_bytes, static_cast<size_t>(row_bytes));
  }
  return -1;
}

}  // namespace mlefast
