// A row that fits in the registers of a few lanes, a warp or a block: read once, written once.
//
// `group` lanes hold `vectors` 16-byte vectors each. Exponentials are taken against the maximum that the group's part
// in one warp has, once, and stay where the logits were; a row of several warps rescales them with the final factor.
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

template <class Task, class T, int group, int vectors, int block> MLEFAST_FN void resident_rows(const Call<T>& call) {
  using Store = Storage<T>;
  using Ops = typename Store::Ops;
  using Value = typename Ops::Value;
  static_assert(block % group == 0 && (group <= 32 || group == block), "a group is a part of a warp or the block");
  constexpr int lanes = Store::lanes, together = group < 32 ? group : 32;
  constexpr bool exps = Task::emit == rules::Emit::scaled_exp;

  const int64 row = static_cast<int64>(blockIdx.x) * (block / group) + threadIdx.x / group;
  const int rank = threadIdx.x % group, classes = static_cast<int>(call.classes);
  const bool exists = row < call.rows;
  auto target = exists ? read_target<Task>(call, row) : Target<T>{-1, true, 0, 0, 0};

  const T* const x = call.x + row * call.x_row;
  const Window<T> in(x, target.ignored ? 0 : classes);  // nothing of an ignored row is read
  uint4 raw[vectors];
#pragma unroll
  for (int k = 0; k < vectors; ++k) raw[k] = in.load(rank + k * group);
  if (Task::has_target && target.index >= 0) target.logit = Store::load(x + target.index);
  Value v[vectors * lanes];
#pragma unroll
  for (int k = 0; k < vectors; ++k) Store::unpack(raw[k], reinterpret_cast<Value(&)[lanes]>(v[k * lanes]));

  const Part<Ops> part = group_part<Ops, exps, together>(v);
  Part<Ops> whole = part;
  if constexpr (group > 32) whole = block_reduce<Ops, group / 32>(part);
  Settled<Task, T> settled(whole, target);

  if constexpr (Task::has_value) {
    if (exists && rank == 0 && call.value) call.value[row] = settled.value;
    if (call.partial) {
      if constexpr (group > 32) {
        if (rank == 0) call.partial[row] = static_cast<double>(settled.value);
      } else {  // one sum for the rows of a warp
        const double sum = warp_sum<32>(exists && rank == 0 ? static_cast<double>(settled.value) : 0.0);
        if (threadIdx.x % 32 == 0 && exists) call.partial[row / (32 / group)] = sum;
      }
    }
  }
  if constexpr (Task::emit != rules::Emit::nothing) {
    if (exps && group > 32 && !target.ignored) settled.factor *= rules::rescale<Ops>(part.max, whole.max);
    finish<Task, T, exps>(v, settled);
    __syncwarp();  // the lanes that share a target's logit have read it before it is overwritten
    if (!exists) return;
    T* const out = call.out + row * call.out_row;
    const Window<T> to(x, classes);
#pragma unroll
    for (int k = 0; k < vectors; ++k) to.store(out, rank + k * group, reinterpret_cast<Value(&)[lanes]>(v[k * lanes]));
    // By the thread that has just written what stood there.
    if (Task::has_target && target.index >= 0 && to.vector_of(static_cast<int>(target.index)) % group == rank)
      Store::store(out + target.index, settled.at_target);
  }
}

}  // namespace mlefast
