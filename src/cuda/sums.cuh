// Sums over rows, in float64 and in an order that the number of rows alone decides.
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

// What "mean" divides by. Block b sums up targets [b * chunk, (b + 1) * chunk): the weights of those that are not
// ignored, and the position of the first that is no class (or `rows`). A wrong target weighs nothing.
template <class Value, int block>
MLEFAST_FN void weigh_targets(const void* target, Integer kind, int64 rows, int64 chunk, int64 classes,
                              int64 ignore_index, const Value* weight, double* sums, int64* first_wrong) {
  const int64 begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  double sum = 0;
  int64 wrong = rows;
  for (int64 i = begin + threadIdx.x; i < end; i += block) {
    const int64 y = load_integer(target, kind, i);
    if (y == ignore_index) continue;
    if (y >= 0 && y < classes)
      sum += weight ? static_cast<double>(weight[y]) : 1.0;
    else if (wrong == rows)
      wrong = i;
  }
  sum = block_sum<block / 32>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;

  __shared__ int64 wrongs[block / 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const int64 other = __shfl_xor_sync(whole_warp, wrong, distance);
    wrong = other < wrong ? other : wrong;
  }
  if (threadIdx.x % 32 == 0) wrongs[threadIdx.x / 32] = wrong;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < block / 32; ++w) wrong = wrongs[w] < wrong ? wrongs[w] : wrong;
    first_wrong[blockIdx.x] = wrong;
  }
}

// Block b sums up partial[b * chunk, (b + 1) * chunk). What else is asked for belongs to the last level, of one block:
// *quotient = sum / divisor, where divisor is *divisor_at if that is given; *inverse = numerator / sum.
template <class Value, int block>
MLEFAST_FN void add_up(const double* partial, int64 n, int64 chunk, double* sums, Value* quotient, double divisor,
                       const double* divisor_at, double* inverse, double numerator) {
  const int64 begin = blockIdx.x * chunk, end = begin + chunk < n ? begin + chunk : n;
  double sum = 0;
  for (int64 i = begin + threadIdx.x; i < end; i += block) sum += partial[i];
  sum = block_sum<block / 32>(sum);
  if (threadIdx.x == 0) {
    if (sums) sums[blockIdx.x] = sum;
    if (quotient) *quotient = static_cast<Value>(sum / (divisor_at ? *divisor_at : divisor));
    if (inverse) *inverse = numerator / sum;
  }
}

}  // namespace mlefast
