// A row per lane: the class axis is not the last one, or it is so short that rows are transposed into this form. Rows
// of halves are copied into it.
//
// A tile is W vectors of rows side by side, which are neighbours in memory; K / W classes are worked on at once. Its
// first pass brings it into the second-level cache and finds each row's maximum, the second sums up the exponentials
// and stores them, the third makes the final values of them.
#pragma once

#include "../rules/losses.h"
#include "run.hpp"
#include "transpose.hpp"
#include "vectors.hpp"

namespace mlefast {

// What does not depend on the task: the three passes over a tile, whose n rows fill it unless W is 1.
template <class Ops, rules::Emit emit, int W> class ColumnPasses {
 protected:
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Mask = typename Ops::Mask;
  static constexpr int K = 4, lanes = Ops::lanes, at_once = K / W;
  static constexpr int64_t group = 16;   // classes whose terms are added before they join a Sum
  static constexpr int64_t notice = 16;  // classes between a prefetch and its use
  static constexpr T infinity = static_cast<T>(__builtin_inf());

  const T* x;
  int64_t x_class;
  T* out;
  int64_t out_class, classes, n;
  bool whole;
  rules::State<Ops> state[W];

 public:
  static constexpr int rows = W * lanes;

  ColumnPasses(const T* x_, int64_t x_class_, T* out_, int64_t out_class_, int64_t classes_, int64_t n_)
      : x(x_), x_class(x_class_), out(out_), out_class(out_class_), classes(classes_), n(n_), whole(n_ == rows) {}

 protected:
  MLEFAST_FN Vec load(const T* p) const { return whole ? Ops::load(p) : Ops::load(p, n, T(0)); }
  MLEFAST_FN void store(T* p, Vec v) const { whole ? Ops::store(p, v) : Ops::store(p, v, n); }

  // Vector q of those that start at class c.
  MLEFAST_FN const T* logits(int64_t c, int q) const { return x + (c + q / W) * x_class + (q % W) * lanes; }
  MLEFAST_FN T* outputs(int64_t c, int q) const { return out + (c + q / W) * out_class + (q % W) * lanes; }

  void find_maxima() {
    Vec best[K];
    for (auto& v : best) v = Ops::set(-infinity);
    int64_t c = 0;
    for (; c + at_once <= classes; c += at_once)
      for (int q = 0; q < K; ++q) {
        if (W > 1) prefetch(logits(c, q), notice * x_class * int64_t(sizeof(T)));
        best[q] = Ops::max(best[q], load(logits(c, q)));
      }
    for (; c < classes; ++c) best[0] = Ops::max(best[0], load(logits(c, 0)));
    for (int w = 0; w < W; ++w) {
      state[w].max = best[w];
      for (int q = w + W; q < K; q += W) state[w].max = Ops::max(state[w].max, best[q]);
    }
  }

  void sum_up() {
    Vec against[W], part[K], lost[K];
    for (int w = 0; w < W; ++w)
      against[w] = Ops::select(Ops::equal(state[w].max, Ops::set(-infinity)), Ops::set(0), state[w].max);
    const bool one_group = classes <= group;
    Sum<Ops> sum[W], losers[W];
    int64_t c = 0;
    do {
      for (int q = 0; q < K; ++q) part[q] = lost[q] = Ops::set(0);
      const int64_t end = classes - c < group ? classes : c + group;
      for (; c + at_once <= end; c += at_once) add<K>(c, against, part, lost);
      for (; c < end; ++c) add<1>(c, against, part, lost);
      for (int w = 0; w < W; ++w)
        for (int q = w + W; q < K; q += W) part[w] = part[w] + part[q], lost[w] = lost[w] + lost[q];
      if (!one_group)
        for (int w = 0; w < W; ++w) sum[w].add(part[w]), losers[w].add(lost[w]);
    } while (c < classes);
    // All but one of the winners count among the others. A row that is wholly masked has no winner.
    const auto unscale = MathConstants<T>::unscale;
    for (int w = 0; w < W; ++w) {
      const T all_but_one = static_cast<T>(classes - 1);
      const Vec ties = one_group ? Ops::set(all_but_one) - lost[w] : losers[w].lanes(-1, double(classes - 1));
      const Vec rest = one_group ? part[w] * Ops::set(unscale) : sum[w].lanes(unscale, 0);
      state[w].others = rest + Ops::max(ties, Ops::set(0));
      if (Ops::any(Ops::equal(state[w].max, Ops::set(infinity)))) settle_infinite(w);
    }
  }

  // The stored exponentials times their rows' factors; 0 where a row is not wanted.
  template <bool all_wanted> void scale(const Vec (&factor)[W], const Mask (&wanted)[W]) const {
    Rescale<Ops> by_factor[W];
    for (int w = 0; w < W; ++w) by_factor[w] = Rescale<Ops>(factor[w]);
    int64_t c = 0;
    for (; c + at_once <= classes; c += at_once) scale_some<K, all_wanted>(c, by_factor, wanted);
    for (; c < classes; ++c) scale_some<1, all_wanted>(c, by_factor, wanted);
  }

  void log_probabilities(int w, Vec log_total) const {
    for (int64_t c = 0; c < classes; ++c) store(outputs(c, w), (load(logits(c, w)) - state[w].max) - log_total);
  }

 private:
  template <int k> MLEFAST_FN void add(int64_t c, const Vec (&against)[W], Vec (&part)[K], Vec (&lost)[K]) const {
    Vec v[k];
    Mask loses[k];
    for (int q = 0; q < k; ++q) {
      v[q] = load(logits(c, q)) - against[q % W];
      if (W > 1 && emit != rules::Emit::nothing)
        prefetch_to_write(outputs(c, q), notice * out_class * int64_t(sizeof(T)));
      loses[q] = Ops::unlike(v[q], Ops::set(0));
    }
    Ops::exp_scaled(v);
    for (int q = 0; q < k; ++q) {
      if (emit == rules::Emit::scaled_exp) store(outputs(c, q), v[q]);
      part[q] = Ops::add_where(loses[q], part[q], v[q]);
      lost[q] = Ops::add_where(loses[q], lost[q], Ops::set(1));
    }
  }

  template <int k, bool all_wanted>
  MLEFAST_FN void scale_some(int64_t c, const Rescale<Ops> (&by_factor)[W], const Mask (&wanted)[W]) const {
    Vec v[k];
    for (int q = 0; q < k; ++q) v[q] = load(outputs(c, q));
    Rescale<Ops>::apply(by_factor, v);
    for (int q = 0; q < k; ++q) store(outputs(c, q), all_wanted ? v[q] : Ops::keep(wanted[q % W], v[q]));
  }

  // A maximum of +inf leaves NaN among the others if there are two of it; only a NaN logit may do that.
  void settle_infinite(int w) {
    T max[lanes], others[lanes];
    Ops::store(max, state[w].max), Ops::store(others, state[w].others);
    for (int lane = 0; lane < lanes; ++lane) {
      bool nan = false;
      if (w * lanes + lane < n)
        for (int64_t c = 0; c < classes; ++c) nan |= logits(c, w)[lane] != logits(c, w)[lane];
      if (max[lane] == infinity && !nan) others[lane] = 0;
    }
    state[w].others = Ops::load(others);
  }
};

template <class Ops, class Task, int W> class ColumnTile : ColumnPasses<Ops, Task::emit, W> {
  using Passes = ColumnPasses<Ops, Task::emit, W>;
  using Passes::classes, Passes::lanes, Passes::n, Passes::out, Passes::out_class, Passes::state, Passes::store;
  using Passes::whole, Passes::x, Passes::x_class;
  using typename Passes::Mask;
  using typename Passes::T;
  using typename Passes::Vec;

 public:
  using Passes::Passes, Passes::rows;

  // x and out may be the run's arrays, from its row r on, or a copy of those rows.
  template <class S> void work(const Run<S>& run, int64_t r, Sum<Ops>& total) {
    read_targets(run, r);
    Passes::find_maxima();
    Passes::sum_up();
    Mask wanted[W] = {};
    if (!plain)
      for (int w = 0; w < W; ++w) wanted[w] = Ops::less(Ops::set(0), Ops::load(active + w * lanes));
    if constexpr (Task::has_value)
      for (int w = 0; w < W; ++w) {
        Vec loss = Task::value(state[w], logit[w]);
        if (Task::has_target && run.weight) loss = loss * Ops::load(weight + w * lanes);
        if (!plain) loss = Ops::keep(wanted[w], loss);
        if (run.value) store(run.value + r + w * lanes, loss);
        total.add(loss);
      }
    if constexpr (Task::emit == rules::Emit::scaled_exp) {
      Vec f[W];
      for (int w = 0; w < W; ++w) f[w] = Task::factor(state[w], scale[w]);
      plain ? Passes::template scale<true>(f, wanted) : Passes::template scale<false>(f, wanted);
      if constexpr (Task::has_target)
        for (int w = 0; w < W; ++w) write_targets(w, Task::at_target(state[w], logit[w], f[w]));
    }
    if constexpr (Task::emit == rules::Emit::log_probability)
      for (int w = 0; w < W; ++w) Passes::log_probabilities(w, Task::log_total(state[w]));
  }

 private:
  // By lane: the target's class (-1: leave the output alone) and its logit, the class weight, the gradient's factor.
  int64_t target[rows];
  T x_target[rows], weight[rows], factor[rows];
  T active[rows];  // 0 where the row is ignored or the lane empty, else 1
  Vec logit[W], scale[W];
  bool plain;  // no row is ignored, no lane empty

  template <class S> MLEFAST_FN void read_targets(const Run<S>& run, int64_t r) {
    plain = whole;
    for (int w = 0; w < W; ++w) logit[w] = Ops::set(0), scale[w] = Ops::set(static_cast<T>(run.scale));
    if constexpr (Task::has_target) {
      bool special = run.weight || run.upstream || !whole;
      if (!special)  // the common case, kept short: it is a third of the work where classes are few
        for (int i = 0; i < rows; ++i) {
          const int64_t y = run.target[r + i];
          const bool wrong = static_cast<uint64_t>(y) >= static_cast<uint64_t>(classes);
          special |= wrong || y == run.ignore_index;
          target[i] = y, x_target[i] = x[(wrong ? 0 : y) * x_class + i];
        }
      if (special) {
        for (int i = 0; i < rows; ++i) {
          Target<T> t{-1, true, false, 0, 0, 0};
          if (i < n) t = read_target<Task>(run, r + i, x + i, x_class);
          target[i] = t.ignored ? -1 : t.index;
          x_target[i] = t.logit, weight[i] = t.weight, factor[i] = static_cast<T>(t.scale);
          active[i] = t.ignored ? T(0) : T(1), plain &= !t.ignored;
        }
        for (int w = 0; w < W; ++w) scale[w] = Ops::load(factor + w * lanes);
      }
      for (int w = 0; w < W; ++w) logit[w] = Ops::load(x_target + w * lanes);
    }
    if (!Task::has_target && !whole)
      for (int i = 0; i < rows; ++i) active[i] = i < n ? T(1) : T(0);
  }

  MLEFAST_FN void write_targets(int w, Vec values) const {
    T entry[lanes];
    Ops::store(entry, values);
    for (int lane = 0; lane < lanes; ++lane) {
      const int i = w * lanes + lane;
      if (target[i] >= 0) out[target[i] * out_class + i] = entry[lane];
    }
  }
};

// Rows that lie as a tile wants them.
template <class Ops, class Task> void run_in_place(const Run<typename Ops::Value>& run, Sum<Ops>& total) {
  using Wide = ColumnTile<Ops, Task, 4>;
  using Narrow = ColumnTile<Ops, Task, 1>;
  constexpr bool writes = Task::emit != rules::Emit::nothing;
  int64_t r = 0;
  for (; r + Wide::rows <= run.rows; r += Wide::rows) {
    Wide tile(run.x + r, run.x_class, writes ? run.out + r : nullptr, run.out_class, run.classes, Wide::rows);
    tile.work(run, r, total);
  }
  for (; r < run.rows; r += Narrow::rows) {
    const int64_t n = run.rows - r < Narrow::rows ? run.rows - r : Narrow::rows;
    Narrow tile(run.x + r, run.x_class, writes ? run.out + r : nullptr, run.out_class, run.classes, n);
    tile.work(run, r, total);
  }
}

// Rows that are brought into that form by a `Mover`, W vectors of them at a time, from row r on; the row it got to.
template <class Ops, class Task, class Mover, int W, class S>
MLEFAST_FN int64_t run_moved(const Run<S>& run, int64_t r, typename Ops::Value* scratch, Sum<Ops>& total) {
  using Tile = ColumnTile<Ops, Task, W>;
  constexpr bool transposes = std::is_same_v<Mover, Transposer<Ops>>;
  constexpr int lanes = Ops::lanes;
  const int64_t x_row = transposes ? run.x_row : 1, x_other = transposes ? run.x_row : run.x_class;
  const int64_t out_row = transposes ? run.out_row : 1, out_other = transposes ? run.out_row : run.out_class;
  for (; r + (W > 1 ? Tile::rows : 1) <= run.rows; r += Tile::rows) {
    const int64_t n = run.rows - r < Tile::rows ? run.rows - r : Tile::rows, part = W > 1 ? lanes : n;
    for (int w = 0; w < W; ++w)
      Mover::gather(run.x + (r + w * lanes) * x_row, x_other, part, run.classes, scratch + w * lanes, Tile::rows);
    Tile(scratch, Tile::rows, scratch, Tile::rows, run.classes, n).work(run, r, total);
    if (Task::emit != rules::Emit::nothing)
      for (int w = 0; w < W; ++w)
        Mover::scatter(scratch + w * lanes, Tile::rows, part, run.classes, run.out + (r + w * lanes) * out_row,
                       out_other);
  }
  return r;
}

// As many rows at a time as `cache` elements hold.
template <class Ops, class Task, class Mover, class S>
MLEFAST_FN void run_moved(const Run<S>& run, int64_t cache, typename Ops::Value* scratch, Sum<Ops>& total) {
  int64_t r = 0;
  if (4 * Ops::lanes * run.classes <= cache) r = run_moved<Ops, Task, Mover, 4>(run, r, scratch, total);
  run_moved<Ops, Task, Mover, 1>(run, r, scratch, total);
}

// Rows that are neighbours in memory, class by class.
template <class Ops, class Task, class S> void run_columns(const Run<S>& run, typename Ops::Value* scratch) {
  Sum<Ops> total;
  if constexpr (is_half<S>)
    run_moved<Ops, Task, Copier<Ops>>(run, staged_columns, scratch, total);
  else
    run_in_place<Ops, Task>(run, total);
  if (Task::has_value && run.total) *run.total = total.total();
}

// Short rows of contiguous classes, transposed.
template <class Ops, class Task, class S> void run_packed(const Run<S>& run, typename Ops::Value* scratch) {
  constexpr int64_t half_of_first_cache = 16384 / sizeof(typename Ops::Value);
  Sum<Ops> total;
  run_moved<Ops, Task, Transposer<Ops>>(run, half_of_first_cache, scratch, total);
  if (Task::has_value && run.total) *run.total = total.total();
}

}  // namespace mlefast
