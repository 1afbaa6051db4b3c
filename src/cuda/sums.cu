// What is done before and after the rows: denominators and reductions. Compiled for MLEFAST_STORAGE and MLEFAST_BLOCK.
#include "module.cuh"
#include "sums.cuh"

using namespace mlefast;
using namespace mlefast::module;

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_weigh(const void* target, int target_kind, int64 rows, int64 chunk, int64 classes, int64 ignore_index,
                  const Value* weight, double* sums, int64* first_wrong) {
  weigh_targets<Value, block>(target, static_cast<Integer>(target_kind), rows, chunk, classes, ignore_index, weight,
                              sums, first_wrong);
}

extern "C" __global__ void __launch_bounds__(block, 1)
    mlefast_add(const double* partial, int64 n, int64 chunk, double* sums, Value* quotient, double divisor,
                const double* divisor_at, double* inverse, double numerator) {
  add_up<Value, block>(partial, n, chunk, sums, quotient, divisor, divisor_at, inverse, numerator);
}
