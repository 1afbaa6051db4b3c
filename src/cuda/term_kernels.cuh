// Which thread holds what of a row whose loss is one of rules/term_losses.h:
//
//   resident     a few lanes, a warp or a block keep a row in registers: every array is read once
//   staged       a block keeps a row's logits in shared memory: they are read once, other arrays in each pass
//   streamed     a block for a row of any length: each pass that the loss needs reads it again
//   split        several blocks for a row, where rows are few: a launch for each pass (term_split.cuh)
//   across       a thread for a row whose classes are apart, so that neighbouring rows are neighbours in memory
//   elementwise  a block for a run of elements that know nothing of each other
#pragma once

#include "term_row.cuh"

namespace mlefast {

// `group` lanes hold `vectors` 16-byte vectors each.
template <class Loss, class Asked, class T, int group, int vectors, int block>
MLEFAST_FN void resident_terms(const TermCall<T>& call) {
  using Row = TermRow<Loss, Asked, T>;
  using Value = typename Storage<T>::Value;
  static_assert(block % group == 0 && (group <= 32 || group == block), "a group is a part of a warp or the block");
  const int64 number = static_cast<int64>(blockIdx.x) * (block / group) + threadIdx.x / group;
  const int rank = threadIdx.x % group, classes = static_cast<int>(call.classes);
  const bool exists = number < call.rows;

  Row row(call, number, exists);
  Held<T, vectors> held;
  // Nothing of an ignored row is read.
  const Place<Window<T>> at{Window<T>(row.x(), row.wanted ? classes : 0), 0, rank, group};
  row.template load<true>(at, held);
  if constexpr (Loss::softmax) {
    const Value max = group_max<group, 0>(Row::largest(held.x, -Row::Ops::infinity()));
    row.set_maximum(max);
    if constexpr (Asked::hits) {
      int64 x = group_min<group, 0>(Row::first_of(at, held.x, max, call.classes)), t = -1;
      if constexpr (Asked::probabilities) {
        const Value most = group_max<group, 1>(Row::largest(held.target, -Row::Ops::infinity()));
        t = group_min<group, 1>(Row::first_of(at, held.target, most, call.classes));
      }
      if (exists && rank == 0) row.write_hit(x, t);
    }
  }
  Value sum[Row::sums] = {};
  row.template add_terms<true>(at, held, sum);
  group_sums<group, 0>(sum);
  row.settle(sum);
  if constexpr (Loss::later > 0) {
    Value more[Row::later] = {};
    row.template add_later<true>(at, held, more);
    group_sums<group, 1>(more);
    row.finish(more);
  }
  row.conclude();

  if (exists && rank == 0) row.write_values();
  if constexpr (Loss::values > 0) {
    if (call.partial) {
      const double value = exists && rank == 0 ? static_cast<double>(row.value()) : 0.0;
      if constexpr (group > 32) {
        if (rank == 0) call.partial[number] = value;
      } else {  // one sum for the rows of a warp
        const double total = warp_sum<32>(value);
        if (threadIdx.x % 32 == 0 && exists) call.partial[number / (32 / group)] = total;
      }
    }
  }
  if constexpr (Asked::writes)
    if (exists) row.template write<true>(Place<Window<T>>{Window<T>(row.x(), classes), 0, rank, group}, held);
}

// A thread's tiles of classes [begin, end) of a row, one after the other: f(place, tile).
template <class T, int together, int block, class Load, class Use>
MLEFAST_FN void each_tile(const T* x, int64 begin, int64 end, Load load, Use use) {
  constexpr int64 segment = 1 << 24;  // classes that are counted in 32 bits
  for (; begin < end; begin += segment) {
    const Window<T> window(x + begin, static_cast<int>(end - begin < segment ? end - begin : segment));
    for (int k = threadIdx.x; k < window.vectors(); k += block * together) {
      const Place<Window<T>> at{window, begin, k, block};
      Held<T, together> held;
      load(at, held);
      use(at, held);
    }
  }
}

// The output of classes [begin, end) of a row, by a block that `each` leads over them.
template <class T, int block, class Row, class Each>
MLEFAST_FN void write_tiles(const Row& row, int64 begin, int64 end, Each each) {
  const auto write = [&](const auto& at, auto& held) { row.template write<false>(at, held); };
  if (row.wanted)
    each(write);
  else  // zeros, whatever the row holds, which is not read
    each_tile<T, 1, block>(row.x(), begin, end, [](const auto&, auto& held) { held = {}; }, write);
}

// The largest logit and, for hits, the largest probability; the first classes that have them.
template <class Value> struct Extremes {
  Value max, most;
  int64 x, t;
};

// Those of what `group` threads are led over, in a row of so many classes.
template <class Asked, int group, class Row, class EachLogit, class Each>
MLEFAST_FN auto find_extremes(const Row&, int64 classes, EachLogit each_logit, Each each) {
  using Ops = typename Row::Ops;
  Extremes<typename Ops::Value> found{-Ops::infinity(), -Ops::infinity(), classes, classes};
  each_logit([&](const auto&, auto& held) { found.max = Row::largest(held.x, found.max); });
  found.max = group_max<group, 0>(found.max);
  if constexpr (Asked::hits) {
    each([&](const auto& at, auto& held) {
      found.x = Row::first_of(at, held.x, found.max, found.x);
      if constexpr (Asked::probabilities) found.most = Row::largest(held.target, found.most);
    });
    found.x = group_min<group, 0>(found.x);
    if constexpr (Asked::probabilities) {
      found.most = group_max<group, 1>(found.most);
      each([&](const auto& at, auto& held) { found.t = Row::first_of(at, held.target, found.most, found.t); });
      found.t = group_min<group, 1>(found.t);
    }
  }
  return found;
}

// All passes but the last over a row that is read anew in each, by `group` threads of which one is the `first`.
template <class Loss, class Asked, int group, class Row, class EachLogit, class Each>
MLEFAST_FN void make_passes(Row& row, int64 classes, bool first, EachLogit each_logit, Each each) {
  if constexpr (Loss::softmax) {
    const auto found = find_extremes<Asked, group>(row, classes, each_logit, each);
    row.set_maximum(found.max);
    if constexpr (Asked::hits)
      if (first) row.write_hit(found.x, found.t);
  }
  double sum[Row::sums] = {};
  each([&](const auto& at, auto& held) { row.template add_terms<false>(at, held, sum); });
  group_sums<group, 0>(sum);
  row.settle(sum);
  if constexpr (Loss::later > 0) {
    double more[Row::later] = {};
    each([&](const auto& at, auto& held) { row.template add_later<false>(at, held, more); });
    group_sums<group, 1>(more);
    row.finish(more);
  }
  row.conclude();
  if (first) row.write_values();
}

template <class Loss, class Asked, class T, bool staged, int together, int block>
MLEFAST_FN void streamed_terms(const TermCall<T>& call) {
  using Row = TermRow<Loss, Asked, T>;
  Row row(call, blockIdx.x, true);
  const int64 classes = row.wanted ? call.classes : 0;
  // Each thread finds there what it has left itself: no barrier is needed.
  extern __shared__ uint4 kept[];
  const auto each_logit = [&](auto use) {
    const auto load = [&](const auto& at, auto& held) {
      row.template load<false>(at, held, nullptr, staged ? kept : nullptr);
    };
    each_tile<T, 2 * together, block>(row.x(), 0, classes, load, use);
  };
  const auto each = [&](auto use) {
    const auto load = [&](const auto& at, auto& held) { row.template load<true>(at, held, staged ? kept : nullptr); };
    each_tile<T, together, block>(row.x(), 0, classes, load, use);
  };
  if constexpr (staged && !Loss::softmax) each_logit([](const auto&, auto&) {});
  make_passes<Loss, Asked, block>(row, call.classes, threadIdx.x == 0, each_logit, each);

  if constexpr (Loss::values > 0)
    if (threadIdx.x == 0 && call.partial) call.partial[blockIdx.x] = static_cast<double>(row.value());
  if constexpr (Asked::writes) write_tiles<T, block>(row, 0, call.classes, each);
}

template <class Loss, class Asked, class T, int together, int block>
MLEFAST_FN void across_terms(const TermCall<T>& call) {
  using Row = TermRow<Loss, Asked, T>;
  const int64 number = static_cast<int64>(blockIdx.x) * block + threadIdx.x;
  const bool exists = number < call.rows;
  Row row(call, number, exists);
  const int classes = row.wanted ? static_cast<int>(call.classes) : 0;
  const auto each_of = [&](int n, auto load, auto use) {
    const Column<T> column(row.x(), n, call.step);
    for (int k = 0; k < column.vectors(); k += together) {
      const Place<Column<T>> at{column, 0, k, 1};
      Held<T, together> held;
      load(at, held);
      use(at, held);
    }
  };
  const auto each_logit = [&](auto use) {
    each_of(classes, [&](const auto& at, auto& held) { row.template load<false>(at, held); }, use);
  };
  const auto each = [&](auto use) {
    each_of(classes, [&](const auto& at, auto& held) { row.template load<true>(at, held); }, use);
  };
  make_passes<Loss, Asked, 1>(row, call.classes, exists, each_logit, each);

  if constexpr (Loss::values > 0) {
    if (call.partial) {  // one sum for the rows of a warp
      const double total = warp_sum<32>(exists ? static_cast<double>(row.value()) : 0.0);
      if (threadIdx.x % 32 == 0 && exists) call.partial[number / 32] = total;
    }
  }
  if constexpr (Asked::writes) {
    const auto write = [&](const auto& at, auto& held) { row.template write<false>(at, held); };
    if (row.wanted)
      each(write);
    else if (exists)
      each_of(static_cast<int>(call.classes), [](const auto&, auto& held) { held = {}; }, write);
  }
}

template <class Loss, class Asked, class T, int together, int block>
MLEFAST_FN void elementwise_terms(const TermCall<T>& call) {
  using Row = TermRow<Loss, Asked, T>;
  const int64 begin = blockIdx.x * call.classes, rest = call.rows - begin;
  const int n = static_cast<int>(rest < call.classes ? rest : call.classes);
  const Row row(call, 0, true);
  const Window<T> window(call.x + begin, n);
  double sum = 0;
  for (int k = threadIdx.x; k < window.vectors(); k += block * together) {
    const Place<Window<T>> at{window, begin, k, block};
    Held<T, together> held;
    row.template load<true>(at, held);
    sum += row.write_elements(at, held);
  }
  if (call.partial) {
    sum = block_sum<block / 32>(sum);
    if (threadIdx.x == 0) call.partial[blockIdx.x] = sum;
  }
}

}  // namespace mlefast
