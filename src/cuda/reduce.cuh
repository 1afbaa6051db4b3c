// warp_reduce -> block_reduce: the parts of a row that threads hold become the row, through the rules' merge.
//
// Every order is fixed by the threads' numbers, so a result has the same bits in every run.
#pragma once

#include "storage.cuh"

namespace mlefast {

constexpr unsigned whole_warp = 0xffffffffu;  // every lane of every warp takes part in every collective

template <class Ops> using Part = rules::State<Ops>;

// The part of a row that has no elements.
template <class Ops> MLEFAST_FN Part<Ops> empty_part() { return {-Ops::infinity(), Ops::set(0)}; }

// exp(-inf - 0) = 0 where exp(-inf - -inf) would be NaN: what exponentials are taken against.
template <class Ops> MLEFAST_FN typename Ops::Vec reference_point(typename Ops::Vec max) {
  return Ops::select(Ops::equal(max, -Ops::infinity()), Ops::set(0), max);
}

template <int group> MLEFAST_FN float warp_max(float x) {
#pragma unroll
  for (int distance = group / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(whole_warp, x, distance));
  return x;
}

template <int group> MLEFAST_FN double warp_max(double x) {
#pragma unroll
  for (int distance = group / 2; distance > 0; distance /= 2) x = fmax(x, __shfl_xor_sync(whole_warp, x, distance));
  return x;
}

// Between lanes of a group; all of them get the sum. Addition commutes, so they get the same bits.
template <int group, class Value> MLEFAST_FN Value warp_sum(Value x) {
#pragma unroll
  for (int distance = group / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(whole_warp, x, distance);
  return x;
}

// Between the lanes of a group, which is a part of a warp or the whole block; all of them get the same bits. A kernel
// takes each `place`, which stands for an array of shared memory, once: then no barrier is needed before it is written.
template <int group, int place, class Value, int n> MLEFAST_FN void group_sums(Value (&x)[n]) {
  constexpr int together = group < 32 ? group : 32;
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] = warp_sum<together>(x[i]);
  if constexpr (group > 32) {
    __shared__ Value sums[n][group / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0)
#pragma unroll
      for (int i = 0; i < n; ++i) sums[i][warp] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = warp_sum<32>(lane < group / 32 ? sums[i][lane] : Value(0));
  }
}

template <int group, int place, class Value> MLEFAST_FN Value group_max(Value x) {
  constexpr int together = group < 32 ? group : 32;
  x = warp_max<together>(x);
  if constexpr (group > 32) {
    __shared__ Value largest[group / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) largest[warp] = x;
    __syncthreads();
    x = warp_max<32>(largest[lane < group / 32 ? lane : 0]);
  }
  return x;
}

template <int group, int place> MLEFAST_FN int64 group_min(int64 x) {
  constexpr int together = group < 32 ? group : 32;
#pragma unroll
  for (int distance = together / 2; distance > 0; distance /= 2) {
    const int64 other = __shfl_xor_sync(whole_warp, x, distance);
    x = other < x ? other : x;
  }
  if constexpr (group > 32) {
    __shared__ int64 least[group / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) least[warp] = x;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < group / 32; ++w) x = least[w] < x ? least[w] : x;
  }
  return x;
}

template <class Ops> MLEFAST_FN Part<Ops> warp_reduce(Part<Ops> part) {
#pragma unroll 1  // unrolled, five pairs of float64 exponentials take registers that the row needs
  for (int distance = 16; distance > 0; distance /= 2)
    part = rules::merge<Ops>(
        part, {__shfl_xor_sync(whole_warp, part.max, distance), __shfl_xor_sync(whole_warp, part.others, distance)});
  // A fused multiply-add rounds a * x + b * y by the side that it is seen from: all lanes take the first one's.
  return {__shfl_sync(whole_warp, part.max, 0), __shfl_sync(whole_warp, part.others, 0)};
}

// Each warp holds one part, the same in all its lanes; all threads get the row. Called once in a kernel.
template <class Ops, int warps> MLEFAST_FN Part<Ops> block_reduce(Part<Ops> part) {
  __shared__ typename Ops::Value max[warps], others[warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) max[warp] = part.max, others[warp] = part.others;
  __syncthreads();
  part = lane < warps ? Part<Ops>{max[lane], others[lane]} : empty_part<Ops>();
  return warp_reduce<Ops>(part);
}

// The sum over a block in float64, in thread 0. Called once in a kernel.
template <int warps> MLEFAST_FN double block_sum(double x) {
  __shared__ double sums[warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_sum<32>(x);
  if (lane == 0) sums[warp] = x;
  __syncthreads();
  return warp_sum<32>(lane < warps ? sums[lane] : 0.0);
}

// Several logits of one thread, summed up: their maximum and how their exponentials against some `max`, theirs or a
// larger one, are split between those below it and those that attain it.
template <class Ops> struct Tally {
  typename Ops::Vec losers;
  int winners;
};

template <class Ops, int n> MLEFAST_FN typename Ops::Vec largest(const typename Ops::Vec (&v)[n]) {
  auto max = v[0];
#pragma unroll
  for (int i = 1; i < n; ++i) max = Ops::max(max, v[i]);
  return max;
}

// Replaces v by its exponentials if `keep`, which is then not computed a second time.
template <class Ops, bool keep, int n> MLEFAST_FN Tally<Ops> tally(typename Ops::Vec (&v)[n], typename Ops::Vec max) {
  const auto against = reference_point<Ops>(max);
  constexpr int chains = n % 4 == 0   ? 4
                         : n % 2 == 0 ? 2
                                      : 1;  // independent sums: shorter to wait for, and smaller errors
  typename Ops::Vec sum[chains] = {};
  int winners = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    const auto e = Ops::exp(v[i] - against);
    if (Ops::equal(v[i], max))
      ++winners;
    else  // a NaN is among these
      sum[i % chains] += e;
    if (keep) v[i] = e;
  }
#pragma unroll
  for (int i = 1; i < chains; ++i) sum[0] += sum[i];
  return {sum[0], winners};
}

// One thread's logits as a part of a row.
template <class Ops, bool keep, int n> MLEFAST_FN Part<Ops> thread_part(typename Ops::Vec (&v)[n]) {
  const auto max = largest<Ops>(v);
  const auto split = tally<Ops, keep>(v, max);
  // All of them NaN: their maximum counts as empty, and nobody has attained it.
  return {max, split.losers + Ops::set(split.winners > 0 ? split.winners - 1 : 0)};
}

// The logits of `group` neighbouring lanes as one part, the same in all of them. Their common maximum comes first, so
// that each exponential is taken once.
template <class Ops, bool keep, int group, int n> MLEFAST_FN Part<Ops> group_part(typename Ops::Vec (&v)[n]) {
  const auto max = warp_max<group>(largest<Ops>(v));
  const auto split = tally<Ops, keep>(v, max);
  const int lane = threadIdx.x % 32, first = lane / group * group;
  const unsigned lanes = group == 32 ? whole_warp : ((1u << group) - 1) << first;
  const int elected = __ffs(static_cast<int>(__ballot_sync(whole_warp, split.winners > 0) & lanes)) - 1;
  return {max, warp_sum<group>(split.losers + Ops::set(split.winners - (lane == elected)))};
}

}  // namespace mlefast
