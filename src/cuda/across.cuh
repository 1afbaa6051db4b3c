// Rows whose classes are apart in memory, as along an axis that is not the last: a thread for each. Its classes are
// `step` apart, and neighbouring threads have neighbouring rows, so a warp reads and writes whole runs of memory.
//
// Every thread merges tiles of logits into the part of its row that it has seen; the second pass takes the exponentials
// again.
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

template <class Task, class T, int block> MLEFAST_FN void across_rows(const Call<T>& call, int64 inner, int64 step) {
  using Store = Storage<T>;
  using Ops = typename Store::Ops;
  using Value = typename Ops::Value;
  constexpr int lanes = Store::lanes;
  const int64 row = static_cast<int64>(blockIdx.x) * block + threadIdx.x;
  const bool exists = row < call.rows;
  const int classes = static_cast<int>(call.classes);
  auto target = exists ? read_target<Task>(call, row) : Target<T>{-1, true, 0, 0, 0};
  const T* const x = call.x + row / inner * call.x_row + row % inner;
  if (Task::has_target && target.index >= 0) target.logit = Store::load(x + target.index * step);

  const Column<T> in(x, target.ignored ? 0 : classes, step);
  Part<Ops> part = empty_part<Ops>();
  for (int k = 0; k < in.vectors(); ++k) {
    Value v[lanes];
    Store::unpack(in.load(k), v);
    part = rules::merge<Ops>(part, thread_part<Ops, false>(v));
  }
  const Settled<Task, T> settled(part, target);

  if constexpr (Task::has_value) {
    if (exists && call.value) call.value[row] = settled.value;
    if (call.partial) {
      const double sum = warp_sum<32>(exists ? static_cast<double>(settled.value) : 0.0);
      if (threadIdx.x % 32 == 0 && exists) call.partial[row / 32] = sum;
    }
  }
  if constexpr (Task::emit != rules::Emit::nothing) {
    if (!exists) return;
    T* const out = call.out + row / inner * call.out_row + row % inner;
    const Column<T> to(x, classes, step);
    for (int k = 0; k < to.vectors(); ++k) {
      Value v[lanes] = {};
      if (!target.ignored) {
        Store::unpack(to.load(k), v);
        finish<Task, T, false>(v, settled);
      }
      to.template store<true>(out, k, v);
    }
    if (Task::has_target && target.index >= 0) Store::store(out + target.index * step, settled.at_target);
  }
}

}  // namespace mlefast
