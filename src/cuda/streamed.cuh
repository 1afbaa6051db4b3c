// Long rows: a block, or several, for each. Every thread carries the part that it has seen so far and merges tiles of
// logits into it; the second pass takes the exponentials again.
//
//   staged    a block for a row that fits in shared memory, which keeps the logits for the second pass: one read
//   streamed  a block for a row of any length: the second pass reads it again
//   split     several blocks for a row, where rows are few or very long: segments are scanned by one kernel, whose
//             parts the next one merges in order
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

template <class T, int block> struct Stream {
  using Store = Storage<T>;
  using Ops = typename Store::Ops;
  using Value = typename Ops::Value;
  static constexpr int lanes = Store::lanes;
  static constexpr int together = sizeof(Value) == 8 || lanes == 8 ? 4 : 8;  // vectors under way at a time

  // `keep`, if not null, gets a copy of the logits, as 16-byte vectors.
  static MLEFAST_FN Part<Ops> scan(const Window<T>& in, uint4* keep) {
    Part<Ops> part = empty_part<Ops>();
    for (int k = threadIdx.x; k < in.vectors(); k += block * together) {
      uint4 raw[together];
#pragma unroll
      for (int u = 0; u < together; ++u) raw[u] = in.load(k + u * block);
      Value v[together * lanes];
#pragma unroll
      for (int u = 0; u < together; ++u) {
        if (keep && k + u * block < in.vectors()) keep[k + u * block] = raw[u];
        Store::unpack(raw[u], reinterpret_cast<Value(&)[lanes]>(v[u * lanes]));
      }
      part = rules::merge<Ops>(part, thread_part<Ops, false>(v));
    }
    return part;
  }

  template <class Task>
  static MLEFAST_FN void write(const Window<T>& in, const uint4* kept, T* out, const Settled<Task, T>& settled) {
    for (int k = threadIdx.x; k < in.vectors(); k += block * together) {
      uint4 raw[together];
#pragma unroll
      for (int u = 0; u < together; ++u)
        raw[u] = !kept ? in.load(k + u * block) : k + u * block < in.vectors() ? kept[k + u * block] : in.padding();
#pragma unroll
      for (int u = 0; u < together; ++u) {
        Value v[lanes];
        Store::unpack(raw[u], v);
        finish<Task, T, false>(v, settled);
        in.template store<true>(out, k + u * block, v);
      }
    }
  }

  static MLEFAST_FN void write_zeros(const Window<T>& in, T* out) {
    const Value zeros[lanes] = {};
    for (int k = threadIdx.x; k < in.vectors(); k += block) in.template store<true>(out, k, zeros);
  }

  // The gradient's entry at the target, by the thread that has just written what stood there.
  static MLEFAST_FN void write_target(const Window<T>& in, T* out, int64 index, int n, Value entry) {
    if (index >= 0 && index < n && in.vector_of(static_cast<int>(index)) % block == static_cast<int>(threadIdx.x))
      Store::store(out + index, entry);
  }
};

template <class Task, class T, int block, bool staged> MLEFAST_FN void streamed_rows(const Call<T>& call) {
  using Row = Stream<T, block>;
  using Ops = typename Row::Ops;
  extern __shared__ uint4 kept[];
  const int64 row = blockIdx.x;
  const int classes = static_cast<int>(call.classes);
  const T* const x = call.x + row * call.x_row;
  auto target = read_target<Task>(call, row);
  if (Task::has_target && target.index >= 0) target.logit = Storage<T>::load(x + target.index);

  const Window<T> in(x, classes);
  Part<Ops> part = empty_part<Ops>();
  if (!target.ignored) part = Row::scan(in, staged && Task::emit != rules::Emit::nothing ? kept : nullptr);
  const Settled<Task, T> settled(block_reduce<Ops, block / 32>(warp_reduce<Ops>(part)), target);

  if constexpr (Task::has_value) {
    if (threadIdx.x == 0 && call.value) call.value[row] = settled.value;
    if (threadIdx.x == 0 && call.partial) call.partial[row] = static_cast<double>(settled.value);
  }
  if constexpr (Task::emit != rules::Emit::nothing) {
    T* const out = call.out + row * call.out_row;
    if (target.ignored) {
      Row::write_zeros(in, out);
      return;
    }
    Row::template write<Task>(in, staged ? kept : nullptr, out, settled);
    if (Task::has_target) Row::write_target(in, out, target.index, classes, settled.at_target);
  }
}

// What the first kernel leaves for the second.
template <class Value> struct Segments {
  Value *max, *others;  // of each segment of each row
  Value* logit;         // of each row's target, which the second kernel may overwrite
  int64 length;         // of a segment; a multiple of 16 bytes
  int count;            // for each row
};

template <class Task, class T, int block>
MLEFAST_FN void scan_segments(const Call<T>& call, const Segments<typename Storage<T>::Value>& segments) {
  using Row = Stream<T, block>;
  using Ops = typename Row::Ops;
  const int64 row = blockIdx.x / segments.count, begin = blockIdx.x % segments.count * segments.length;
  const T* const x = call.x + row * call.x_row;
  const int64 rest = call.classes - begin;
  const int n = static_cast<int>(rest < segments.length ? rest : segments.length);
  const auto target = read_target<Task>(call, row);
  if (Task::has_target && target.index >= 0 && begin == 0 && threadIdx.x == 0)
    segments.logit[row] = Storage<T>::load(x + target.index);

  Part<Ops> part = empty_part<Ops>();
  if (!target.ignored) part = Row::scan(Window<T>(x + begin, n), nullptr);
  part = block_reduce<Ops, block / 32>(warp_reduce<Ops>(part));
  if (threadIdx.x == 0) segments.max[blockIdx.x] = part.max, segments.others[blockIdx.x] = part.others;
}

template <class Task, class T, int block>
MLEFAST_FN void finish_segments(const Call<T>& call, const Segments<typename Storage<T>::Value>& segments) {
  using Row = Stream<T, block>;
  using Ops = typename Row::Ops;
  constexpr bool writes = Task::emit != rules::Emit::nothing;
  const int64 row = writes ? blockIdx.x / segments.count : blockIdx.x;
  const int64 begin = writes ? blockIdx.x % segments.count * segments.length : 0;
  auto target = read_target<Task>(call, row);
  if (Task::has_target && target.index >= 0) target.logit = segments.logit[row];

  Part<Ops> part = empty_part<Ops>();
  for (int64 s = threadIdx.x; s < segments.count; s += block) {
    const int64 at = row * segments.count + s;
    part = rules::merge<Ops>(part, {segments.max[at], segments.others[at]});
  }
  const Settled<Task, T> settled(block_reduce<Ops, block / 32>(warp_reduce<Ops>(part)), target);

  if constexpr (Task::has_value) {
    if (threadIdx.x == 0 && begin == 0 && call.value) call.value[row] = settled.value;
    if (threadIdx.x == 0 && begin == 0 && call.partial) call.partial[row] = static_cast<double>(settled.value);
  }
  if constexpr (writes) {
    const int64 rest = call.classes - begin;
    const int n = static_cast<int>(rest < segments.length ? rest : segments.length);
    const Window<T> in(call.x + row * call.x_row + begin, n);
    T* const out = call.out + row * call.out_row + begin;
    if (target.ignored) {
      Row::write_zeros(in, out);
      return;
    }
    Row::template write<Task>(in, nullptr, out, settled);
    if (Task::has_target) Row::write_target(in, out, target.index - begin, n, settled.at_target);
  }
}

}  // namespace mlefast
