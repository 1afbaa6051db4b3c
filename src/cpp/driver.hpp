// From an N-d array to kernels: cuts it into runs of rows, hands them to threads, adds up what they return in an order
// that depends on the array's shape alone. Allocates a little scratch for each thread; knows nothing of Python.
#pragma once

#include <cstdint>

#include "instruction_set.hpp"

namespace mlefast {

// An axis of the rows: their number along it and the distances between neighbours, in elements.
struct RowAxis {
  int64_t rows, x_stride, out_stride;
};

// The axes of an array but the class axis. Neighbours that are evenly spaced are joined, axes of one row left out.
class RowAxes {
  static constexpr int most = 64;  // as many as NumPy has
  RowAxis axis_[most];
  int count_ = 0;

 public:
  void add(RowAxis next) {
    if (next.rows == 1) return;
    RowAxis* last = count_ > 0 ? &axis_[count_ - 1] : nullptr;
    if (last && last->x_stride == next.x_stride * next.rows && last->out_stride == next.out_stride * next.rows)
      *last = {last->rows * next.rows, next.x_stride, next.out_stride};
    else if (count_ < most)
      axis_[count_++] = next;
  }

  RowAxis last() const { return count_ > 0 ? axis_[count_ - 1] : RowAxis{1, 0, 0}; }

  // The product of all axes, and of all but the last.
  int64_t rows() const { return outer() * last().rows; }
  int64_t outer() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < count_; ++i) n *= axis_[i].rows;
    return n;
  }

  // Where the run-th row along all axes but the last lies.
  RowAxis offset(int64_t run) const {
    RowAxis at{0, 0, 0};
    for (int i = count_ - 2; i >= 0; --i) {
      at.x_stride += run % axis_[i].rows * axis_[i].x_stride,
          at.out_stride += run % axis_[i].rows * axis_[i].out_stride;
      run /= axis_[i].rows;
    }
    return at;
  }
};

template <class S> struct Call {
  using T = ValueOf<S>;
  const S* x;
  S* out;  // or null; x itself, with the same strides, to overwrite it
  int64_t classes, x_class, out_class;
  RowAxes axes;  // the last one varies fastest in target, upstream and value

  const void* target;  // contiguous integers, one for each row, or null
  int target_bytes;    // 1, 2, 4, 8
  bool target_signed;
  int64_t ignore_index;
  const T* weight;    // contiguous, one for each class, or null
  const T* upstream;  // contiguous, one for each row, or null
  double scale;

  T* value;  // contiguous, one for each row, or null
};

// The sum of the values, or 0 for a task without values.
template <class S> double run_task(const InstructionSet& set, int task, const Call<S>& call);

struct TargetCheck {
  int64_t first_wrong;  // the position of the first target outside [0, classes) and not ignored, or -1
  int64_t count;        // rows that are not ignored
  double weight;        // the sum of their classes' weights, or their number
};

template <class T>
TargetCheck check_targets(const void* target, int bytes, bool is_signed, int64_t rows, int64_t classes,
                          int64_t ignore_index, const T* weight);

}  // namespace mlefast
