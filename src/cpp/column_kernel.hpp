// A row per lane: the class axis is not the last one, or it is so short that rows are transposed into this form. Rows
// of halves are copied into it, and others where that pays (Driver::stages_columns).
//
// A tile is W vectors of rows side by side, which are neighbours in memory; K / W classes are worked on at once. Its
// first pass brings it into the second-level cache and finds each row's maximum, the second sums up the exponentials
// and stores them, the third makes the final values of them.
#pragma once

#include <algorithm>

#include "streamed_columns.hpp"
#include "tile.hpp"
#include "transpose.hpp"

namespace mlefast {

// Bytes in memory that will be needed soon, so many for each class that is worked on.
struct Stream {
  const void* start;
  int64_t step;
};

// What does not depend on the task: the passes over a tile, whose n rows fill it unless W is 1. A tile in main memory
// is prefetched.
template <class Ops, rules::Emit emit, int W, bool in_memory> class ColumnPasses {
 protected:
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Mask = typename Ops::Mask;
  static constexpr int K = 4, lanes = Ops::lanes, vectors = W, at_once = K / W;
  // With fewer classes, near pivots cost what they save. (AMD EPYC, with a table of 16: values of 3 to 6 classes gain 6
  // to 8 %, a gradient of 3 and 4 nothing and of 5 and 6 4 %, softmax of 7 to 10 4 to 8 %. With one of 4, softmax loses
  // 8 % at 10 and gains nothing at 100.)
  static constexpr int64_t pivots_from = Ops::table_bits > 2 ? 3 : 32;
  static constexpr int64_t exact_pivots_from = Ops::table_bits > 2 ? 7 : never_near;
  // Classes whose terms are added up on their own, and two such groups before they join a Sum, so that the roundings of
  // a sum in T stay few: equal terms are all rounded to the same side. (16 of them in one go: 6 ULP.)
  static constexpr int64_t group = 8, one_group = 10;
  static constexpr int64_t notice = 16;  // classes between a prefetch and its use

  const T* x;
  int64_t x_class;
  T* out;
  int64_t out_class, classes, n;
  bool whole;
  rules::State<Ops> state[W];
  Stream to_read{nullptr, 0}, to_write{nullptr, 0};  // of a tile in scratch: what is moved next

 public:
  static constexpr int rows = W * lanes;

  ColumnPasses(const T* x_, int64_t x_class_, T* out_, int64_t out_class_, int64_t classes_, int64_t n_)
      : x(x_), x_class(x_class_), out(out_), out_class(out_class_), classes(classes_), n(n_), whole(n_ == rows) {}

  void set_maximum(int w, Vec max) { state[w].max = max; }
  void set_streams(Stream reads, Stream writes) { to_read = reads, to_write = writes; }

  void find_maxima() {
    Vec best[K];
    for (auto& v : best) v = Ops::set(static_cast<T>(-__builtin_inf()));
    int64_t c = 0;
    for (; c + at_once <= classes; c += at_once)
      for (int q = 0; q < K; ++q) {
        if (in_memory) prefetch_far(logits(c, q), notice * x_class * int64_t(sizeof(T)));
        best[q] = Ops::max(best[q], load(logits(c, q)));
      }
    for (; c < classes; ++c) best[0] = Ops::max(best[0], load(logits(c, 0)));
    for (int w = 0; w < W; ++w) {
      state[w].max = best[w];
      for (int q = w + W; q < K; q += W) state[w].max = Ops::max(state[w].max, best[q]);
    }
  }

 protected:
  MLEFAST_FN Vec load(const T* p) const { return W > 1 || whole ? Ops::load(p) : Ops::load(p, n, T(0)); }
  MLEFAST_FN void store(T* p, Vec v) const { W > 1 || whole ? Ops::store(p, v) : Ops::store(p, v, n); }

  // Where vector q lies, and of those that start at class c.
  static MLEFAST_FN int64_t vector(int q, int64_t stride) { return q / W * stride + q % W * lanes; }
  MLEFAST_FN const T* logits(int64_t c, int q) const { return x + c * x_class + vector(q, x_class); }
  MLEFAST_FN T* outputs(int64_t c, int q) const { return out + c * out_class + vector(q, out_class); }

  MLEFAST_FN T logit_of(int64_t row, int64_t c) const { return x[c * x_class + row]; }

  template <bool near> MLEFAST_FN void sum_up(const LanePivots<Ops, W>& against, Vec (&part)[W], Vec (&winners)[W]) {
    Vec lost[K];
    for (auto& v : lost) v = Ops::set(0);
    if (classes <= one_group) {
      add_group<near>(0, classes, against, part, lost);
      for (int w = 0; w < W; ++w) part[w] = against.template sum_of<near>(part[w], w);
    } else {
      Sum<Ops> sum[W];
      Vec both[W];
      for (auto& v : both) v = Ops::set(0);
      for (int64_t c = 0; c < classes; c += group) {
        const bool last = classes - c <= group;
        add_group<near>(c, last ? classes : c + group, against, part, lost);
        for (int w = 0; w < W; ++w) both[w] = both[w] + part[w];
        if (c % (2 * group) == 0 && !last) continue;
        for (int w = 0; w < W; ++w) sum[w].add(both[w]), both[w] = Ops::set(0);
      }
      for (int w = 0; w < W; ++w) part[w] = against.template sum_of<near>(sum[w], w);
    }
    for (int w = 0; w < W; ++w) {
      winners[w] = Ops::set(static_cast<T>(classes));
      for (int q = w; q < K; q += W) winners[w] = winners[w] - Ops::counted(lost[q]);
    }
  }

  // Makes the final values of what the output holds: exponentials, or nothing yet.
  template <class Last> void finish(const Last (&last)[W]) const {
    int64_t c = 0;
    for (; c + at_once <= classes; c += at_once) finish_some<K>(c, last);
    for (; c < classes; ++c) finish_some<1>(c, last);
  }

 private:
  // part[w] = the exponentials of classes [c, end) but for the winners'; the others are counted, in all groups
  // together.
  template <bool near>
  MLEFAST_FN void add_group(int64_t c, int64_t end, const LanePivots<Ops, W>& against, Vec (&part)[W],
                            Vec (&lost)[K]) const {
    Vec sum[K], count[K];  // copies, which the compiler keeps in registers
    for (int q = 0; q < K; ++q) sum[q] = Ops::set(0), count[q] = lost[q];
    const T* from = x + c * x_class;
    T* to = out + c * out_class;
    const int64_t from_class = x_class, to_class = out_class;
    const Stream reads = to_read, writes = to_write;
    for (; c + at_once <= end; c += at_once, from += at_once * from_class, to += at_once * to_class) {
      if (W > 1 && !in_memory)
        for (int64_t byte = 0; byte < int64_t(rows * sizeof(T)); byte += cache_line) {
          prefetch_far(reads.start, c * reads.step + byte);
          if (emit != rules::Emit::nothing) prefetch_to_write(writes.start, c * writes.step + byte);
        }
      add<near, K>(from, from_class, to, to_class, against, sum, count);
    }
    for (; c < end; ++c, from += from_class, to += to_class)
      add<near, 1>(from, from_class, to, to_class, against, sum, count);
    for (int q = 0; q < K; ++q) lost[q] = count[q];
    for (int w = 0; w < W; ++w) {
      part[w] = sum[w];
      for (int q = w + W; q < K; q += W) part[w] = part[w] + sum[q];
    }
  }

  template <bool near, int k>
  MLEFAST_FN void add(const T* from, int64_t from_class, T* to, int64_t to_class, const LanePivots<Ops, W>& against,
                      Vec (&sum)[K], Vec (&count)[K]) const {
    Vec v[k];
    Mask loses[k];
    for (int q = 0; q < k; ++q) {
      v[q] = load(from + vector(q, from_class));
      if (near) loses[q] = Ops::unlike(v[q], against.max[q % W]);
      if (!near) v[q] = v[q] - against.max[q % W];
      if (in_memory && emit != rules::Emit::nothing)
        prefetch_to_write(to + vector(q, to_class), notice * to_class * int64_t(sizeof(T)));
    }
    if constexpr (near)
      Ops::template exp_against<true>([&](int q) { return against.lowest[q % W]; },
                                      [&](int q) { return against.magic[q % W]; }, v);
    else
      Ops::exp_scaled(v);
    for (int q = 0; q < k; ++q) {
      if (emit == rules::Emit::scaled_exp) store(to + vector(q, to_class), v[q]);
      if (!near) loses[q] = Ops::unlike(v[q], Ops::set(MathConstants<T>::scale));
      sum[q] = Ops::add_where(loses[q], sum[q], v[q]);
      count[q] = Ops::count(loses[q], count[q]);
    }
  }

  template <int k, class Last> MLEFAST_FN void finish_some(int64_t c, const Last (&last)[W]) const {
    Vec v[k];
    for (int q = 0; q < k; ++q) v[q] = load(emit == rules::Emit::scaled_exp ? outputs(c, q) : logits(c, q));
    Last::apply([&](int q) -> const Last& { return last[q % W]; }, v);
    for (int q = 0; q < k; ++q) store(outputs(c, q), v[q]);
  }
};

// Rows that lie as a tile wants them. (Inlined, a tile's work takes 2.6 % fewer instructions at 10 classes.)
template <class Ops, class Task, int W>
MLEFAST_FN int64_t run_in_place(const Run<typename Ops::Value>& run, int64_t r, Sum<Ops>& total) {
  using Tile = mlefast::Tile<Ops, Task, ColumnPasses<Ops, Task::emit, W, (W > 1)>>;
  return for_each_tile<Tile>(run, r, [&](int64_t first, int64_t n) __attribute__((always_inline)) {
    auto* const out = Tile::writes ? run.out + first : nullptr;
    Tile tile(run.x + first, run.x_class, out, run.out_class, run.classes, n);
    tile.work_whole(run, first, total);
    tile.finish();
    tile.write_targets(out, run.out_row, run.out_class);
  });
}

// Rows that are transposed into that form, W vectors of them at a time, from row r on; the row it got to.
template <class Ops, class Task, int W, class S>
MLEFAST_FN int64_t run_transposed(const Run<S>& run, int64_t r, typename Ops::Value* scratch, Sum<Ops>& total) {
  using Tile = mlefast::Tile<Ops, Task, ColumnPasses<Ops, Task::emit, W, false>>;
  using Mover = Transposer<Ops>;
  constexpr int lanes = Ops::lanes;
  // Without an output a small tile is done before the next one has come. (AMD EPYC: two tiles ahead take 0.84 to 0.9
  // of the time at 10 and 20 classes, but 0.9 to 1.07 at 33, 1.1 at 100, and 1.3 with a gradient at 33.)
  const bool hurries = !Tile::writes && Tile::rows * run.classes * int64_t(sizeof(S)) <= 8192;
  const int64_t ahead = (hurries ? 2 : 1) * Tile::rows;
  return for_each_tile<Tile>(run, r, [&](int64_t first, int64_t n) __attribute__((always_inline)) {
    const int64_t part = W > 1 ? lanes : n;
    const auto beyond = [&](int64_t row, int w) {  // elements, of rows that follow without a gap
      return row == run.classes ? (run.rows - first - w * lanes - part) * run.classes : 0;
    };
    Tile tile(scratch, Tile::rows, scratch, Tile::rows, run.classes, n);
    // Rows without gaps are one stretch of memory, which the processor does not see in the order of access.
    const auto stream = [&](const S* array, int64_t from, int64_t row) {
      const int64_t step = row == run.classes ? int64_t(Tile::rows) : 0;
      return Stream{array ? array + from * row : array, step * int64_t(sizeof(S))};
    };
    tile.set_streams(stream(run.x, first + ahead, run.x_row), stream(run.out, first, run.out_row));
    tile.read_targets(run, first);
    for (int w = 0; w < W; ++w)
      tile.set_maximum(w, Mover::gather(run.x + (first + w * lanes) * run.x_row, run.x_row, part, run.classes,
                                        beyond(run.x_row, w), scratch + w * lanes, Tile::rows));
    tile.work(run, first, total);
    if constexpr (Tile::writes)
      for (int w = 0; w < W; ++w)
        Mover::scatter(scratch + w * lanes, Tile::rows, part, run.classes, beyond(run.out_row, w),
                       run.out + (first + w * lanes) * run.out_row, run.out_row, [&](auto& v) { tile.finish(w, v); });
    tile.write_targets(run.out + first * run.out_row, run.out_row, run.out_class);
  });
}

// How many rows ahead a tile's logits are asked for. One tile is too few: a tile ends, in each class, within the cache
// line where the next one begins, which would be asked for only after its use. (AMD EPYC, values: two tiles take 0.62
// of the time of one at 21 classes, 0.70 at 150; where two are large, one and a line take 0.80 at 1000.) Of halves two
// tiles are asked for at once: 128 bytes of each class at a time took up to a quarter longer than 256.
template <class S> constexpr int64_t staged_ahead(int64_t tile_rows, int64_t classes) {
  constexpr int64_t large = 65536, line = cache_line / int64_t(sizeof(S));
  const int64_t tile_bytes = tile_rows * classes * int64_t(sizeof(S)), tiles = 1 + read_ahead / tile_bytes;
  if (is_half<S>) return tile_rows * tiles;
  return tile_bytes > large ? tile_rows + line : tile_rows * std::max<int64_t>(2, tiles);
}

// Rows side by side that are copied into that form, likewise.
template <class Ops, class Task, int W, class S>
MLEFAST_FN int64_t run_staged(const Run<S>& run, int64_t r, typename Ops::Value* scratch, Sum<Ops>& total) {
  using Tile = mlefast::Tile<Ops, Task, ColumnPasses<Ops, Task::emit, W, false>>;
  const int64_t ahead = staged_ahead<S>(Tile::rows, run.classes);
  const auto stream = [&](const S* array, int64_t stride) {  // or, of nothing, what is cached anyway
    return array ? Stream{array, stride * int64_t(sizeof(S))} : Stream{scratch, 0};
  };
  // A tile whose copy begins there is brought in and worked on, and written by `write`; its output is asked for at
  // `to`.
  const auto do_tiles = [&](typename Ops::Value* copy, int64_t stride, S* to,
                            const auto& write) __attribute__((always_inline)) {
    return for_each_tile<Tile>(run, r, [&](int64_t first, int64_t n) __attribute__((always_inline)) {
      Tile tile(copy, stride, copy, stride, run.classes, n);
      typename Ops::Vec max[W];
      const int64_t later = first + ahead;
      const S* const x_later = later < run.rows ? run.x + later
                               : run.next_x     ? run.next_x + (later - run.rows)
                                                : nullptr;
      tile.set_streams(stream(x_later, run.x_class), stream(to ? to + first : to, run.out_class));
      tile.read_targets(run, first);
      Copier<Ops, W>::gather(run.x + first, run.x_class, n, run.classes, copy, stride, max);
      for (int w = 0; w < W; ++w) tile.set_maximum(w, max[w]);
      tile.work(run, first, total);
      write(tile, first, n);
    });
  };
  if constexpr (W > 1 && Tile::writes) {
    using Streamed = StreamedColumns<Ops, Tile, S>;
    if constexpr (Streamed::possible)
      if (run.streams) {
        Streamed streamed(scratch, run.classes, run.begins);
        const int64_t end = do_tiles(streamed.tile_rows(), Streamed::stride, nullptr,
                                     [&](const Tile& tile, int64_t first, int64_t) __attribute__((always_inline)) {
                                       streamed.write(tile, run.out + first, run.out_class, run.begins && first == r);
                                     });
        if (run.ends && (end > r || !run.begins)) streamed.finish(run.out + end, run.out_class);
        return end;
      }
  }
  S* const out = Tile::writes ? run.out : nullptr;
  return do_tiles(scratch, Tile::rows, out,
                  [&](const Tile& tile, int64_t first, int64_t n) __attribute__((always_inline)) {
                    if constexpr (Tile::writes) {
                      Copier<Ops, W>::scatter(scratch, Tile::rows, n, run.classes, out + first, run.out_class,
                                              [&](auto& v) { tile.finish_rows(v); });
                      tile.write_targets(out + first, run.out_row, run.out_class);
                    }
                  });
}

// Rows that are neighbours in memory, class by class; as many at a time as scratch holds, where there is one.
template <class Ops, class Task, class S> void run_columns(const Run<S>& run, typename Ops::Value* scratch) {
  Sum<Ops> total;
  int64_t r = 0;
  if (is_half<S> || scratch) {
    if (4 * Ops::lanes * run.classes <= staged_columns<typename Ops::Value>)
      r = run_staged<Ops, Task, 4>(run, r, scratch, total);
    run_staged<Ops, Task, 1>(run, r, scratch, total);
  } else if constexpr (!is_half<S>) {
    run_in_place<Ops, Task, 1>(run, run_in_place<Ops, Task, 4>(run, 0, total), total);
  }
  if (Task::has_value && run.total) *run.total = total.total();
}

}  // namespace mlefast
