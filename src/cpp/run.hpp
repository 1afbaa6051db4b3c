// What a kernel is given: consecutive rows that share their strides. Plain memory, no ownership.
#pragma once

#include <cstdint>

#include "../rules/qualifier.h"

namespace mlefast {

template <class T> struct Run {
  int64_t rows, classes;

  const T* x;              // logits
  int64_t x_row, x_class;  // strides, in elements
  T* out;                  // the output array, or null; may be x itself with x's strides
  int64_t out_row, out_class;

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
  bool ignored, wrong;
  T logit;
  T weight;
  double scale;  // of the gradient
};

// `x` is where the row's logits lie, in the run's memory or a copy of it.
template <class Task, class T>
MLEFAST_FN Target<T> read_target(const Run<T>& run, int64_t row, const T* x, int64_t x_class) {
  Target<T> target{-1, false, false, 0, 1, run.scale};
  if (run.upstream) target.scale *= double(run.upstream[row]);
  if constexpr (Task::has_target) {
    const int64_t y = run.target[row];
    target.ignored = y == run.ignore_index;
    target.wrong = y < 0 || y >= run.classes;
    if (target.wrong) {
      target.logit = static_cast<T>(__builtin_nan(""));
      target.scale = __builtin_nan("");
    } else {
      target.index = y;
      target.logit = x[y * x_class];
      if (run.weight) target.weight = run.weight[y];
      target.scale *= double(target.weight);
    }
  }
  return target;
}

// Rows are worked on in blocks that stay in the first-level cache with their output.
template <class T> inline constexpr int64_t block_length = 4096 / sizeof(T);

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
  double factor;     // of the stored exponentials
  double at_target;  // the gradient's entry there
};

template <class T> using RowsKernel = void (*)(const Run<T>&, T* scratch);

// One task's kernels for one storage type on one instruction set.
template <class T> struct Kernels {
  RowsKernel<T> rows;     // contiguous classes; scratch: an element for each block of a row
  RowsKernel<T> packed;   // the same for few classes; scratch: 4 x lanes x classes elements
  RowsKernel<T> columns;  // contiguous rows, class by class; no scratch

  // `rows` in steps, for threads that share a run of one row: read its target before its logits may be overwritten,
  // scan each segment, settle the row, finish each segment and write the target's entry.
  Target<T> (*first_target)(const Run<T>&);
  Part (*scan)(const T* x, int64_t n, T* out, T* block_max);
  Settled (*settle)(const Run<T>&, Target<T>, const Part* parts, int64_t count);
  void (*finish)(const T* x, T* out, int64_t n, const T* block_max, Settled row);
};

}  // namespace mlefast
