// Long rows whose classes are contiguous: the vector runs along the row.
//
// A row is worked on in blocks of 4 KiB, each read from memory once. While the exponentials of one block are taken, the
// maximum of the next one is looked up (of the next row, at a row's end), so that the loads of the one hide behind the
// arithmetic of the other. Exponentials are taken against the largest logit so far, stored in the output block (of
// halves: in a stage of floats) and multiplied by their final factor in a second pass that finds them in cache.
#pragma once

#include "../rules/losses.h"
#include "run.hpp"
#include "vectors.hpp"

namespace mlefast {

template <class Ops, rules::Emit emit, class S> class RowScan {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Double = Math<Scalar<double, Ops>>;

 public:
  static constexpr int K = 4, lanes = Ops::lanes;
  static constexpr int64_t step = K * lanes, group = 4 * step, block = block_length<T>;
  static_assert(block % group == 0);

  // The largest elements of x, in any lanes. Blocks are looked at before they are scanned.
  void look(const S* x, int64_t n) { look_at(x, n, ahead); }

  void forget() { ahead = Ops::set(-infinity); }

  // Sums up a row whose first block has been looked at; looks at `next`, the first block of the row to come.
  // block_max[b] is the maximum that block b's exponentials were taken against.
  rules::State<Double> scan(const S* x, int64_t n, T* stage, const S* next, int64_t next_n, T* block_max) {
    Sum<Ops> sum;
    T max = -infinity;
    Vec best = ahead;
    for (int64_t b = 0; b < n; b += block) {
      const int64_t len = n - b < block ? n - b : block, rest = n - b - len;
      const Vec top = best;
      const S* after = rest > 0 ? x + b + len : next;
      const int64_t after_n = rest > 0 ? (rest < block ? rest : block) : next_n;
      const bool raised = Ops::any(Ops::less(Ops::set(max), top));
      best = Ops::set(-infinity);
      if (raised) {
        const T higher = Ops::reduce_max(top);
        if (max > -infinity) rebase(sum, max, higher);  // else nothing has been added
        max = higher;
        const double winners = scan_block<true>(x + b, len, at(stage, b), max, after, after_n, best, sum);
        sum.add_once((winners - 1) * MathConstants<T>::scale);
      } else {
        scan_block<false>(x + b, len, at(stage, b), max, after, after_n, best, sum);
      }
      block_max[b / block] = max;
    }
    ahead = best;
    rules::State<Double> row{max, sum.total() * MathConstants<T>::unscale};
    if (max == infinity) row.others = holds_nan(x, n) ? row.others : 0;
    return row;
  }

 private:
  static constexpr T infinity = static_cast<T>(__builtin_inf());

  // Makes a sum one against a higher maximum: the old one, left out so far, counts from now on. (Not inlined, because
  // few blocks raise it: within the loops it took 5 % more instructions in plain C++.)
  __attribute__((noinline)) static void rebase(Sum<Ops>& sum, T from, T to) {
    sum.add_once(MathConstants<T>::scale);
    sum.multiply(Double::exp(double(from) - double(to)));
  }

  Vec ahead;  // the maximum of the block to come, in any lanes

  static MLEFAST_FN T* at(T* stage, int64_t i) {
    const bool absent = emit == rules::Emit::nothing || (is_half<S> && emit != rules::Emit::scaled_exp);
    return absent ? nullptr : stage + i;
  }

  template <int k> static MLEFAST_FN Vec largest(const Vec (&v)[k]) {
    if constexpr (k == 1)
      return v[0];
    else
      return Ops::max(Ops::max(v[0], v[1]), Ops::max(v[2], v[3]));
  }
  template <int k> static MLEFAST_FN Vec added(const Vec (&v)[k]) {
    if constexpr (k == 1)
      return v[0];
    else
      return (v[0] + v[1]) + (v[2] + v[3]);
  }

  static MLEFAST_FN Vec largest_of_step(const S* x) {
    Vec v[K];
    for (int q = 0; q < K; ++q) v[q] = Ops::load(x + q * lanes);
    return largest(v);
  }

  static MLEFAST_FN void look_at(const S* x, int64_t n, Vec& best) {
    int64_t i = 0;
    for (; i + step <= n; i += step) best = Ops::max(best, largest_of_step(x + i));
    for (; i + lanes <= n; i += lanes) best = Ops::max(best, Ops::load(x + i));
    if (i < n) best = Ops::max(best, Ops::load(x + i, n - i, -infinity));
  }

  // Adds a block's exponentials to `sum`. If its maximum is the row's new one, those equal to it are left out and
  // counted: the result is their number.
  template <bool raised>
  static MLEFAST_FN double scan_block(const S* x, int64_t n, T* stage, T max, const S* next, int64_t next_n, Vec& best,
                                      Sum<Ops>& sum) {
    const Vec against = Ops::set(max == -infinity ? 0 : max);  // exp(-inf - 0) = 0 where exp(-inf - -inf) is NaN
    Vec winners = Ops::set(0);
    int64_t i = 0;
    while (i + step <= n) {
      Vec part = Ops::set(0);
      for (const int64_t end = n - i < group ? n - step : i + group - step; i <= end; i += step)
        if (i + step <= next_n)
          advance<K, raised, true>(x + i, lanes, at(stage, i), against, next + i, best, part, winners);
        else
          advance<K, raised, false>(x + i, lanes, at(stage, i), against, next + i, best, part, winners);
      sum.add(part);
    }
    const int64_t looked = i < next_n ? i : next_n / step * step;
    Vec part = Ops::set(0);
    for (; i < n; i += lanes) advance<1, raised, false>(x + i, n - i, at(stage, i), against, next, best, part, winners);
    sum.add(part);
    look_at(next + looked, next_n - looked, best);
    return raised ? double(Ops::reduce_add(Ops::counted(winners))) : 0;
  }

  // k vectors, of which the only one may be short by having but n elements: the rest of it is as if masked.
  template <int k, bool raised, bool fused>
  static MLEFAST_FN void advance(const S* x, int64_t n, T* stage, Vec against, const S* next, Vec& best, Vec& part,
                                 Vec& winners) {
    const bool whole = k > 1 || n >= lanes;
    Vec v[k];
    for (int64_t byte = 0; byte < int64_t(k * lanes * sizeof(S)); byte += 64) {
      prefetch(x, read_ahead + byte);
      if (emit != rules::Emit::nothing && !is_half<S>) prefetch_to_write(stage, write_ahead + byte);
    }
    for (int q = 0; q < k; ++q) v[q] = whole ? Ops::load(x + q * lanes) : Ops::load(x, n, -infinity);
    for (int q = 0; q < k; ++q) v[q] = v[q] - against;
    if (fused) best = Ops::max(best, largest_of_step(next));
    // One look at all vectors, because few hold a winner.
    const bool won = raised && Ops::any(Ops::equal(largest(v), Ops::set(0)));
    Ops::exp_scaled(v);
    if (emit == rules::Emit::scaled_exp)
      for (int q = 0; q < k; ++q) whole ? Ops::store(stage + q * lanes, v[q]) : Ops::store(stage, v[q], n);
    if (won)
      for (int q = 0; q < k; ++q) {
        const auto wins = Ops::equal(v[q], Ops::set(MathConstants<T>::scale));
        v[q] = Ops::add_unless(wins, Ops::set(0), v[q]), winners = Ops::count(wins, winners);
      }
    part = part + added(v);
  }

  static bool holds_nan(const S* x, int64_t n) {
    bool nan = false;
    for (int64_t i = 0; i < n; ++i) nan |= to_value(x[i]) != to_value(x[i]);
    return nan;
  }
};

// The second pass over a scanned row: its final values.
template <class Ops, class S> class RowFinish {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  using Double = Math<Scalar<double, Ops>>;
  static constexpr int K = 4, lanes = Ops::lanes;
  static constexpr int64_t step = K * lanes, block = block_length<T>;

 public:
  // Every stored exponential of a row, times factor * exp(block's maximum - row's maximum).
  static void scale(const T* stage, S* out, int64_t n, const T* block_max, double max, double factor) {
    for (int64_t b = 0; b < n; b += block) {
      const double at = block_max[b / block];
      const double f = at == max ? factor : factor * Double::exp(at - max);
      const Rescale<Ops> by_factor(Ops::set(static_cast<T>(f)));
      const int64_t end = n - b < block ? n : b + block;
      int64_t i = b;
      for (; i + step <= end; i += step) {
        Vec v[K];
        if (is_half<S>) prefetch_to_write(out + i, write_ahead);
        for (int q = 0; q < K; ++q) v[q] = Ops::load(stage + i + q * lanes);
        by_factor(v);
        for (int q = 0; q < K; ++q) Ops::store(out + i + q * lanes, v[q]);
      }
      for (; i < end; i += lanes) {
        Vec v[1] = {end - i >= lanes ? Ops::load(stage + i) : Ops::load(stage + i, end - i, 0)};
        by_factor(v);
        end - i >= lanes ? Ops::store(out + i, v[0]) : Ops::store(out + i, v[0], end - i);
      }
    }
  }

  static void log_probabilities(const S* x, S* out, int64_t n, double row_max, double row_log_total) {
    const Vec max = Ops::set(static_cast<T>(row_max)), log_total = Ops::set(static_cast<T>(row_log_total));
    int64_t i = 0;
    for (; i + step <= n; i += step)
      for (int q = 0; q < K; ++q) Ops::store(out + i + q * lanes, (Ops::load(x + i + q * lanes) - max) - log_total);
    for (; i + lanes <= n; i += lanes) Ops::store(out + i, (Ops::load(x + i) - max) - log_total);
    if (i < n) Ops::store(out + i, (Ops::load(x + i, n - i, 0) - max) - log_total, n - i);
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
  using Scan = RowScan<Ops, Task::emit, S>;
  using Double = Math<Scalar<double, Ops>>;
  using Row = rules::State<Double>;
  static constexpr int64_t block = block_length<T>, segment = segment_length;
  static_assert(segment % block == 0);

  static MLEFAST_FN int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

  static MLEFAST_FN T* stage_of(S* out, T* own_stage) {
    if constexpr (is_half<S>)
      return needs_stage<Task, S> ? own_stage : nullptr;
    else
      return out;
  }

  static MLEFAST_FN Settled settle(Row row, const Target<T>& target) {
    Settled settled{{row.max, row.others}, 0, 0};
    if constexpr (Task::emit == rules::Emit::scaled_exp) settled.factor = Task::factor(row, target.scale);
    if constexpr (Task::emit == rules::Emit::log_probability) settled.factor = Task::log_total(row);
    if constexpr (Task::emit == rules::Emit::scaled_exp && Task::has_target)
      settled.at_target = Task::at_target(row, double(target.logit), settled.factor);
    return settled;
  }

 public:
  static void rows(const Run<S>& run, T* scratch) {
    const int64_t n = run.classes, first = at_most(n, block);
    T* const block_max = scratch;
    T* const own_stage = scratch + (n + block - 1) / block;
    Values<Ops, Task> values;
    Scan scan;
    scan.forget();
    scan.look(run.x, run.rows > 0 ? first : 0);
    for (int64_t r = 0; r < run.rows; ++r) {
      const S* x = run.x + r * run.x_row;
      const S* next = r + 1 < run.rows ? x + run.x_row : x;
      const int64_t next_n = r + 1 < run.rows ? first : 0;
      S* out = Task::emit == rules::Emit::nothing ? nullptr : run.out + r * run.out_row;
      T* stage = stage_of(out, own_stage);
      const int lane = static_cast<int>(r % Ops::lanes);
      const auto target = read_target<Task>(run, r, x, 1);
      if (target.ignored) {
        if (out)
          for (int64_t i = 0; i < n; ++i) out[i] = S{};
        scan.forget();
        scan.look(next, next_n);
        values.put_zero(lane);
      } else {
        Row row{};
        for (int64_t s = 0; s < n; s += segment) {
          const int64_t len = at_most(n - s, segment), rest = n - s - len;
          const Row part = scan.scan(x + s, len, stage ? stage + s : stage, rest ? x + s + len : next,
                                     rest ? at_most(rest, block) : next_n, block_max + s / block);
          row = s == 0 ? part : rules::merge(row, part);
        }
        if constexpr (Task::emit != rules::Emit::nothing) {
          const auto settled = settle(row, target);
          finish(x, stage, out, n, block_max, settled);
          if (Task::has_target && target.index >= 0)
            out[target.index] = from_value<S>(static_cast<T>(settled.at_target));
        }
        if constexpr (Task::has_value) values.put(lane, row, target);
      }
      if constexpr (Task::has_value)
        if (lane + 1 == Ops::lanes || r + 1 == run.rows)
          values.flush(lane + 1, run.value ? run.value + (r - lane) : nullptr);
    }
    if constexpr (Task::has_value)
      if (run.total) *run.total = values.total();
  }

  static Part scan(const S* x, int64_t n, T* stage, T* block_max) {
    Scan scan;
    scan.forget();
    scan.look(x, at_most(n, block));
    const Row part = scan.scan(x, n, stage, x, 0, block_max);
    return {part.max, part.others};
  }

  static Target<T> first_target(const Run<S>& run) { return read_target<Task>(run, 0, run.x, 1); }

  static Settled settle_parts(const Run<S>& run, Target<T> target, const Part* parts, int64_t count) {
    Row row{parts[0].max, parts[0].others};
    for (int64_t s = 1; s < count; ++s) row = rules::merge(row, Row{parts[s].max, parts[s].others});
    if constexpr (Task::has_value) {
      Values<Ops, Task> values;
      values.put(0, row, target);
      values.flush(1, run.value);
      if (run.total) *run.total = values.total();
    }
    return settle(row, target);
  }

  static void finish(const S* x, const T* stage, S* out, int64_t n, const T* block_max, Settled row) {
    if constexpr (Task::emit == rules::Emit::scaled_exp)
      RowFinish<Ops, S>::scale(stage, out, n, block_max, row.row.max, row.factor);
    if constexpr (Task::emit == rules::Emit::log_probability)
      RowFinish<Ops, S>::log_probabilities(x, out, n, row.row.max, row.factor);
  }
};

}  // namespace mlefast
