// Long rows whose classes are contiguous: the vector runs along the row.
//
// A row is worked on in blocks of 4 KiB, each read from memory once. While the exponentials of one block are taken, the
// maximum of the next one is looked up (of the next row, at a row's end), so that the loads of the one hide behind the
// arithmetic of the other. Exponentials are taken against the pivot of the largest logit so far, stored in the output
// block (or in a stage of their own) and multiplied by their final factor in a second pass that finds them in cache.
// That pass is made step by step while the next row is scanned: one alone would leave the memory idle, the other the
// stores.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "../rules/losses.h"
#include "pivot.hpp"
#include "run.hpp"
#include "vectors.hpp"

namespace mlefast {

// The second pass over a scanned row, its final values, a step at a time.
template <class Ops, rules::Emit emit, bool has_target, class S> class RowWriter {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Double = Math<Scalar<double, Ops>>;
  using In = std::conditional_t<emit == rules::Emit::scaled_exp, T, S>;
  // A row's only class has probability 1, which a factor that is rounded would miss by a unit at times; the entry of a
  // target is computed apart.
  using Factor = Rescale<Ops, !has_target>;
  static constexpr int K = 4, lanes = Ops::lanes;
  static constexpr int64_t step = K * lanes, block = block_length<T>, line_length = rows_of_line<S>;

 public:
  // A row of n classes: `from` are its exponentials, or its logits. `streams`: see Run.
  void start(const In* from_, S* out_, int64_t n_, const T* block_max_, const Settled& settled_, int64_t target_,
             bool streams_) {
    from = from_, out = out_, n = n_, block_max = block_max_, settled = settled_, target = target_, i = b = 0;
    streams = streams_ && reinterpret_cast<uintptr_t>(out) % sizeof(S) == 0;
    const double unit = 1 / settled.top;
    factor = settled.factor * unit, rest = Double::fma(-factor, settled.top, settled.factor) * unit;
  }

  // Of one block: what comes before the first step, the steps that are left, and what comes behind them. Steps start
  // where `out` can be divided by a vector's size (by a line's, if it is streamed), and so does the next block, if its
  // factor is the same: stores that cross the lines of a cache take twice as long, and where rows are not a multiple of
  // them, most would.
  MLEFAST_FN void open() {
    if (i == n) return;
    b = n - b < block ? n : b + block;
    prepare(block_max[(b - 1) / block]);
    if (const int64_t head = to_border(i)) put_part(head < b - i ? head : b - i);
    end = b;
    if (b < n && alike(block_max[b / block - 1], block_max[b / block]))
      end += to_border(b) < n - b ? to_border(b) : n - b;
    steps = (end - i) / step;
  }
  // At most `count` steps. (A few at a time, because what they need is read from memory once for all of them.)
  MLEFAST_FN void advance(int64_t count) {
    if (count > steps) count = steps;
    if (count == 0) return;
    steps -= count;
    const In* x = from + i;
    S* to = out + i;
    int64_t till_target = target - i;
    i += count * step;
    const auto last = finish_of();
    for (; count > 0; --count, x += step, to += step, till_target -= step) {
      Vec v[K];
      for (int q = 0; q < K; ++q) v[q] = Ops::load(x + q * lanes);
      last(v, till_target);
      if (streams)
        for (int q = 0; q < K; ++q) Ops::stream(to + q * lanes, v[q]);
      else
        for (int q = 0; q < K; ++q) Ops::store(to + q * lanes, v[q]);
    }
  }
  MLEFAST_FN void close() {
    advance(steps);
    const int64_t unit = streams ? line_length : lanes;
    for (int64_t left = (end - i) / unit * unit; left > 0; left -= lanes, i += lanes) {
      Vec v[1] = {Ops::load(from + i)};
      finish_of()(v, target - i);
      streams ? Ops::stream(out + i, v[0]) : Ops::store(out + i, v[0]);
    }
    if (i < end) put_part(end - i);
  }

  // All that is left of the row.
  void finish() {
    while (i < n) open(), close();
  }
  // What waits for the rest of its line, when nothing follows.
  void flush() {
    std::copy(line, line + waiting, line_at);
    waiting = 0;
  }

 private:
  const In* from = nullptr;
  S* out = nullptr;
  int64_t n = 0, b = 0;  // elements, and where the blocks end that were opened
  int64_t i = 0, end = 0, steps = 0;
  int64_t target = -1;
  const T* block_max = nullptr;
  Settled settled{};
  double factor = 0, rest = 0;  // of exponentials: their sum is exact
  bool streams = false;
  Factor by_factor;
  Vec max, log_total;

  // Of a stream: the first elements of a line, which others are to fill.
  alignas(cache_line) S line[line_length];
  S* line_at = nullptr;
  int64_t waiting = 0;

  MLEFAST_FN int64_t to_border(int64_t at) const {
    if (streams) return (line_length - within_line(out + at)) % line_length;
    return to_vector_border<Ops>(out + at);
  }

  static MLEFAST_FN bool alike(T a, T b) {
    if constexpr (emit != rules::Emit::scaled_exp) return true;
    return a == b || (a > -static_cast<T>(__builtin_inf()) && Pivot<Ops>(a) == Pivot<Ops>(b));
  }
  // The row's factor, times exp(block's pivot - row's pivot).
  MLEFAST_FN void prepare(T max_of_block) {
    if constexpr (emit == rules::Emit::scaled_exp) {
      const Pivot<Ops> pivot(static_cast<T>(settled.row.max)), at(max_of_block);
      const double ratio = at == pivot ? 1 : pivot.ratio(at);
      by_factor = Factor::by_sum(factor * ratio, rest * ratio);
    } else {
      max = Ops::set(static_cast<T>(settled.row.max)), log_total = Ops::set(static_cast<T>(settled.factor));
    }
  }
  // finish(v, till_target) makes the final values of v, the target's among them if it is so many elements behind v[0].
  MLEFAST_FN auto finish_of() const {
    if constexpr (emit == rules::Emit::scaled_exp) {
      return [by = by_factor, at_target = static_cast<T>(settled.at_target)](auto& v, int64_t till_target) {
        by(v);
        constexpr int64_t elements = sizeof v / sizeof v[0] * lanes;
        if (has_target && __builtin_expect(uint64_t(till_target) < uint64_t(elements), 0)) {
          T all[elements];
          for (int64_t q = 0; q * lanes < elements; ++q) Ops::store(all + q * lanes, v[q]);
          all[till_target] = at_target;
          for (int64_t q = 0; q * lanes < elements; ++q) v[q] = Ops::load(all + q * lanes);
        }
      };
    } else {
      return [m = max, l = log_total](auto& v, int64_t) {
        for (auto& each : v) each = (each - m) - l;
      };
    }
  }
  MLEFAST_FN void put_part(int64_t count) {
    if (streams) return put_in_line(count);
    put_at(out + i, count);
  }
  MLEFAST_FN void put_at(S* to, int64_t count) {
    Vec v[1] = {Ops::load(from + i, count, 0)};
    finish_of()(v, target - i);
    Ops::store(to, v[0], count);
    i += count;
  }
  // Of a line, whose rest comes with what is put next: a line that is written in part, by two rows, is read from memory
  // for that, and all stores that follow wait for it. (Measured on AMD EPYCs at 1000 classes: 0.76 to 0.85 of the time
  // with AVX-512, 0.70 with AVX2 where that is all there is.)
  __attribute__((noinline)) void put_in_line(int64_t count) {
    S* to = out + i;
    const int64_t within = within_line(to);
    const bool goes_on = within == 0 || (within == waiting && to == line_at + waiting);
    if (!goes_on || within == 0) flush();
    if (goes_on) line_at = to - within, to = line + within, waiting = within + count;
    for (int64_t n; count > 0; count -= n, to += n) n = count < lanes ? count : lanes, put_at(to, n);
    if (waiting == line_length) stream_line(line_at, line), waiting = 0;
  }
};

// Nothing is written.
template <class Ops, bool has_target, class S> class RowWriter<Ops, rules::Emit::nothing, has_target, S> {
 public:
  MLEFAST_FN void open() {}
  MLEFAST_FN void advance(int64_t) {}
  MLEFAST_FN void close() {}
  void finish() {}
};

// The first pass.
template <class Ops, rules::Emit emit, bool has_target, class S> class RowScan {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Double = Math<Scalar<double, Ops>>;

 public:
  using Writer = RowWriter<Ops, emit, has_target, S>;
  static constexpr int K = 4, lanes = Ops::lanes;
  static constexpr int64_t step = K * lanes, block = block_length<T>;
  // Terms are added up step by step within a group, group by group within a block if it has few, so that the roundings
  // of a sum in T stay few. (What is done once for a group takes as long as half a step: with AVX2, sums in double for
  // groups of 4 steps took 8 to 12 % more.)
  static constexpr int64_t group = (lanes * sizeof(T) < 64 ? 8 : 4) * step;
  static constexpr bool sums_blocks = block / group <= 8;
  static_assert(block % group == 0);

  // Finds the largest elements of x, in any lanes. Blocks are looked at before they are scanned.
  void look(const S* x, int64_t n) {
    ahead = Ops::set(-infinity);
    look_at(x, 0, n, ahead);
  }

  // Sums up a row whose first block has been looked at; looks at `next`, the first block of the row to come.
  // block_max[b] is the maximum whose pivot block b's exponentials were taken against. Meanwhile, blocks of `writer`'s
  // row are written.
  rules::State<Double> scan(const S* x, int64_t n, T* stage, const S* next, int64_t next_n, T* block_max,
                            Writer& writer) {
    Sum<Ops> sum;
    T max = -infinity;
    Vec best = ahead;
    top_ = 1;
    if (!pivot.is_near()) take(Pivot<Ops>());  // of the row before, whose maximum was too large for a near one
    for (int64_t b = 0; b < n; b += block) {
      const int64_t len = n - b < block ? n - b : block, rest = n - b - len;
      const Vec highest = best;
      const S* after = rest > 0 ? x + b + len : next;
      const int64_t after_n = rest > 0 ? (rest < block ? rest : block) : next_n;
      const bool raised = Ops::any(Ops::less(Ops::set(max), highest));
      best = Ops::set(-infinity);
      writer.open();
      if (raised) {
        const T higher = Ops::reduce_max(highest);
        const Pivot<Ops> next_pivot(higher);
        if (max > -infinity) rebase(sum, next_pivot);  // else nothing has been added
        take(next_pivot);
        max = higher, top_ = next_pivot.top();
        const double winners = scan_some<true>(x + b, len, at(stage, b), max, after, after_n, best, sum, writer);
        sum.add_once((winners - 1) * top_ * MathConstants<T>::scale);
      } else {
        scan_some<false>(x + b, len, at(stage, b), max, after, after_n, best, sum, writer);
      }
      writer.close();
      block_max[b / block] = max;
    }
    ahead = best;
    rules::State<Double> row{max, sum.total() * MathConstants<T>::unscale / top_};
    if (max == infinity) row.others = holds_nan(x, n) ? row.others : 0;
    return row;
  }

  // What is prefetched: memory that many bytes behind the logits that are worked on.
  void prefetch_writes(int64_t bytes) { to_write = bytes; }

  // exp(maximum - pivot) of the row that was scanned last.
  double top() const { return top_; }

 private:
  static constexpr T infinity = static_cast<T>(__builtin_inf());

  Pivot<Ops> pivot;
  typename Pivot<Ops>::Vectors against = pivot.vectors();
  double top_ = 1;
  int64_t to_write = 0;
  Vec ahead;          // the maximum of the block to come, in any lanes,
  T tops[block / K];  // and of each of its steps

  // Foreseen to be the pivot that there is, so that exponentials need not wait for the maximum.
  MLEFAST_FN void take(const Pivot<Ops>& next) {
    const bool another = !(next == pivot);
    pivot = next;
    if (__builtin_expect(another, 0)) renew();
  }
  __attribute__((noinline)) void renew() { against = pivot.vectors(); }

  // Makes a sum one against a higher maximum: the old one, left out so far, counts from now on. (Not inlined, because
  // few blocks raise it: within the loops it took 5 % more instructions in plain C++.)
  __attribute__((noinline)) void rebase(Sum<Ops>& sum, const Pivot<Ops>& to) const {
    sum.add_once(top_ * MathConstants<T>::scale);
    if (!(to == pivot)) sum.multiply(to.ratio(pivot));
  }

  static MLEFAST_FN T* at(T* stage, int64_t i) {
    const bool absent = emit == rules::Emit::nothing || (is_half<S> && emit != rules::Emit::scaled_exp);
    return absent ? nullptr : stage + i;
  }

  static MLEFAST_FN Vec largest_of_step(const S* x) {
    Vec v[K];
    for (int q = 0; q < K; ++q) v[q] = Ops::load(x + q * lanes);
    return Ops::max(Ops::max(v[0], v[1]), Ops::max(v[2], v[3]));
  }

  MLEFAST_FN void look_at_step(const S* x, int64_t i, Vec& best) {
    const Vec top = largest_of_step(x + i);
    Ops::store(tops + i / K, top);
    best = Ops::max(best, top);
  }

  MLEFAST_FN void look_at(const S* x, int64_t i, int64_t n, Vec& best) {
    for (; i + step <= n; i += step) look_at_step(x, i, best);
    for (; i + lanes <= n; i += lanes) best = Ops::max(best, Ops::load(x + i));
    if (i < n) best = Ops::max(best, Ops::load(x + i, n - i, -infinity));
  }

  // Adds a block's exponentials to `sum`. If its maximum is the row's new one, those equal to it are left out and
  // counted: the result is their number.
  template <bool raised, class... Rest> double scan_some(Rest&&... rest) {
    if constexpr (Ops::fuses)
      if (pivot.is_near()) return scan_block<raised, true>(against, rest...);
    return scan_block<raised, false>(against, rest...);
  }

  template <bool raised, bool near>
  MLEFAST_FN double scan_block(typename Pivot<Ops>::Vectors against_, const S* x, int64_t n, T* stage, T max,
                               const S* next, int64_t next_n, Vec& best_of_all, Sum<Ops>& sum, Writer& writer) {
    const Block<near> to{against_, Ops::set(max), Ops::set(static_cast<T>(top_ * MathConstants<T>::scale))};
    Vec winners = Ops::set(0), best = best_of_all;  // which the compiler keeps in registers
    Vec total = Ops::set(0);
    int64_t i = 0;
    while (i + step <= n) {
      Vec part = Ops::set(0);
      writer.advance(group / step);
      for (const int64_t end = n - i < group ? n - step : i + group - step; i <= end; i += step) {
        if (i + step <= next_n)
          advance<K, raised, true>(to, x, i, n, stage, next, best, part, winners);
        else
          advance<K, raised, false>(to, x, i, n, stage, next, best, part, winners);
      }
      total = total + part;
      if (!sums_blocks) sum.add(total), total = Ops::set(0);
    }
    const int64_t looked = i < next_n ? i : next_n / step * step;
    Vec part = Ops::set(0);
    for (; i < n; i += lanes) advance<1, raised, false>(to, x, i, n, stage, next, best, part, winners);
    sum.add(total + part);
    look_at(next, looked, next_n, best);
    best_of_all = best;
    return raised ? double(Ops::reduce_add(Ops::counted(winners))) : 0;
  }

  template <bool is_near> struct Block {
    static constexpr bool near = is_near;
    typename Pivot<Ops>::Vectors against;
    Vec max, top;
  };

  static MLEFAST_FN Vec load_from(const S* x, int64_t n, bool whole) {
    return whole ? Ops::load(x) : Ops::load(x, n, -infinity);
  }

  // k vectors from element i on, of which the only one may be short: the rest of it is as if masked.
  template <int k, bool raised, bool fused, class Block>
  MLEFAST_FN void advance(const Block& to, const S* from, int64_t i, int64_t n, T* stage, const S* next, Vec& best,
                          Vec& part, Vec& winners) {
    const bool whole = k > 1 || n - i >= lanes;
    const S* x = from + i;
    stage = at(stage, i);
    Vec v[k], power[k];
    for (int64_t byte = 0; byte < int64_t(k * lanes * sizeof(S)); byte += 64) {
      prefetch_far(x, read_ahead + byte);
      prefetch(x, block * int64_t(sizeof(S)) + near_ahead + byte);
      if (emit != rules::Emit::nothing) prefetch_to_write(x, to_write + byte);
    }
    for (int q = 0; q < k; ++q) v[q] = load_from(x + q * lanes, n - i, whole);
    // One look at all vectors, because few hold a winner.
    const bool won = raised && Ops::any(Ops::equal(k > 1 ? Ops::load(tops + i / K) : v[0], to.max));
    if constexpr (!Block::near)
      for (int q = 0; q < k; ++q) v[q] = v[q] - to.against.shift;
    if (fused) look_at_step(next, i, best);
    constexpr bool stored = emit == rules::Emit::scaled_exp;
    constexpr bool in_parts = !stored && Ops::template has_parts<Block::near>;
    if constexpr (!in_parts) {
      Ops::template exp_against<Block::near>(to.against.lowest, to.against.magic, v);
      for (int q = 0; stored && q < k; ++q)
        whole ? Ops::store(stage + q * lanes, v[q]) : Ops::store(stage, v[q], n - i);
    } else {
      Ops::template exp_parts<Block::near>(to.against.lowest, to.against.magic, v, power);
    }
    if (won)
      for (int q = 0; q < k; ++q) {  // what has a winner's exponential counts as one
        const auto wins = Ops::equal(in_parts ? v[q] * power[q] : v[q], to.top);
        v[q] = Ops::add_unless(wins, Ops::set(0), v[q]), winners = Ops::count(wins, winners);
      }
    for (int q = 0; in_parts && q < k; q += 2) v[q] = v[q] * power[q];  // exact: with an output or without it, the same
    for (int q = 1; q < k; q += 2) v[q - 1] = in_parts ? Ops::fma(v[q], power[q], v[q - 1]) : v[q - 1] + v[q];
    part = part + (k > 1 ? v[0] + v[2 % k] : v[0]);
  }

  static bool holds_nan(const S* x, int64_t n) {
    bool nan = false;
    for (int64_t i = 0; i < n; ++i) nan |= to_value(x[i]) != to_value(x[i]);
    return nan;
  }
};

// The losses of up to a vector of rows, whose states are collected so that their logarithms are taken together.
template <class Ops, class Task> class Values {
  using T = typename Ops::Value;
  static constexpr int lanes = Ops::lanes;
  T max[lanes], others[lanes], x_target[lanes], weight[lanes];
  Sum<Ops> sum;

 public:
  template <class Row> MLEFAST_FN void put(int lane, Row row, const Target<T>& target) {
    max[lane] = static_cast<T>(row.max), others[lane] = static_cast<T>(row.others);
    x_target[lane] = target.logit, weight[lane] = target.weight;
  }
  MLEFAST_FN void put_zero(int lane) { max[lane] = others[lane] = x_target[lane] = weight[lane] = 0; }

  MLEFAST_FN void flush(int rows, T* value) {
    for (int lane = rows; lane < lanes; ++lane) put_zero(lane);
    const auto loss = Task::value(rules::State<Ops>{Ops::load(max), Ops::load(others)}, Ops::load(x_target));
    const auto weighted = loss * Ops::load(weight);
    if (value) rows < lanes ? Ops::store(value, weighted, rows) : Ops::store(value, weighted);
    sum.add(weighted);
  }
  MLEFAST_FN double total() const { return sum.total(); }
};

// One row's two passes, over the segments that it consists of.
template <class Ops, class Task, class S> class RowKernel {
  using T = typename Ops::Value;
  static constexpr bool writes = Task::emit != rules::Emit::nothing;
  using Scan = RowScan<Ops, Task::emit, writes && Task::has_target, S>;
  using Double = Math<Scalar<double, Ops>>;
  using Row = rules::State<Double>;
  static constexpr int64_t block = block_length<T>, segment = segment_length;
  static_assert(segment % block == 0);

  static MLEFAST_FN int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

  // `top` is exp(maximum - pivot), which the stored exponentials are too large by.
  static MLEFAST_FN Settled settle(Row row, double top, const Target<T>& target) {
    Settled settled{{row.max, row.others}, 0, 0, top};
    if constexpr (Task::emit == rules::Emit::log_probability) settled.factor = Task::log_total(row);
    if constexpr (Task::emit == rules::Emit::scaled_exp) {
      settled.factor = Task::factor(row, target.scale);
      if constexpr (Task::has_target) settled.at_target = Task::at_target(row, double(target.logit), settled.factor);
    }
    return settled;
  }

  using Writer = typename Scan::Writer;
  static constexpr bool waits = Task::emit == rules::Emit::scaled_exp;

 public:
  static void rows(const Run<S>& run, T* scratch) {
    const int64_t n = run.classes, first = at_most(n, block), blocks = (n + block - 1) / block;
    const bool streams = run.streams && Ops::streams, staged = waits && (is_half<S> || streams);
    T *own_stage = scratch, *other_stage = own_stage + (staged && run.lags ? whole_lines<T>(n) : 0);
    T *block_max = other_stage + (staged ? whole_lines<T>(n) : 0), *other_max = block_max + blocks;
    Values<Ops, Task> values;
    Writer writer;
    Scan scan;
    scan.look(run.x, run.rows > 0 ? first : 0);
    for (int64_t r = 0; r < run.rows; ++r) {
      const S* x = run.x + r * run.x_row;
      const S* next = r + 1 < run.rows ? x + run.x_row : x;
      const int64_t next_n = r + 1 < run.rows ? first : 0;
      S* out = writes ? run.out + r * run.out_row : nullptr;
      T* stage = stage_of(staged, own_stage, out);
      const int lane = static_cast<int>(r % Ops::lanes);
      const auto target = read_target<Task>(run, r);
      if (target.ignored) {
        if (out)
          for (int64_t i = 0; i < n; ++i) out[i] = S{};
        scan.look(next, next_n);
        values.put_zero(lane);
      } else {
        Row row{};
        if (streams) {  // of its lines, those that others have a part of
          if (r == 0) prefetch_to_write(out, 0);
          if (r + 1 == run.rows) prefetch_to_write(out + n - 1, 0);
        }
        if (writes) {
          const bool to_stage = waits && !is_half<S>;
          if (to_stage || !streams)
            scan.prefetch_writes(bytes_between(x, to_stage ? static_cast<void*>(stage) : out) + write_ahead);
        }
        for (int64_t s = 0; s < n; s += segment) {
          const int64_t len = at_most(n - s, segment), rest = n - s - len;
          const Row part = scan.scan(x + s, len, stage ? stage + s : stage, rest ? x + s + len : next,
                                     rest ? at_most(rest, block) : next_n, block_max + s / block, writer);
          row = s == 0 ? part : rules::merge(row, part);
        }
        if constexpr (writes) {
          writer.finish();
          const double top = n > segment ? Pivot<Ops>(static_cast<T>(row.max)).top() : scan.top();
          start(writer, x, stage, out, n, block_max, settle(row, top, target), target.index, streams);
          if (run.lags)
            std::swap(block_max, other_max), std::swap(own_stage, other_stage);
          else
            writer.finish();
        }
        if constexpr (Task::has_value) values.put(lane, row, target);
      }
      if constexpr (Task::has_value)
        if (lane + 1 == Ops::lanes || r + 1 == run.rows)
          values.flush(lane + 1, run.value ? run.value + (r - lane) : nullptr);
    }
    writer.finish();
    if constexpr (writes) writer.flush();
    if (streams) settle_lines();
    if constexpr (Task::has_value)
      if (run.total) *run.total = values.total();
  }

  static Part scan(const S* x, int64_t n, T* stage, T* block_max) {
    Scan scan;
    scan.look(x, at_most(n, block));
    Writer none;
    if (stage) scan.prefetch_writes(bytes_between(x, stage) + write_ahead);
    const Row part = scan.scan(x, n, stage, x, 0, block_max, none);
    return {part.max, part.others};
  }

  static Target<T> first_target(const Run<S>& run) { return read_target<Task>(run, 0); }

  static Settled settle_parts(const Run<S>& run, Target<T> target, const Part* parts, int64_t count) {
    Row row{parts[0].max, parts[0].others};
    for (int64_t s = 1; s < count; ++s) row = rules::merge(row, Row{parts[s].max, parts[s].others});
    if constexpr (Task::has_value) {
      Values<Ops, Task> values;
      values.put(0, row, target);
      values.flush(1, run.value);
      if (run.total) *run.total = values.total();
    }
    return settle(row, Pivot<Ops>(static_cast<T>(row.max)).top(), target);
  }

  static void finish(const S* x, const T* stage, S* out, int64_t n, const T* block_max, Settled row) {
    if constexpr (writes) {
      Writer writer;
      start(writer, x, stage, out, n, block_max, row, -1, false);
      writer.finish();
    }
  }

 private:
  static MLEFAST_FN T* stage_of(bool staged, T* own, S* out) {
    if constexpr (!waits) return nullptr;
    if constexpr (!is_half<S>)
      if (!staged) return out;
    return own;
  }

  static MLEFAST_FN void start(Writer& writer, const S* x, const T* stage, S* out, int64_t n, const T* block_max,
                               const Settled& row, int64_t target, bool streams) {
    if constexpr (waits)
      writer.start(stage, out, n, block_max, row, target, streams);
    else
      writer.start(x, out, n, block_max, row, -1, streams);
  }
};

}  // namespace mlefast
