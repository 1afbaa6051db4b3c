// Kernels of two launches, for rows that several blocks share.
#include "module.cuh"
#include "streamed.cuh"

namespace mlefast::module {

using Task = TaskAt<MLEFAST_TASK, rules::Tasks>::type;

}  // namespace mlefast::module

using namespace mlefast;
using namespace mlefast::module;

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_scan(const T* x, T* out, int64 rows, int64 classes, int64 x_row, int64 out_row, const void* target,
                 int target_kind, int64 ignore_index, const Value* weight, const Value* upstream, int64 upstream_row,
                 double scale, const double* scale_at, Value* value, double* partial, Value* max, Value* others,
                 Value* logit, int64 length, int count) {
  scan_segments<Task, T, block>({x, out, rows, classes, x_row, out_row, target, static_cast<Integer>(target_kind),
                                 ignore_index, weight, upstream, upstream_row, scale, scale_at, value, partial},
                                {max, others, logit, length, count});
}

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_finish(const T* x, T* out, int64 rows, int64 classes, int64 x_row, int64 out_row, const void* target,
                   int target_kind, int64 ignore_index, const Value* weight, const Value* upstream, int64 upstream_row,
                   double scale, const double* scale_at, Value* value, double* partial, Value* max, Value* others,
                   Value* logit, int64 length, int count) {
  finish_segments<Task, T, block>({x, out, rows, classes, x_row, out_row, target, static_cast<Integer>(target_kind),
                                   ignore_index, weight, upstream, upstream_row, scale, scale_at, value, partial},
                                  {max, others, logit, length, count});
}
