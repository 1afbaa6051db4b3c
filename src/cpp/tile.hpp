// Several rows at a time, a row in each lane of W vectors: what depends on the task, and not on how the rows lie.
//
// How they lie is known by the `Passes` that a tile is built on, which go over all logits: they find the maxima, take,
// store and add the exponentials, and make the final values of them.
#pragma once

#include "../rules/losses.h"
#include "pivot.hpp"
#include "run.hpp"
#include "vectors.hpp"

namespace mlefast {

// What the last pass makes of a vector of rows: of its exponentials (`exact`: see Rescale),
template <class Ops, rules::Emit emit, bool exact> class Finish {
  using Value = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Mask = typename Ops::Mask;
  Rescale<Ops, exact> by;
  Vec factor_;
  Mask wanted;  // 0 is written elsewhere
  bool all_wanted;

 public:
  using Factor = Rescale<Ops, exact>;
  Finish() = default;
  // f: of exp(x - maximum).
  MLEFAST_FN Finish(const Factor& by_, Vec f, Mask wanted_, bool all)
      : by(by_), factor_(f), wanted(wanted_), all_wanted(all) {}
  MLEFAST_FN Vec factor() const { return factor_; }
  MLEFAST_FN const Factor& rescale() const { return by; }
  MLEFAST_FN bool wants_all() const { return all_wanted; }
  MLEFAST_FN Vec wants() const {  // 1 or, where 0 is written, 0
    return all_wanted ? Ops::set(1) : Ops::keep(wanted, Ops::set(1));
  }

  // By way of memory: see Rescale. `all`: of all that were stored, all are wanted.
  static constexpr int vectors = Factor::vectors + 1;
  MLEFAST_FN void store(Value* to, int64_t stride) const {
    by.store(to, stride), Ops::store(to + Factor::vectors * stride, wants());
  }
  static MLEFAST_FN Finish load(const Value* from, int64_t stride, bool all) {
    const Mask wanted = all ? Mask{} : Ops::less(Ops::set(0), Ops::load(from + Factor::vectors * stride));
    return {Factor::load(from, stride), Ops::set(0), wanted, all};
  }

  // v[q] is of the rows that last(q) knows.
  template <int K, class Last> static MLEFAST_FN void apply(const Last& last, Vec (&v)[K]) {
    Factor::apply([&](int q) -> const Factor& { return last(q).by; }, v);
    if (!last(0).all_wanted)
      for (int q = 0; q < K; ++q) v[q] = Ops::keep(last(q).wanted, v[q]);
  }
};

// or of its logits.
template <class Ops> class Finish<Ops, rules::Emit::log_probability, false> {
  using Value = typename Ops::Value;
  using Vec = typename Ops::Vec;

 public:
  Vec max, log_total;
  MLEFAST_FN bool wants_all() const { return true; }

  static constexpr int vectors = 2;
  MLEFAST_FN void store(Value* to, int64_t stride) const { Ops::store(to, max), Ops::store(to + stride, log_total); }
  static MLEFAST_FN Finish load(const Value* from, int64_t stride, bool) {
    return {Ops::load(from), Ops::load(from + stride)};
  }

  template <int K, class Last> static MLEFAST_FN void apply(const Last& last, Vec (&v)[K]) {
    for (int q = 0; q < K; ++q) v[q] = (v[q] - last(q).max) - last(q).log_total;
  }
};

template <class Ops> class Finish<Ops, rules::Emit::nothing, false> {};

inline constexpr int64_t never_near = INT64_MAX;

// `Passes` gives: T, Vec, lanes, vectors (W), rows; classes, n (rows that there are), whole (n == rows), state[W],
// whose maxima are found; pivots_from (classes from which on near pivots pay) and exact_pivots_from (where factors must
// be exact then); logit_of(row, class), store(values of rows), sum_up<near>(pivots, sums, winners), finish.
template <class Ops, class Task, class Passes> class Tile : public Passes {
  using Passes::classes, Passes::lanes, Passes::n, Passes::state, Passes::vectors, Passes::whole;
  using typename Passes::T;
  using typename Passes::Vec;
  using Mask = typename Ops::Mask;
  // A row's only class has probability 1, which the quotients of near pivots would miss by a unit at times.
  static constexpr bool is_softmax = Task::emit == rules::Emit::scaled_exp && !Task::has_target;
  static constexpr bool may_be_near = Ops::fuses && (!is_softmax || Passes::exact_pivots_from != never_near);
  static constexpr int64_t pivots_from = is_softmax ? Passes::exact_pivots_from : Passes::pivots_from;
  using Last = Finish<Ops, Task::emit, is_softmax && may_be_near>;
  static constexpr int W = vectors;
  static constexpr T infinity = static_cast<T>(__builtin_inf());

 public:
  using Passes::Passes, Passes::rows;
  static constexpr bool writes = Task::emit != rules::Emit::nothing;
  static constexpr int64_t least_rows = W > 1 ? rows : 1;

  // All but what is written, where the passes find the maxima by themselves. The first row is the run's row r.
  template <class S> MLEFAST_FN void work_whole(const Run<S>& run, int64_t r, Sum<Ops>& total) {
    read_targets(run, r);
    Passes::find_maxima();
    work(run, r, total);
  }

  template <int k> MLEFAST_FN void finish(int w, Vec (&v)[k]) const {
    Last::apply([&](int) -> const Last& { return last[w]; }, v);
  }
  // A class of all rows.
  MLEFAST_FN void finish_rows(Vec (&v)[W]) const {
    Last::apply([&](int w) -> const Last& { return last[w]; }, v);
  }
  void finish() const {
    if constexpr (writes) Passes::finish(last);
  }
  // Of passes that finish row after row: each with its target's entry, and without `write_targets`.
  template <class S> void finish_by_rows() const {
    if constexpr (writes) {
      S entry[rows];
      if constexpr (Task::has_target) entries_at_targets(entry);
      Passes::finish(last, [&](int64_t r, S* row) {
        if constexpr (Task::has_target)
          if (index[r] >= 0) row[index[r]] = entry[r];
      });
    }
  }

  // Before the tile is brought in or worked on.
  template <class S> void read_targets(const Run<S>& run, int64_t r) {
    plain = whole, index = run.target + r;
    for (int w = 0; w < W; ++w) logit[w] = Ops::set(0), scale[w] = Ops::set(static_cast<T>(run.scale));
    if constexpr (Task::has_target) {
      prefetch_far(run.next_target, r * run.next_target_bytes, rows * run.next_target_bytes);
      const S* x = run.x + r * run.x_row;
      S x_target[rows];
      bool special = run.weight || run.upstream || !whole;
      if (!special) {
        uint64_t signs = 0;  // one is set where a target is wrong
        for (int i = 0; i < rows; ++i) signs |= uint64_t(index[i]) | (uint64_t(classes - 1) - uint64_t(index[i]));
        special = signs >> 63;
        if (run.ignore_index >= 0 && run.ignore_index < classes)
          for (int i = 0; i < rows; ++i) special |= index[i] == run.ignore_index;
      }
      if (special)
        for (int i = 0; i < rows; ++i) {
          Target<T> t{-1, true, 0, 0, 0};
          if (i < n) t = read_target<Task>(run, r + i);
          written[i] = t.ignored ? -1 : t.index;
          x_target[i] = from_value<S>(t.logit), weight[i] = t.weight, factor[i] = static_cast<T>(t.scale);
          active[i] = t.ignored ? T(0) : T(1), plain &= !t.ignored;
        }
      else
        for (int64_t i = 0; i < rows; i += Ops::columns)
          for (int k = 0; k < Ops::columns; ++k, x += run.x_row) x_target[i + k] = x[index[i + k] * run.x_class];
      for (int w = 0; w < W; ++w) {
        if (special) index = written, scale[w] = Ops::load(factor + w * lanes);
        logit[w] = Ops::load(x_target + w * lanes);
      }
    }
    if (!Task::has_target && !whole)
      for (int i = 0; i < rows; ++i) active[i] = i < n ? T(1) : T(0);
  }

  // What `finish` takes of each row, in memory, where it may lie among that of other rows: so many vectors `stride`
  // behind each other for each vector of rows. Targets are numbers of type T, which must count so far.
  static constexpr int stored = Last::vectors + (Task::has_target ? 2 : 0);
  MLEFAST_FN void store(T* to, int64_t stride) const {
    for (int w = 0; w < W; ++w, to += lanes) {
      last[w].store(to, stride);
      if constexpr (Task::has_target) {
        T* const place = to + Last::vectors * stride;
        for (int i = 0; i < lanes; ++i) place[i] = static_cast<T>(index[w * lanes + i]);
        Ops::store(place + stride, Task::at_target(state[w], logit[w], last[w].factor()));
      }
    }
  }
  MLEFAST_FN bool wants_all() const { return last[0].wants_all(); }
  // From there, of any rows that are neighbours.
  struct Finisher {
    Last last[W];
    Vec place[W], entry[W];

    MLEFAST_FN Finisher(const T* from, int64_t stride, bool all) {
      for (int w = 0; w < W; ++w, from += lanes) {
        last[w] = Last::load(from, stride, all);
        if constexpr (Task::has_target)
          place[w] = Ops::load(from + Last::vectors * stride), entry[w] = Ops::load(from + (stored - 1) * stride);
      }
    }
    // A class, with the targets' entries.
    MLEFAST_FN void operator()(int64_t c, Vec (&v)[W]) const {
      Last::apply([&](int w) -> const Last& { return last[w]; }, v);
      if constexpr (Task::has_target) {
        const Vec here = Ops::set(static_cast<T>(c));
        for (int w = 0; w < W; ++w) v[w] = Ops::select(Ops::equal(place[w], here), entry[w], v[w]);
      }
    }
  };

  // From the maxima to the values, and to what `finish` needs.
  template <class S> void work(const Run<S>& run, int64_t r, Sum<Ops>& total) {
    const LanePivots<Ops, W> pivots(state, may_be_near && classes >= pivots_from);
    sum_up(pivots);
    const bool all = plain || (W > 1 && !Task::has_target);
    for (int w = 0; w < W; ++w) {
      const Mask wanted = all ? Mask{} : Ops::less(Ops::set(0), Ops::load(active + w * lanes));
      if constexpr (Task::has_value) {
        Vec loss = Task::value(state[w], logit[w]);
        if (Task::has_target && run.weight) loss = loss * Ops::load(weight + w * lanes);
        if (!all) loss = Ops::keep(wanted, loss);
        if (run.value) Passes::store(run.value + r + w * lanes, loss);
        total.add(loss);
      }
      if constexpr (Task::emit == rules::Emit::scaled_exp) {
        const Vec factor = Task::factor(state[w], scale[w]);
        last[w] = {by_factor(factor, pivots, w), factor, wanted, all};
      }
      if constexpr (Task::emit == rules::Emit::log_probability) last[w] = {state[w].max, Task::log_total(state[w])};
    }
  }

  // The gradient's entries at the targets, after all others.
  template <class S> void write_targets(S* out, int64_t out_row, int64_t out_class) const {
    if constexpr (writes && Task::has_target) {
      S entry[rows];
      entries_at_targets(entry);
      const int64_t* const at = index;
      const int64_t count = W > 1 ? rows : n;
      for (int64_t i = 0; i < count; ++i)
        if (at[i] >= 0) out[i * out_row + at[i] * out_class] = entry[i];
    }
  }

 private:
  template <class S> MLEFAST_FN void entries_at_targets(S (&entry)[rows]) const {
    for (int w = 0; w < W; ++w) Ops::store(entry + w * lanes, Task::at_target(state[w], logit[w], last[w].factor()));
  }

  MLEFAST_FN void sum_up(const LanePivots<Ops, W>& pivots) {
    if constexpr (may_be_near)
      if (pivots.near) return sum_up<true>(pivots);
    sum_up<false>(pivots);
  }
  template <bool near> MLEFAST_FN void sum_up(const LanePivots<Ops, W>& pivots) {
    Vec sum[W], winners[W];
    Passes::template sum_up<near>(pivots, sum, winners);
    for (int w = 0; w < W; ++w) {
      // All but one of the winners count among the others. A row that is wholly masked has no winner.
      state[w].others = sum[w] + Ops::max(winners[w] - Ops::set(1), Ops::set(0));
      if (Ops::any(Ops::equal(state[w].max, Ops::set(infinity)))) settle_infinite(w);
    }
  }
  static MLEFAST_FN auto by_factor(Vec factor, const LanePivots<Ops, W>& pivots, int w) {
    using Factor = typename Last::Factor;
    if constexpr (may_be_near)
      if (pivots.near) return Factor::by_quotient(factor, pivots.top[w] * Ops::set(MathConstants<T>::unscale));
    return Factor(factor);
  }

  // A maximum of +inf leaves NaN among the others; only a NaN logit may do that.
  void settle_infinite(int w) {
    T max[lanes], others[lanes];
    Ops::store(max, state[w].max), Ops::store(others, state[w].others);
    for (int lane = 0; lane < lanes && w * lanes + lane < n; ++lane) {
      bool nan = false;
      for (int64_t c = 0; c < classes; ++c) {
        const T logit = Passes::logit_of(w * lanes + lane, c);
        nan |= logit != logit;
      }
      if (max[lane] == infinity && !nan) others[lane] = 0;
    }
    state[w].others = Ops::load(others);
  }

  const int64_t* index;  // by lane: the class of the entry that differs, or -1
  int64_t written[rows];
  T weight[rows], factor[rows];
  T active[rows];  // 0 where the row is ignored or the lane empty, else 1
  Vec logit[W], scale[W];
  Last last[W];
  bool plain;  // no row is ignored, no lane empty
};

// work(r, n) of each tile, of n rows from row r on; the row that they got to. Only tiles of one vector may be filled in
// part.
template <class Tile, class S, class Work>
MLEFAST_FN int64_t for_each_tile(const Run<S>& run, int64_t r, const Work& work) {
  for (; r + Tile::least_rows <= run.rows; r += Tile::rows)
    work(r, run.rows - r < Tile::rows ? run.rows - r : int64_t(Tile::rows));
  return r;
}

}  // namespace mlefast
