// A few long rows whose loss is one of rules/term_losses.h: several blocks share a row, and each pass is a launch.
//
// A block leaves what its part of the row gives; the blocks of the later launches merge all parts of their row, in an
// order that the threads' numbers fix, so that each of them knows the same bits of it.
#pragma once

#include "term_kernels.cuh"

namespace mlefast {

enum class Pass : int { extremes, sums, later, outputs };

// What the blocks of a launch leave for the next: for each row, `fields` runs of `count` numbers.
struct Parts {
  static constexpr int max = 0, most = 1, x = 2, t = 3, sum = 4, later = 8, fields = 10;

  double* at;
  int64 length;  // classes of a part, a multiple of 16 bytes
  int count;     // of each row

  MLEFAST_FN double* field(int64 row, int which) const { return at + (row * fields + which) * count; }
};

// The launches that a loss takes, as bits.
template <class Loss> constexpr int passes = (Loss::softmax ? 1 : 0) + 2 + (Loss::later > 0 ? 4 : 0) + 8;

template <class Loss, class Asked, class T, int together, int block>
MLEFAST_FN void split_terms(const TermCall<T>& call, const Parts& parts, Pass pass) {
  using Row = TermRow<Loss, Asked, T>;
  using Ops = typename Row::Ops;
  using Value = typename Ops::Value;
  static_assert(Parts::sum + Row::sums <= Parts::later && Parts::later + Row::later <= Parts::fields, "no room");
  const int64 number = blockIdx.x / parts.count;
  const int part = static_cast<int>(blockIdx.x % parts.count);
  if (!Asked::writes && pass == Pass::outputs && part > 0) return;
  Row row(call, number, true);

  const int64 begin = part * parts.length, rest = call.classes - begin;
  const int64 end = begin + (rest < parts.length ? rest : parts.length);
  const auto each_logit = [&](auto use) {
    const auto load = [&](const auto& at, auto& held) { row.template load<false>(at, held); };
    each_tile<T, 2 * together, block>(row.x(), begin, row.wanted ? end : begin, load, use);
  };
  const auto each = [&](auto use) {
    const auto load = [&](const auto& at, auto& held) { row.template load<true>(at, held); };
    each_tile<T, together, block>(row.x(), begin, row.wanted ? end : begin, load, use);
  };
  const auto leave = [&](int which, double x) {
    if (threadIdx.x == 0) parts.field(number, which)[part] = x;
  };
  const auto each_part = [&](auto use) {
    for (int s = threadIdx.x; s < parts.count; s += block) use(s);
  };
  // Of all parts, where one of their numbers is this.
  const auto first_of = [&](int which, int most, Value is) {
    int64 first = call.classes;
    each_part([&](int s) {
      const auto i = static_cast<int64>(parts.field(number, which)[s]);
      if (Ops::equal(static_cast<Value>(parts.field(number, most)[s]), is) && i < first) first = i;
    });
    return first;
  };
  const auto largest_of = [&](int which) {
    Value most = -Ops::infinity();
    each_part([&](int s) { most = Ops::max(most, static_cast<Value>(parts.field(number, which)[s])); });
    return most;
  };

  if constexpr (Loss::softmax) {
    if (pass == Pass::extremes) {
      const auto found = find_extremes<Asked, block>(row, call.classes, each_logit, each);
      leave(Parts::max, found.max);
      if constexpr (Asked::hits) {
        leave(Parts::x, static_cast<double>(found.x));
        if constexpr (Asked::probabilities)
          leave(Parts::most, found.most), leave(Parts::t, static_cast<double>(found.t));
      }
      return;
    }
    const Value max = group_max<block, 0>(largest_of(Parts::max));
    row.set_maximum(max);
    if constexpr (Asked::hits) {
      if (pass == Pass::outputs && part == 0) {
        const int64 x = group_min<block, 0>(first_of(Parts::x, Parts::max, max));
        int64 t = call.classes;
        if constexpr (Asked::probabilities) {
          const Value most = group_max<block, 1>(largest_of(Parts::most));
          t = group_min<block, 1>(first_of(Parts::t, Parts::most, most));
        }
        if (threadIdx.x == 0) row.write_hit(x, t);
      }
    }
  }
  double sum[Row::sums] = {};
  if (pass == Pass::sums)
    each([&](const auto& at, auto& held) { row.template add_terms<false>(at, held, sum); });
  else
    each_part([&](int s) {
      for (int i = 0; i < Row::sums; ++i) sum[i] += parts.field(number, Parts::sum + i)[s];
    });
  group_sums<block, 0>(sum);
  if (pass == Pass::sums) {
    for (int i = 0; i < Row::sums; ++i) leave(Parts::sum + i, sum[i]);
    return;
  }
  row.settle(sum);
  if constexpr (Loss::later > 0) {
    double more[Row::later] = {};
    if (pass == Pass::later)
      each([&](const auto& at, auto& held) { row.template add_later<false>(at, held, more); });
    else
      each_part([&](int s) {
        for (int i = 0; i < Row::later; ++i) more[i] += parts.field(number, Parts::later + i)[s];
      });
    group_sums<block, 1>(more);
    if (pass == Pass::later) {
      for (int i = 0; i < Row::later; ++i) leave(Parts::later + i, more[i]);
      return;
    }
    row.finish(more);
  }
  row.conclude();

  if (part == 0 && threadIdx.x == 0) {
    row.write_values();
    if constexpr (Loss::values > 0)
      if (call.partial) call.partial[number] = static_cast<double>(row.value());
  }
  if constexpr (Asked::writes) write_tiles<T, block>(row, begin, end, each);
}

}  // namespace mlefast
