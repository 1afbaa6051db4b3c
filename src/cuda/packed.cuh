// Few classes (at most 32), contiguous rows: a thread for each row.
//
// A warp's 32 rows are one run of memory, which it reads and writes in 16-byte vectors, whatever their length; shared
// memory deals them out to the threads. A row's slot has an odd length, so that the 32 threads, each reading its own
// row, find 32 different banks.
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

template <class Task, class T, int classes, int block> MLEFAST_FN void packed_rows(const Call<T>& call) {
  using Store = Storage<T>;
  using Ops = typename Store::Ops;
  using Value = typename Ops::Value;
  constexpr int lanes = Store::lanes, slot = classes | 1;
  constexpr int vectors = 32 * classes / lanes + 1;  // one more if the run is cut inside its first vector
  constexpr int steps = (vectors + 31) / 32;
  __shared__ Value shared[block / 32][32 * slot];

  const int lane = threadIdx.x % 32;
  const int64 begin = (static_cast<int64>(blockIdx.x) * block + threadIdx.x) / 32 * 32, row = begin + lane;
  const bool exists = row < call.rows;
  const int rows = call.rows - begin < 32 ? (call.rows > begin ? static_cast<int>(call.rows - begin) : 0) : 32;
  Value* const mine = shared[threadIdx.x / 32];

  const Window<T> in(call.x + begin * classes, rows * classes);
  uint4 raw[steps];
#pragma unroll
  for (int s = 0; s < steps; ++s) raw[s] = in.load(lane + 32 * s);
#pragma unroll
  for (int s = 0; s < steps; ++s) {
    Value v[lanes];
    Store::unpack(raw[s], v);
#pragma unroll
    for (int j = 0; j < lanes; ++j) {
      const int i = in.first(lane + 32 * s) + j;
      if (i >= 0 && i < 32 * classes) mine[i / classes * slot + i % classes] = v[j];
    }
  }
  __syncwarp();

  auto target = exists ? read_target<Task>(call, row) : Target<T>{-1, true, 0, 0, 0};
  Value v[classes];
#pragma unroll
  for (int j = 0; j < classes; ++j) v[j] = mine[lane * slot + j];
  if (Task::has_target && target.index >= 0) target.logit = mine[lane * slot + static_cast<int>(target.index)];
  constexpr bool exps = Task::emit == rules::Emit::scaled_exp;
  const Settled<Task, T> settled(thread_part<Ops, exps>(v), target);

  if constexpr (Task::has_value) {
    if (exists && call.value) call.value[row] = settled.value;
    if (call.partial) {
      const double sum = warp_sum<32>(exists ? static_cast<double>(settled.value) : 0.0);
      if (lane == 0 && exists) call.partial[begin / 32] = sum;
    }
  }
  if constexpr (Task::emit != rules::Emit::nothing) {
    finish<Task, T, exps>(v, settled);
#pragma unroll
    for (int j = 0; j < classes; ++j) mine[lane * slot + j] = target.ignored ? Ops::set(0) : v[j];
    if (Task::has_target && target.index >= 0) mine[lane * slot + static_cast<int>(target.index)] = settled.at_target;
    __syncwarp();
    const Window<T> to(call.out + begin * classes, rows * classes);
#pragma unroll
    for (int s = 0; s < steps; ++s) {
      Value w[lanes];
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        const int i = to.first(lane + 32 * s) + j;
        w[j] = i >= 0 && i < 32 * classes ? mine[i / classes * slot + i % classes] : Ops::set(0);
      }
      to.store(call.out + begin * classes, lane + 32 * s, w);
    }
  }
}

}  // namespace mlefast
