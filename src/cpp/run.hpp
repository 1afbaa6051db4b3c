// What a kernel is given: consecutive rows that share their strides. Plain memory, no ownership.
#pragma once

#include <cstdint>

#include "../rules/losses.h"
#include "storage.hpp"

namespace mlefast {

// S is what the logits and the output are stored in; everything else is of the type T that is computed in.
template <class S> struct Run {
  using T = ValueOf<S>;
  int64_t rows, classes;

  const S* x;              // logits
  int64_t x_row, x_class;  // strides, in elements
  S* out;                  // the output array, or null; may be x itself with x's strides
  int64_t out_row, out_class;
  bool streams;  // the output is better written past the caches: it would not fit there or, in place, has left them by
                 // then; rows that are worked on in strips have no gaps then
  bool lags;     // contiguous classes: a row is finished while the next one is scanned; scratch is for two rows

  // Runs that follow each other without a gap are one stretch to a thread: whether it begins or ends with this one.
  bool begins, ends;

  // To be asked for in time: the logits of the rows that follow, if they lie class by class, and their targets as the
  // caller stores them.
  const S* next_x;  // or null
  const void* next_target;
  int64_t next_target_bytes;  // of each target; 0 if none are to be asked for

  const int64_t* target;  // a class for each row, or null
  int64_t ignore_index;   // a row with this target has loss and gradient 0, whatever its logits hold
  const T* weight;        // a factor for each class, or null
  const T* upstream;      // a factor of the gradient for each row, or null
  double scale;           // a factor of the gradient for all rows

  T* value;       // the loss of each row, or null
  double* total;  // their sum, or null
};

// What a row's target says of it. A target outside [0, classes) was reported before any kernel started; here it makes
// the row NaN, so that no memory outside it is touched even if another thread changes the targets meanwhile.
template <class T> struct Target {
  int64_t index;  // -1 where there is none
  bool ignored;
  T logit;
  T weight;
  double scale;  // of the gradient
};

template <class Task, class S> MLEFAST_FN Target<ValueOf<S>> read_target(const Run<S>& run, int64_t row) {
  using T = ValueOf<S>;
  Target<T> target{-1, false, 0, 1, run.scale};
  if (run.upstream) target.scale *= double(run.upstream[row]);
  if constexpr (Task::has_target) {
    const int64_t y = run.target[row];
    target.ignored = y == run.ignore_index;
    if (y < 0 || y >= run.classes) {
      target.logit = static_cast<T>(__builtin_nan(""));
      target.scale = __builtin_nan("");
    } else {
      target.index = y;
      target.logit = to_value(run.x[row * run.x_row + y * run.x_class]);
      if (run.weight) target.weight = run.weight[y];
      target.scale *= double(target.weight);
    }
  }
  return target;
}

// Rows are worked on in blocks that stay in the first-level cache with their output.
template <class T> inline constexpr int64_t block_length = 4096 / sizeof(T);

// So many elements of scratch that what follows them starts on a cache line again.
template <class T> MLEFAST_FN int64_t whole_lines(int64_t n) {
  constexpr int64_t line = 64 / sizeof(T);
  return (n + line - 1) / line * line;
}

// Longer rows are summed up in segments that are merged in order. The result does not depend on who worked on which
// segment, so threads may share a row or not, as they like.
inline constexpr int64_t segment_length = 16384;

// A segment's or a row's state, for either storage type.
struct Part {
  double max, others;
};

// A row whose parts have been merged: what its second pass needs.
struct Settled {
  Part row;
  double factor;     // of exp(x - maximum)
  double at_target;  // the gradient's entry there
  double top;        // exp(maximum - pivot), by which the stored exponentials are larger
};

// Rows of at most so many contiguous classes may be transposed and worked on a row per lane, where four vectors of rows
// have at most so many elements.
inline constexpr int64_t packed_limit = 256;
template <class T> inline constexpr int64_t packed_tile = 32768 / sizeof(T);

// Longer rows are not transposed, but worked on in strips, as long as a vector of rows stays in the first-level cache,
// and in few steps of four vectors: their terms are added in T, whose roundings must stay few. (Vectors of 64 bytes
// have more rows to share what is done once for them, and gain from the second-level cache as well: on an AMD EPYC with
// 48 KB of first level a fifth at 1000 classes in cache, as much for values from memory, nothing with an output there.)
inline constexpr int64_t strip_steps = 24;
template <class T> inline constexpr int64_t strip_limit = 4096 / sizeof(T);
template <class T> MLEFAST_FN int64_t strip_tile(int lanes) {
  return (lanes * int64_t(sizeof(T)) < 64 ? 22528 : 65536) / int64_t(sizeof(T));
}
inline constexpr int64_t transposed_vectors = 16;  // rows of so many are not, but see `strips_from`

template <class T> MLEFAST_FN bool fits_packed(int64_t classes, int lanes) {
  return classes <= packed_limit && 4 * lanes * classes <= packed_tile<T>;
}
template <class T> MLEFAST_FN bool fits_strip(int64_t classes, int lanes) {
  return classes >= 4 * lanes && classes <= strip_limit<T> && lanes * classes <= strip_tile<T>(lanes) &&
         classes <= strip_steps * 4 * lanes;
}
template <class T> MLEFAST_FN bool is_short(int64_t classes, int lanes) {
  return fits_strip<T>(classes, lanes) || (fits_packed<T>(classes, lanes) && classes < transposed_vectors * lanes);
}

// Rows that lie class by class may be worked on in a copy (those of halves always are), of four vectors of rows if
// these fit into the second-level cache. If their output is streamed, the copy has room in front for the rows of a line
// of it, and as if there were so many classes more for what else is known of each row (StreamedColumns).
template <class T> inline constexpr int64_t staged_columns = 262144 / sizeof(T);
template <class S> inline constexpr int64_t rows_of_line = 64 / sizeof(S);
inline constexpr int64_t streamed_numbers = 7;

template <class S> using RowsKernel = void (*)(const Run<S>&, ValueOf<S>* scratch);

// One task's kernels for one storage type on one instruction set.
template <class S> struct Kernels {
  using T = ValueOf<S>;
  // Contiguous classes. Scratch: `whole_lines` of a row if exponentials wait there (those of halves and of streamed
  // outputs), of two if it lags, and two numbers for each block.
  RowsKernel<S> rows;
  // The same if `is_short`; scratch: 4 x lanes rows of `whole_lines`, and LineWriter::room of a row behind them if the
  // output is streamed.
  RowsKernel<S> packed;
  RowsKernel<S> columns;  // contiguous rows, class by class; scratch: see `staged_columns`, or null: no copy is made
  bool waits;             // whether a row's exponentials wait in the output or in scratch for their factor

  // `rows` in steps, for threads that share a run of one row: read its target before its logits may be overwritten,
  // scan each segment, settle the row, finish each segment and write the target's entry.
  Target<T> (*first_target)(const Run<S>&);
  Part (*scan)(const S* x, int64_t n, T* stage, T* block_max);
  Settled (*settle)(const Run<S>&, Target<T>, const Part* parts, int64_t count);
  void (*finish)(const S* x, const T* stage, S* out, int64_t n, const T* block_max, Settled row);
};

}  // namespace mlefast
