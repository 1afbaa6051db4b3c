// Short rows of contiguous classes, several of a vector's length at least: the vectors run along the rows.
//
// A strip is a row for each lane. Maxima and sums of its rows, a vector for each, are transposed, so that what is done
// once for a row (logarithm, division) is done for all of them together; the logits are not moved. What four vectors at
// a time leave of each row, its tail, is worked on for four rows at a time. A tail ends where its row ends, so that its
// first vector may overlap the last step: it counts with its new elements alone, and its exponentials wait apart,
// because the output may be the logits, which the step has yet to read.
#pragma once

#include "tile.hpp"

namespace mlefast {

template <class Ops, rules::Emit emit, int W, class S> class StripPasses {
 protected:
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int K = 4, lanes = Ops::lanes, vectors = W;
  static constexpr int64_t step = K * lanes;
  static constexpr int64_t pivots_from = 0, exact_pivots_from = 0;

  const S* x;
  int64_t x_row;
  S* out;
  int64_t out_row;
  LineWriter* lines;  // writes the output, if there is one
  T* stage;  // of exponentials, from row to row: the output itself, but for halves and where `lines` write that
  int64_t stage_row, classes, n;
  bool whole;
  int64_t tail;  // elements of the vectors that reach beyond the last step: the first of them may overlap it
  T overlapping[W * lanes * lanes];
  rules::State<Ops> state[W];

 public:
  static constexpr int rows = W * lanes;

  StripPasses(const S* x_, int64_t x_row_, S* out_, int64_t out_row_, LineWriter* lines_, T* scratch, int64_t classes_,
              int64_t n_)
      : x(x_),
        x_row(x_row_),
        out(out_),
        out_row(out_row_),
        lines(lines_),
        stage(scratch),
        stage_row(whole_lines<T>(classes_)),
        classes(classes_),
        n(n_),
        whole(n_ == rows) {
    tail = (classes % step + lanes - 1) / lanes * lanes;
    if constexpr (!is_half<S>)
      if (!lines) stage = out, stage_row = out_row;
  }

  void find_maxima() {
    T best[rows * lanes];
    for (int64_t r = 0; r < rows; ++r) Ops::store(best + r * lanes, r < n ? largest(x + r * x_row) : Ops::load(best));
    for (int w = 0; w < W; ++w) {
      state[w].max = Ops::set(static_cast<T>(-__builtin_inf()));
      turn(best, w, [&](Vec v) { state[w].max = Ops::max(state[w].max, v); });
    }
  }

 protected:
  MLEFAST_FN void store(T* p, Vec v) const { W > 1 || whole ? Ops::store(p, v) : Ops::store(p, v, n); }

  MLEFAST_FN T logit_of(int64_t row, int64_t c) const { return to_value(x[row * x_row + c]); }

  template <bool near> void sum_up(const LanePivots<Ops, W>& pivots, Vec (&sum)[W], Vec (&winners)[W]) {
    T sums[rows * lanes], losers[rows * lanes];
    for (int64_t r = 0; r < rows; ++r)
      Ops::store(sums + r * lanes, Ops::set(0)), Ops::store(losers + r * lanes, Ops::set(0));
    const RowPivots<near> against(pivots);
    if (tail > 0) sum_tails(against, sums, losers);
    for (int64_t r = 0; r < n; ++r) sum_row(x + r * x_row, staged(r), against[r], sums + r * lanes, losers + r * lanes);
    for (int w = 0; w < W; ++w) {
      Sum<Ops> terms;
      turn(sums, w, [&](Vec v) { terms.add(v); });
      sum[w] = pivots.template sum_of<near>(terms, w);
      winners[w] = Ops::set(static_cast<T>(classes));
      turn(losers, w, [&](Vec v) { winners[w] = winners[w] - Ops::counted(v); });
    }
  }

  // put(r, row) follows a row's final values.
  template <bool exact, class Put>
  void finish(const Finish<Ops, rules::Emit::scaled_exp, exact> (&last)[W], const Put& put) const {
    using Factor = Rescale<Ops, exact>;
    T by[Factor::vectors * rows], wanted[rows];
    for (int w = 0; w < W; ++w)
      last[w].rescale().store(by + w * lanes, rows), Ops::store(wanted + w * lanes, last[w].wants());
    write_rows(put, [&](int64_t r, S* to) {
      if (last[0].wants_all() || wanted[r] != 0) {
        const auto rescale = Factor::of_lane(by + r, rows);
        finish_row(staged(r), overlapping + r * lanes, to, [&](auto& v) { rescale(v); });
      } else {
        for (int64_t c = 0; c < classes; ++c) to[c] = S{};
      }
    });
  }
  template <class Put>
  void finish(const Finish<Ops, rules::Emit::log_probability, false> (&last)[W], const Put& put) const {
    T max[rows], log_total[rows];
    for (int w = 0; w < W; ++w)
      Ops::store(max + w * lanes, last[w].max), Ops::store(log_total + w * lanes, last[w].log_total);
    write_rows(put, [&](int64_t r, S* to) {
      const Finish<Ops, rules::Emit::log_probability, false> row{Ops::set(max[r]), Ops::set(log_total[r])};
      const S* from = x + r * x_row;
      finish_row(from, from + classes - tail, to,
                 [&](auto& v) { row.apply([&](int) -> const auto& { return row; }, v); });
    });
  }

 private:
  using Mask = typename Ops::Mask;

  MLEFAST_FN T* staged(int64_t r) const { return emit == rules::Emit::scaled_exp ? stage + r * stage_row : nullptr; }

  // work(r, to) makes a row's final values. One row at a time goes past the caches, so that their stores and the
  // arithmetic overlap.
  template <class Put, class Work> MLEFAST_FN void write_rows(const Put& put, const Work& work) const {
    for (int64_t r = 0; r < n; ++r) {
      S* const to = lines ? static_cast<S*>(lines->next()) : out + r * out_row;
      work(r, to);
      put(r, to);
      if (lines) lines->put(classes * int64_t(sizeof(S)));
    }
  }

  // all[r * lanes + i] is lane i of row r's vector; `put` is given lane after lane of w's rows.
  template <class Put> static MLEFAST_FN void turn(const T* all, int w, const Put& put) {
    for (int i = 0; i < lanes; i += Ops::columns) {
      Vec v[Ops::columns];
      Ops::load_columns(all + w * lanes * lanes + i, lanes, v);
      for (const Vec each : v) put(each);
    }
  }

  // What is written some steps from now.
  template <class Out> static MLEFAST_FN void prefetch_step(const Out* to) {
    for (int64_t byte = 0; byte < int64_t(step * sizeof(Out)); byte += 64) prefetch_to_write(to, write_ahead + byte);
  }

  MLEFAST_FN Vec largest(const S* row) const {
    Vec best = Ops::load(row + classes - lanes);
    int64_t c = 0;
    for (; c + step <= classes; c += step) {
      const Vec a = Ops::max(Ops::load(row + c), Ops::load(row + c + lanes));
      const Vec b = Ops::max(Ops::load(row + c + 2 * lanes), Ops::load(row + c + 3 * lanes));
      best = Ops::max(best, Ops::max(a, b));
    }
    for (; c + lanes <= classes; c += lanes) best = Ops::max(best, Ops::load(row + c));
    return best;
  }

  // One row's.
  template <bool near> struct RowPivot {
    Vec max, lowest, magic;
  };
  template <bool near> struct RowPivots {
    T max[rows], lowest[rows], magic[rows];

    explicit RowPivots(const LanePivots<Ops, W>& all) {
      for (int w = 0; w < W; ++w) {
        Ops::store(max + w * lanes, all.max[w]);
        if (near) Ops::store(lowest + w * lanes, all.lowest[w]), Ops::store(magic + w * lanes, all.magic[w]);
      }
    }
    MLEFAST_FN RowPivot<near> operator[](int64_t r) const {
      using Constants = MathConstants<T>;
      if constexpr (near)
        return {Ops::set(max[r]), Ops::set(lowest[r]), Ops::set(magic[r])};
      else
        return {Ops::set(max[r]), Ops::constant(Constants::lowest), Ops::constant(Constants::magic)};
    }
  };

  // v[q], logits, are taken against the pivot at(q): exp(v[q] - pivot) * scale is v[q] afterwards, times power[q] if it
  // has parts. losers[q] is where they are below the maximum (or NaN): winners are left out of the sum, and counted.
  template <bool near, int k, class At>
  static MLEFAST_FN void take(const At& at, Vec (&v)[k], Vec (&power)[k], Mask (&losers)[k]) {
    for (int q = 0; q < k; ++q) losers[q] = Ops::unlike(v[q], at(q).max);
    if constexpr (!near)
      for (int q = 0; q < k; ++q) v[q] = v[q] - at(q).max;
    const auto lowest = [&](int q) { return at(q).lowest; };
    const auto magic = [&](int q) { return at(q).magic; };
    if constexpr (Ops::template has_parts<near>)
      Ops::template exp_parts<near>(lowest, magic, v, power);
    else
      Ops::template exp_against<near>(lowest, magic, v);
  }
  template <bool near> static MLEFAST_FN Vec whole_of(Vec v, Vec power) {
    return Ops::template has_parts<near> ? v * power : v;
  }
  template <bool near> static MLEFAST_FN Vec add(Mask lost, Vec v, Vec power, Vec sum) {
    return Ops::template has_parts<near> ? Ops::fma_where(lost, v, power, sum) : Ops::add_where(lost, sum, v);
  }

  // A row's steps, of which there are at most strip_steps. The terms of a step, then those of 8 steps are added up on
  // their own, so that the roundings of a sum in T stay few: equal terms are all rounded to the same side. (680 of them
  // in two sums: 11 ULP.)
  template <bool near>
  MLEFAST_FN void sum_row(const S* row, T* to, const RowPivot<near> against, T* sums, T* losers) const {
    const int64_t next_strip = rows * x_row * int64_t(sizeof(S));  // read while this one is worked on
    constexpr int64_t group = 8 * step;
    Vec sum = Ops::load(sums), count = Ops::load(losers);
    for (int64_t c = 0; c + step <= classes;) {
      Vec part = Ops::set(0);
      for (const int64_t end = c + group < classes ? c + group : classes; c + step <= end; c += step) {
        Vec v[K], power[K], pair[2];
        Mask lost[K];
        prefetch_far(row + c, next_strip, step * int64_t(sizeof(S)));
        if (emit == rules::Emit::scaled_exp && !is_half<S>) prefetch_step(to + c);
        for (int q = 0; q < K; ++q) v[q] = Ops::load(row + c + q * lanes);
        take<near>([&](int) -> const auto& { return against; }, v, power, lost);
        for (int q = 0; q < K; ++q) {
          if (emit == rules::Emit::scaled_exp) Ops::store(to + c + q * lanes, whole_of<near>(v[q], power[q]));
          count = Ops::count(lost[q], count);
        }
        for (int q = 0; q < K; q += 2)
          pair[q / 2] =
              add<near>(lost[q + 1], v[q + 1], power[q + 1], whole_of<near>(Ops::keep(lost[q], v[q]), power[q]));
        part = part + (pair[0] + pair[1]);
      }
      sum = sum + part;
    }
    Ops::store(sums, sum), Ops::store(losers, count);
  }

  // The last vectors of some rows at a time.
  template <bool near> void sum_tails(const RowPivots<near>& against, T* sums, T* losers) {
    constexpr int some = lanes < K ? lanes : K;
    T number[lanes];
    for (int i = 0; i < lanes; ++i) number[i] = static_cast<T>(i + 1);
    const Mask fresh = Ops::less(Ops::set(static_cast<T>(tail - classes % step)), Ops::load(number));
    for (int64_t r = 0; r < n; r += some) {
      int64_t row[some];
      RowPivot<near> at[some];
      for (int q = 0; q < some; ++q) row[q] = r + q < n ? r + q : n - 1, at[q] = against[row[q]];
      for (int64_t c = classes - tail; c < classes; c += lanes) {
        Vec v[some], power[some];
        Mask lost[some];
        for (int q = 0; q < some; ++q) {
          v[q] = Ops::load(x + row[q] * x_row + c);
          // With an output, in cache, the prefetches of the steps alone were quicker by 15 %.
          if (emit == rules::Emit::nothing) prefetch_far(x + row[q] * x_row + c, rows * x_row * int64_t(sizeof(S)));
        }
        take<near>([&](int q) -> const auto& { return at[q]; }, v, power, lost);
        for (int q = 0; q < some; ++q) {
          const bool overlaps = c == classes - tail;
          if (emit == rules::Emit::scaled_exp)
            Ops::store(overlaps && !lines ? overlapping + row[q] * lanes : staged(row[q]) + c,
                       whole_of<near>(v[q], power[q]));
          if (overlaps) lost[q] = Ops::both(fresh, lost[q]);
          T *sum = sums + (r + q) * lanes, *count = losers + (r + q) * lanes;
          Ops::store(sum, add<near>(lost[q], v[q], power[q], Ops::load(sum)));
          Ops::store(count, Ops::count(lost[q], Ops::load(count)));
        }
      }
    }
  }

  template <class In, class First, class Apply>
  MLEFAST_FN void finish_row(const In* from, const First* first, S* to, const Apply& apply) const {
    if (W == 1 && lines) return finish_in_lines(from, to, apply);
    Vec last[1] = {Ops::set(0)};
    if (tail > 0) last[0] = Ops::load(first);
    for (int64_t c = 0; c + step <= classes; c += step) {
      if (emit == rules::Emit::log_probability || is_half<S>) prefetch_step(to + c);
      finish_some<K>(from + c, to + c, apply);
    }
    for (int64_t c = classes - tail; c < classes; c += lanes) {
      if (c > classes - tail) last[0] = Ops::load(from + c);
      apply(last);
      Ops::store(to + c, last[0]);
    }
  }

  // All but a row's first and last vector are stored within lines, because stores that cross them pile up behind what
  // memory has yet to take (200 to 600 classes of floats on an AMD EPYC: up to 45 % more). `from` has all of the tail:
  // a stage for a stream is neither logits nor output.
  template <class In, class Apply> MLEFAST_FN void finish_in_lines(const In* from, S* to, const Apply& apply) const {
    const auto put = [&](int64_t c) { finish_some<1>(from + c, to + c, apply); };
    int64_t c = to_vector_border<Ops>(to);
    if (c > 0) put(0);
    for (; c + step <= classes; c += step) finish_some<K>(from + c, to + c, apply);
    for (; c + lanes <= classes; c += lanes) put(c);
    if (c < classes) put(classes - lanes);
  }

  template <int k, class In, class Apply>
  static MLEFAST_FN void finish_some(const In* from, S* to, const Apply& apply) {
    Vec v[k];
    for (int q = 0; q < k; ++q) v[q] = Ops::load(from + q * lanes);
    apply(v);
    for (int q = 0; q < k; ++q) Ops::store(to + q * lanes, v[q]);
  }
};

// From row r on; the row it got to. Halves are computed in scratch; `lines`, if there are any, write the output.
template <class Ops, class Task, int W, class S>
MLEFAST_FN int64_t run_strips(const Run<S>& run, int64_t r, typename Ops::Value* scratch, LineWriter* lines,
                              Sum<Ops>& total) {
  using Strip = Tile<Ops, Task, StripPasses<Ops, Task::emit, W, S>>;
  return for_each_tile<Strip>(run, r, [&](int64_t first, int64_t n) {
    S* out = Strip::writes ? run.out + first * run.out_row : nullptr;
    Strip strip(run.x + first * run.x_row, run.x_row, out, run.out_row, lines, scratch, run.classes, n);
    strip.work_whole(run, first, total);
    strip.template finish_by_rows<S>();
  });
}

// A strip of 32 rows, where these lie in the first-level cache, does more of what is done once for a row at once; one
// vector of rows can be of more classes. (At 200 to 700 classes with a gradient the narrow strip takes 4 to 10 % less,
// at 64 to 112 up to 12 % more. Streamed, up to 10 % more as well at its best, but not at times twice as much.)
template <class Ops> inline constexpr int wide_strip = Ops::lanes < 16 ? 4 : 2;
template <class T> inline constexpr int64_t wide_strip_tile = 16384 / sizeof(T);

template <class Ops, class Task, class S>
void run_strips(const Run<S>& run, typename Ops::Value* scratch, Sum<Ops>& total) {
  constexpr int wide = wide_strip<Ops>;
  int64_t r = 0;
  LineWriter writer(run.out, scratch + wide * Ops::lanes * whole_lines<typename Ops::Value>(run.classes),
                    run.classes * int64_t(sizeof(S)));
  LineWriter* const lines = run.streams ? &writer : nullptr;
  if (!lines && wide * Ops::lanes * run.classes <= wide_strip_tile<typename Ops::Value>)
    r = run_strips<Ops, Task, wide>(run, r, scratch, nullptr, total);
  run_strips<Ops, Task, 1>(run, r, scratch, lines, total);
  if (lines) writer.finish();
}

}  // namespace mlefast
