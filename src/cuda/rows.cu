// Kernels of one launch: a row belongs to a thread, a few lanes, a warp or a block.
#include "across.cuh"
#include "module.cuh"
#include "packed.cuh"
#include "resident.cuh"
#include "streamed.cuh"

#ifndef MLEFAST_CLASSES
#define MLEFAST_CLASSES 1
#endif
#ifndef MLEFAST_GROUP
#define MLEFAST_GROUP 32
#define MLEFAST_VECTORS 1
#endif

namespace mlefast::module {

enum class Regime { packed, resident, staged, streamed, across };
using Task = TaskAt<MLEFAST_TASK, rules::Tasks>::type;

template <Regime regime> MLEFAST_FN void run(const Call<T>& call, int64 inner, int64 step) {
  if constexpr (regime == Regime::packed) packed_rows<Task, T, MLEFAST_CLASSES, block>(call);
  if constexpr (regime == Regime::resident) resident_rows<Task, T, MLEFAST_GROUP, MLEFAST_VECTORS, block>(call);
  if constexpr (regime == Regime::staged) streamed_rows<Task, T, block, true>(call);
  if constexpr (regime == Regime::streamed) streamed_rows<Task, T, block, false>(call);
  if constexpr (regime == Regime::across) across_rows<Task, T, block>(call, inner, step);
}

}  // namespace mlefast::module

using namespace mlefast;
using namespace mlefast::module;

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_rows(const T* x, T* out, int64 rows, int64 classes, int64 x_row, int64 out_row, const void* target,
                 int target_kind, int64 ignore_index, const Value* weight, const Value* upstream, int64 upstream_row,
                 double scale, const double* scale_at, Value* value, double* partial, int64 inner, int64 step) {
  run<Regime::MLEFAST_REGIME>({x, out, rows, classes, x_row, out_row, target, static_cast<Integer>(target_kind),
                               ignore_index, weight, upstream, upstream_row, scale, scale_at, value, partial},
                              inner, step);
}
