// The losses of rules/term_losses.h over rows: every pass that a loss asks for, over elements that are in cache from
// the second pass on.
//
// The vector runs along the row, or across rows that are neighbours in memory; rows of few classes are transposed into
// the second form. Both are the same loop: an item is the next vector of a row, or the next class of a vector of rows.
#pragma once

#include "term_run.hpp"
#include "transpose.hpp"
#include "vectors.hpp"

namespace mlefast {

template <class Ops_> struct TermOps : Ops_ {
  using Value = typename Ops_::Value;
  // Exponentials come as exp_scaled leaves them, so that those of far-off classes stay normal numbers.
  static constexpr Value unit = MathConstants<Value>::scale, inverse_unit = MathConstants<Value>::unscale;
};

// x becomes cap(x). Not inlined: few calls ask for it, and it would be most of every kernel.
template <class Ops, int k>
__attribute__((noinline)) void cap(typename Ops::Vec (&x)[k], typename Ops::Vec (&slope)[k],
                                   typename Ops::Vec (&bend)[k], double softcap) {
  for (int q = 0; q < k; ++q) {
    const auto capped = rules::cap<Ops>(x[q], softcap);
    x[q] = capped.value, slope[q] = capped.slope, bend[q] = capped.bend;
  }
}

template <class Isa, class Loss, bool along> class TermTile {
  using Ops = TermOps<Isa>;
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Mask = typename Ops::Mask;
  using Element = rules::Element<Ops>;
  static constexpr int lanes = Ops::lanes, K = 4;
  static constexpr int terms = Loss::sums + Loss::weighted;
  static constexpr T infinity = static_cast<T>(__builtin_inf());

  const TermRun<T>& run;
  const int64_t at;             // the tile's first element
  const int64_t items, stride;  // of a row or a vector of rows; between items, in elements
  const int64_t part;           // elements of the last item (along), or of all of them
  const int64_t whole;          // items with all elements
  const bool smooths;           // the probabilities of targets
  const bool stores;            // exponentials wait in the output for the passes after the first

  int64_t index = -1;  // the target index of the row, or -1, and that of each lane's row
  Vec label;
  Vec hot;  // what the loss puts on it
  Vec lane_numbers;
  Vec x_max, capped_max, inverse_temperature, inverse_total, keep, spread;
  rules::Row<Ops> row;
  Vec row_weight;
  Mask wanted;  // neither ignored nor beyond the last row

  enum Pass { sum_pass, later_pass, emit_pass };

 public:
  // Rows [first, first + n); along a row n is 1.
  TermTile(const TermRun<T>& run_, int64_t first, int64_t n)
      : run(run_),
        at(first * run_.row),
        items(along ? (run_.classes + lanes - 1) / lanes : run_.classes),
        stride(along ? lanes : run_.class_),
        part(along ? run_.classes - (items - 1) * lanes : n),
        whole(part == lanes ? items
              : along       ? items - 1
                            : 0),
        smooths(run_.options.keep != 1 || run_.options.spread != 0),
        stores(Loss::softmax && !Loss::needs_gap && run_.out[0] && run_.options.softcap == 0) {
    read_targets(first, n);
    lane_numbers = count_lanes(), keep = value_of(run.options.keep), spread = value_of(run.options.spread);
  }

  void work(int64_t first, int64_t n, Sum<Ops>& total) {
    if (along && !Ops::any(wanted)) return leave_out(first);
    if (run.hit) find_hits(run, at, first, n);
    if constexpr (Loss::softmax) find_maximum();
    sum_up();
    Loss::settle(row, run.options);
    if constexpr (Loss::later > 0) {
      sum_later();
      Loss::finish(row, run.options);
    }
    // What has no softmax, or holds a NaN, must not look as if it had one.
    const Vec poison = Loss::softmax ? row.state.poison() + (row.state.others - row.state.others) : Ops::set(0);
    if constexpr (Loss::values > 0 && !Loss::elementwise) {
      row.value[0] = Ops::keep(wanted, row.value[0] * row_weight + poison);
      if constexpr (!along) total.add(row.value[0]);
      if constexpr (along) total.add(Ops::select(first_lane(), row.value[0], Ops::set(0)));
      for (int k = 0; k < Loss::values; ++k)
        if (run.value[k]) store_rows(run.value[k] + first, k == 0 ? row.value[0] : Ops::keep(wanted, row.value[k]), n);
    }
    for (auto& s : row.scale) s = s * row_weight + poison;
    if (Loss::elementwise || run.out[0]) emit(total);
  }

 private:
  static MLEFAST_FN Vec count_lanes() {
    T i[lanes];
    for (int k = 0; k < lanes; ++k) i[k] = static_cast<T>(k);
    return Ops::load(i);
  }
  static MLEFAST_FN Mask first_lane() { return Ops::less(count_lanes(), Ops::set(1)); }
  static MLEFAST_FN Vec value_of(double x) { return Ops::set(static_cast<T>(x)); }

  MLEFAST_FN void read_targets(int64_t first, int64_t n) {
    T labels[lanes], hots[lanes], weights[lanes], scales[2][lanes], active[lanes];
    for (int i = 0; i < lanes; ++i) {
      const int64_t r = first + (along ? 0 : i);
      labels[i] = -1, hots[i] = 0, weights[i] = 1, active[i] = 0;
      for (int k = 0; k < 2; ++k) scales[k][i] = 0;
      if (!along && i >= n) continue;
      active[i] = 1;
      for (int k = 0; k < 2; ++k)
        scales[k][i] = static_cast<T>(run.scale[k] * (run.upstream[k] ? double(run.upstream[k][r]) : 1.0));
      if (!run.target) continue;
      const int64_t y = run.target[r];
      if (y == run.ignore_index) {
        active[i] = 0;
      } else if (y < 0 || y >= run.classes) {  // reported before any kernel started; here it must only do no harm
        hots[i] = weights[i] = static_cast<T>(__builtin_nan(""));
      } else {
        index = y, labels[i] = static_cast<T>(y);
        const T w = run.weight ? run.weight[y] : T(1);
        hots[i] = static_cast<T>(run.options.keep) * (Loss::weighs_rows ? T(1) : w);
        if (Loss::weighs_rows) weights[i] = w;
      }
    }
    label = Ops::load(labels), hot = Ops::load(hots), row_weight = Ops::load(weights);
    for (int k = 0; k < 2; ++k) row.scale[k] = Ops::load(scales[k]);
    wanted = Ops::less(Ops::set(0), Ops::load(active));
  }

  template <bool all> MLEFAST_FN Vec load(const T* p, int64_t i, T fill) const {
    return all || i < whole ? Ops::load(p + at + i * stride) : Ops::load(p + at + i * stride, part, fill);
  }
  template <bool all> MLEFAST_FN void store(T* p, int64_t i, Vec v) const {
    all || i < whole ? Ops::store(p + at + i * stride, v) : Ops::store(p + at + i * stride, v, part);
  }
  template <bool all> MLEFAST_FN Vec of_class(const T* p, int64_t i) const {
    if (!along) return Ops::set(p[i]);
    return all || i < whole ? Ops::load(p + i * lanes) : Ops::load(p + i * lanes, part, 0);
  }
  MLEFAST_FN void store_rows(T* p, Vec v, int64_t n) const { n < lanes ? Ops::store(p, v, n) : Ops::store(p, v); }

  MLEFAST_FN void leave_out(int64_t first) {
    for (int k = 0; k < Loss::values; ++k)
      if (run.value[k]) run.value[k][first] = 0;
    if (run.hit) run.hit[first] = 0;
    for (auto* out : run.out)
      for (int64_t i = 0; out && i < items; ++i) store<false>(out, i, Ops::set(0));
  }

  MLEFAST_FN void find_maximum() {
    Vec best[K];
    for (auto& v : best) v = Ops::set(-infinity);
    int64_t i = 0;
    for (; i + K <= whole; i += K)
      for (int q = 0; q < K; ++q) best[q] = Ops::max(best[q], Ops::load(run.x + at + (i + q) * stride));
    for (; i < items; ++i) best[0] = Ops::max(best[0], load<false>(run.x, i, -infinity));
    x_max = Ops::max(Ops::max(best[0], best[1]), Ops::max(best[2], best[3]));
    if (along) x_max = Ops::set(Ops::reduce_max(x_max));
    inverse_temperature = value_of(run.options.inverse_temperature);
    Vec top[1] = {x_max}, slope[1], bend[1];
    if (run.options.softcap > 0) cap<Ops, 1>(top, slope, bend, run.options.softcap);
    capped_max = top[0];
    row.state.max = capped_max * inverse_temperature;
  }

  // k elements from item i on; `all` if none of these items is the short one. Options are looked at once for all k, in
  // loops that unroll: what an element consists of then stays in registers.
  template <int k, Pass pass, bool all> MLEFAST_FN void read(int64_t i, Element (&of)[k]) const {
    const bool stored = pass != sum_pass && stores;
    if (run.probabilities) {
      for (int q = 0; q < k; ++q) of[q].target = load<all>(run.probabilities, i + q, 0);
      if (smooths)
        for (int q = 0; q < k; ++q) of[q].target = keep * of[q].target + spread;
    } else {
      for (int q = 0; q < k; ++q) of[q].target = spread;
    }
    if (run.weight)
      for (int q = 0; q < k; ++q) of[q].weight = of_class<all>(run.weight, i + q);
    else
      for (int q = 0; q < k; ++q) of[q].weight = Ops::set(1);
    for (int q = 0; q < k; ++q) of[q].mass = of[q].target * of[q].weight;
    if (along && index >= i * lanes && index < (i + k) * lanes)
      for (int q = 0; q < k; ++q) {
        const auto here = Ops::equal(lane_numbers, Ops::set(static_cast<T>(index - (i + q) * lanes)));
        of[q].mass = of[q].mass + Ops::keep(here, hot);
      }
    if (!along && run.target)
      for (int q = 0; q < k; ++q)
        of[q].mass = of[q].mass + Ops::keep(Ops::equal(label, Ops::set(static_cast<T>(i + q))), hot);
    for (int q = 0; q < k; ++q) of[q].positive = of[q].v = of[q].u = Ops::set(1);
    if (run.positive)
      for (int q = 0; q < k; ++q) of[q].positive = of_class<all>(run.positive, i + q);
    if (run.v)
      for (int q = 0; q < k; ++q) of[q].v = load<all>(run.v, i + q, 0);
    if (run.u)
      for (int q = 0; q < k; ++q) of[q].u = load<all>(run.u, i + q, 0);
    if constexpr (!Loss::softmax) {
      for (int q = 0; q < k; ++q) of[q].x = load<all>(run.x, i + q, 0);
    } else {
      for (int q = 0; q < k; ++q) of[q].slope = inverse_temperature, of[q].bend = of[q].gap = Ops::set(0);
      if (stored) {
        for (int q = 0; q < k; ++q) of[q].e = load<all>(run.out[0], i + q, 0);
        // Of a class that is so close to the winner that its exponential is 1, too, 1 - p is what it is of that.
        for (int q = 0; q < k; ++q) of[q].wins = Ops::equal(of[q].e, Ops::set(Ops::unit));
      } else {
        Vec v[k];
        for (int q = 0; q < k; ++q) v[q] = of[q].x = load<all>(run.x, i + q, -infinity);
        if (run.options.softcap > 0) {
          Vec slope[k], bend[k];
          cap<Ops, k>(v, slope, bend, run.options.softcap);
          for (int q = 0; q < k; ++q) of[q].slope = slope[q] * inverse_temperature;
          for (int q = 0; q < k; ++q) of[q].bend = bend[q] * inverse_temperature;
        }
        for (int q = 0; q < k; ++q) of[q].wins = Ops::equal(of[q].x, x_max);
        for (int q = 0; q < k; ++q) of[q].gap = (capped_max - v[q]) * inverse_temperature;
        for (int q = 0; q < k; ++q) v[q] = Ops::set(0) - of[q].gap;
        Ops::exp_scaled(v);
        for (int q = 0; q < k; ++q) of[q].e = v[q];
        if (pass == sum_pass && stores)
          for (int q = 0; q < k; ++q) store<all>(run.out[0], i + q, v[q]);
      }
      if (pass != sum_pass)
        for (int q = 0; q < k; ++q) of[q].p = of[q].e * inverse_total;
    }
  }

  // The sum of one term over the row: across the lanes, or in each of them.
  MLEFAST_FN Vec total_of(const Sum<Ops>& sum, double unit) const {
    return along ? value_of(sum.total() * unit) : sum.lanes(unit);
  }

  // Elements beyond the row's end count for nothing.
  MLEFAST_FN Mask within(int64_t i) const {
    return Ops::less(lane_numbers, Ops::set(static_cast<T>(i < whole || !along ? lanes : part)));
  }

  MLEFAST_FN void sum_up() {
    if constexpr (!Loss::softmax && terms == 0) return;
    Sum<Ops> others, sum[terms > 0 ? terms : 1];
    Vec winners = Ops::set(0);
    const auto add = [&](auto& of, int64_t i, auto whole_items) __attribute__((always_inline)) {
      constexpr bool all = decltype(whole_items)::value;
      constexpr int k = sizeof(of) / sizeof(of[0]);
      Vec term[terms > 0 ? terms : 1], rest = Ops::set(0), part_sum[terms > 0 ? terms : 1];
      for (auto& v : part_sum) v = Ops::set(0);
#pragma GCC unroll 4
      for (int q = 0; q < k; ++q) {
        if constexpr (Loss::softmax) {
          winners = Ops::count(all ? of[q].wins : Ops::both(of[q].wins, within(i)), winners);
          rest = all ? Ops::add_unless(of[q].wins, rest, of[q].e)
                     : rest + Ops::keep(within(i), Ops::select(of[q].wins, Ops::set(0), of[q].e));
        }
        if constexpr (terms > 0) {
          Loss::terms(of[q], term);
          for (int s = 0; s < terms; ++s) part_sum[s] = part_sum[s] + (all ? term[s] : Ops::keep(within(i), term[s]));
        }
      }
      if constexpr (Loss::softmax) others.add(rest);
      if constexpr (terms > 0)
        for (int s = 0; s < terms; ++s) sum[s].add(part_sum[s]);
    };
    int64_t i = 0;
    for (; i + K <= whole; i += K) {
      Element of[K];
      read<K, sum_pass, true>(i, of);
      add(of, i, std::true_type{});
    }
    for (; i < items; ++i) {
      Element of[1];
      read<1, sum_pass, false>(i, of);
      add(of, i, std::false_type{});
    }
    if constexpr (Loss::softmax) {
      winners = Ops::counted(winners);
      const Vec ties = (along ? Ops::set(Ops::reduce_add(winners)) : winners) - Ops::set(1);
      row.state.others = total_of(others, Ops::inverse_unit) + Ops::max(ties, Ops::set(0));
      row.total = row.state.total();
      row.log_total = Ops::log1p(row.state.others);
      inverse_total = Ops::set(Ops::inverse_unit) / row.total;
    }
    for (int s = 0; s < terms; ++s) row.sum[s] = total_of(sum[s], s < Loss::sums ? 1.0 : double(Ops::inverse_unit));
  }

  MLEFAST_FN void sum_later() {
    constexpr int later = Loss::later > 0 ? Loss::later : 1;
    Sum<Ops> sum[later];
    const auto add = [&](auto& of, int64_t i, auto whole_items) __attribute__((always_inline)) {
      constexpr bool all = decltype(whole_items)::value;
      constexpr int k = sizeof(of) / sizeof(of[0]);
#pragma GCC unroll 4
      for (int q = 0; q < k; ++q) {
        Vec term[later];
        Loss::later_terms(of[q], row, term);
        for (int s = 0; s < Loss::later; ++s) sum[s].add(all ? term[s] : Ops::keep(within(i), term[s]));
      }
    };
    int64_t i = 0;
    for (; i + K <= whole; i += K) {
      Element of[K];
      read<K, later_pass, true>(i, of);
      add(of, i, std::true_type{});
    }
    for (; i < items; ++i) {
      Element of[1];
      read<1, later_pass, false>(i, of);
      add(of, i, std::false_type{});
    }
    for (int s = 0; s < Loss::later; ++s) row.later[s] = total_of(sum[s], 1.0);
  }

  MLEFAST_FN void emit(Sum<Ops>& total) const {
    const auto put = [&](auto& of, int64_t i, auto whole_items) __attribute__((always_inline)) {
      constexpr bool all = decltype(whole_items)::value;
      constexpr int k = sizeof(of) / sizeof(of[0]);
#pragma GCC unroll 4
      for (int q = 0; q < k; ++q) {
        if constexpr (Loss::elementwise) {
          const Vec loss = Loss::loss(of[q]);
          total.add(Ops::keep(wanted, all ? loss : Ops::keep(within(i), loss)));
          if (run.out[1]) store<all>(run.out[1], i + q, loss);
        }
        if (!Loss::elementwise || run.out[0]) {
          Vec out[2];
          Loss::emit(of[q], row, out);
          for (int n = 0; n < Loss::outputs; ++n) store<all>(run.out[n], i + q, Ops::keep(wanted, out[n]));
        }
      }
    };
    int64_t i = 0;
    for (; i + K <= whole; i += K) {
      Element of[K];
      read<K, emit_pass, true>(i, of);
      put(of, i, std::true_type{});
    }
    for (; i < items; ++i) {
      Element of[1];
      read<1, emit_pass, false>(i, of);
      put(of, i, std::false_type{});
    }
  }

  // A maximum of a row may stand in several places: the first counts, as in argmax.
  static __attribute__((noinline)) void find_hits(const TermRun<T>& run, int64_t at, int64_t first, int64_t n) {
    const auto argmax = [&](const T* p, int64_t lane) {
      int64_t best = 0;
      const T* start = p + at + lane;
      const int64_t step = along ? 1 : run.class_;
      for (int64_t c = 1; c < run.classes; ++c)
        if (start[c * step] > start[best * step]) best = c;
      return best;
    };
    for (int64_t i = 0; i < n; ++i) {
      const int64_t want = run.target ? run.target[first + i] : argmax(run.probabilities, i);
      const bool ignored = run.target && want == run.ignore_index;
      run.hit[first + i] = !ignored && argmax(run.x, i) == want;
    }
  }
};

template <class Ops, class Loss> void run_term_rows(const TermRun<typename Ops::Value>& run, typename Ops::Value*) {
  Sum<TermOps<Ops>> total;
  for (int64_t r = 0; r < run.rows; ++r) TermTile<Ops, Loss, true>(run, r, 1).work(r, 1, total);
  if (run.total) *run.total = total.total();
}

template <class Ops, class Loss>
__attribute__((noinline)) void run_term_columns(const TermRun<typename Ops::Value>& run, typename Ops::Value*) {
  Sum<TermOps<Ops>> total;
  for (int64_t r = 0; r < run.rows; r += Ops::lanes) {
    const int64_t n = run.rows - r < Ops::lanes ? run.rows - r : Ops::lanes;
    TermTile<Ops, Loss, false>(run, r, n).work(r, n, total);
  }
  if (run.total) *run.total = total.total();
}

// Short rows, transposed a vector of rows at a time.
template <class Ops, class Loss>
void run_term_packed(const TermRun<typename Ops::Value>& run, typename Ops::Value* scratch) {
  using T = typename Ops::Value;
  constexpr int lanes = Ops::lanes;
  const int64_t size = lanes * (run.classes < least_packed ? least_packed : run.classes);
  double total = 0;
  for (int64_t r = 0; r < run.rows; r += lanes) {
    const int64_t n = run.rows - r < lanes ? run.rows - r : lanes;
    TermRun<T> tile = run;
    double tile_total = 0;
    tile.rows = n, tile.row = 1, tile.class_ = lanes, tile.total = &tile_total;
    int used = 0;
    const auto gather = [&](const T*& array) {
      if (!array) return;
      T* to = scratch + size * used++;
      Transposer<Ops>::gather(array + r * run.row, run.row, n, run.classes, 0, to, lanes);
      array = to;
    };
    gather(tile.x), gather(tile.probabilities), gather(tile.v), gather(tile.u);
    for (auto& out : tile.out)
      if (out) out = scratch + size * used++;
    if (run.target) tile.target = run.target + r;
    for (int k = 0; k < 2; ++k) {
      if (run.upstream[k]) tile.upstream[k] = run.upstream[k] + r;
      if (run.value[k]) tile.value[k] = run.value[k] + r;
    }
    if (run.hit) tile.hit = run.hit + r;
    run_term_columns<Ops, Loss>(tile, nullptr);
    for (int k = 0; k < 2; ++k)
      if (run.out[k])
        Transposer<Ops>::scatter(tile.out[k], lanes, n, run.classes, 0, run.out[k] + r * run.row, run.row,
                                 [](auto&) {});
    total += tile_total;
  }
  if (run.total) *run.total = total;
}

template <class Ops, class Loss> constexpr TermKernels<typename Ops::Value> make_term_kernels() {
  // Transposing spares what is done once for a row, most of which belongs to a softmax. (Measured with AVX2, where both
  // forms take as long: 128 classes of floats for a label's smoothing, 64 with probabilities of targets, 64 for the
  // entropy, 27 for softmax_vjp, which at 100 takes a quarter of the time along the rows.)
  constexpr int64_t packed_vectors = Loss::softmax ? 16 : 8;
  return {run_term_rows<Ops, Loss>, run_term_columns<Ops, Loss>, run_term_packed<Ops, Loss>, packed_vectors};
}

}  // namespace mlefast
