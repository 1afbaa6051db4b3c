// The kernel of a loss of rules/term_losses.h, compiled for what a call asks of it: module.cuh's definitions, where
// MLEFAST_TASK is a position in rules::Losses and MLEFAST_REGIME is resident | staged | streamed | split | across |
// elementwise, and for each member of Asked below MLEFAST_ASKS_..., 0 or 1; of split rows MLEFAST_PASSES, the launches.
#include "module.cuh"
#include "term_split.cuh"

#ifndef MLEFAST_GROUP
#define MLEFAST_GROUP 32
#define MLEFAST_VECTORS 1
#endif
#ifndef MLEFAST_TOGETHER
#define MLEFAST_TOGETHER 1
#endif
#ifndef MLEFAST_PASSES
#define MLEFAST_PASSES 0
#endif

namespace mlefast::module {

enum class Regime { resident, staged, streamed, split, across, elementwise };
using Loss = TaskAt<MLEFAST_TASK, rules::Losses>::type;

struct Asked {
  static constexpr bool index = MLEFAST_ASKS_INDEX, probabilities = MLEFAST_ASKS_PROBABILITIES;
  static constexpr bool smooths = MLEFAST_ASKS_SMOOTHS, factors = MLEFAST_ASKS_FACTORS;
  static constexpr bool capped = MLEFAST_ASKS_CAPPED, vector = MLEFAST_ASKS_VECTOR, units = MLEFAST_ASKS_UNITS;
  static constexpr bool writes = MLEFAST_ASKS_WRITES, hits = MLEFAST_ASKS_HITS;
  static constexpr bool across = Regime::MLEFAST_REGIME == Regime::across;
};

template <Regime regime> MLEFAST_FN void run(const TermCall<T>& call, const Parts& parts, Pass pass) {
  if constexpr (regime == Regime::resident) resident_terms<Loss, Asked, T, MLEFAST_GROUP, MLEFAST_VECTORS, block>(call);
  if constexpr (regime == Regime::staged) streamed_terms<Loss, Asked, T, true, MLEFAST_TOGETHER, block>(call);
  if constexpr (regime == Regime::streamed) streamed_terms<Loss, Asked, T, false, MLEFAST_TOGETHER, block>(call);
  if constexpr (regime == Regime::split) {
    static_assert(regime != Regime::split || MLEFAST_PASSES == passes<Loss>, "launches that the loss does not take");
    split_terms<Loss, Asked, T, MLEFAST_TOGETHER, block>(call, parts, pass);
  }
  if constexpr (regime == Regime::across) across_terms<Loss, Asked, T, MLEFAST_TOGETHER, block>(call);
  if constexpr (regime == Regime::elementwise && Loss::elementwise)
    elementwise_terms<Loss, Asked, T, MLEFAST_TOGETHER, block>(call);
}

}  // namespace mlefast::module

using namespace mlefast;
using namespace mlefast::module;

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_terms(const T* x, T* out, Value* second, const Value* probabilities, const Value* v, const Value* u,
                  int64 rows, int64 classes, int64 x_row, int64 out_row, int64 second_row, int64 probabilities_row,
                  int64 v_row, int64 u_row, int64 inner, int64 step, const void* target, int target_kind,
                  int64 ignore_index, const Value* weight, const Value* positive, int64 period, const Value* upstream,
                  const Value* second_upstream, int64 upstream_row, int64 second_upstream_row, double scale,
                  double second_scale, const double* scale_at, double keep, double spread, double z_loss,
                  double softcap, double inverse_temperature, double gamma, double hessian, double floor, Value* value,
                  Value* second_value, int* hit, double* partial, double* parts, int64 length, int count, int pass) {
  const rules::Options options{keep, spread, z_loss, softcap, inverse_temperature, gamma, hessian, floor};
  run<Regime::MLEFAST_REGIME>({x,
                               out,
                               second,
                               probabilities,
                               v,
                               u,
                               rows,
                               classes,
                               x_row,
                               out_row,
                               second_row,
                               probabilities_row,
                               v_row,
                               u_row,
                               inner,
                               step,
                               target,
                               static_cast<Integer>(target_kind),
                               ignore_index,
                               weight,
                               positive,
                               period,
                               upstream,
                               second_upstream,
                               upstream_row,
                               second_upstream_row,
                               scale,
                               second_scale,
                               scale_at,
                               options,
                               value,
                               second_value,
                               hit,
                               partial},
                              {parts, length, count}, static_cast<Pass>(pass));
}
