// What every kernel is given, and what a row's target says of it.
#pragma once

#include "storage.cuh"

namespace mlefast {

enum class Integer : int { int8, int16, int32, int64, uint8, uint16, uint32, uint64 };

// Integers of any width as 64 bits. What does not fit becomes the largest, which is out of range for any row.
MLEFAST_FN int64 load_integer(const void* at, Integer kind, int64 i) {
  switch (kind) {
    case Integer::int8:
      return static_cast<const signed char*>(at)[i];
    case Integer::int16:
      return static_cast<const short*>(at)[i];
    case Integer::int32:
      return static_cast<const int*>(at)[i];
    case Integer::int64:
      return static_cast<const int64*>(at)[i];
    case Integer::uint8:
      return static_cast<const unsigned char*>(at)[i];
    case Integer::uint16:
      return static_cast<const unsigned short*>(at)[i];
    case Integer::uint32:
      return static_cast<const unsigned*>(at)[i];
    default: {
      const unsigned long long x = static_cast<const unsigned long long*>(at)[i];
      return static_cast<int64>(x < 0x7fffffffffffffffull ? x : 0x7fffffffffffffffull);
    }
  }
}

template <class T> struct Call {
  using Value = typename Storage<T>::Value;

  const T* x;  // logits: a row's classes are contiguous
  T* out;      // the output array, or null; may be x itself with x's stride
  int64 rows, classes, x_row, out_row;

  const void* target;  // contiguous integers, one for each row, or null
  Integer target_kind;
  int64 ignore_index;
  const Value* weight;     // a factor for each class, or null
  const Value* upstream;   // factors of the gradient, or null
  int64 upstream_row;      // 1: one for each row; 0: one for all
  double scale;            // a factor of the gradient for all rows,
  const double* scale_at;  // or where it will stand when the kernel runs

  Value* value;     // the loss of each row, or null
  double* partial;  // sums of the losses of fixed groups of rows, or null
};

template <class T> struct Target {
  using Value = typename Storage<T>::Value;

  int64 index;   // -1 where there is none
  bool ignored;  // loss and gradient are 0, whatever the logits hold
  Value logit, weight;
  Value scale;  // of the row's gradient
};

// A target outside [0, classes) makes its row NaN; nothing is read or written through it. The logit is the caller's to
// read, since it may lie in memory that is being overwritten.
template <class Task, class T> MLEFAST_FN Target<T> read_target(const Call<T>& call, int64 row) {
  using Ops = typename Storage<T>::Ops;
  Target<T> target{-1, false, 0, 1, Ops::set(call.scale_at ? *call.scale_at : call.scale)};
  if (call.upstream) target.scale *= call.upstream[row * call.upstream_row];
  if constexpr (Task::has_target) {
    const int64 y = load_integer(call.target, call.target_kind, row);
    target.ignored = y == call.ignore_index;
    if (y >= 0 && y < call.classes && !target.ignored) {
      target.index = y;
      if (call.weight) target.weight = call.weight[y];
      target.scale *= target.weight;
    } else {
      target.logit = target.scale = Ops::nan();
    }
  }
  return target;
}

// What is written for a row whose state is known.
template <class Task, class T> struct Settled {
  using Ops = typename Storage<T>::Ops;
  using Value = typename Ops::Value;

  Value value;      // the loss
  Value max;        // what exponentials are taken against
  Value factor;     // of exponentials, or what is taken off the logits
  Value at_target;  // the gradient's entry there

  MLEFAST_FN Settled(rules::State<Ops> row, const Target<T>& target) : value(0), max(row.max), factor(0), at_target(0) {
    if constexpr (Task::has_value)
      if (!target.ignored) value = Task::value(row, target.logit) * target.weight;
    if constexpr (Task::emit == rules::Emit::scaled_exp)
      if (!target.ignored) factor = Task::factor(row, target.scale);
    if constexpr (Task::emit == rules::Emit::log_probability) factor = Task::log_total(row);
    if constexpr (Task::emit == rules::Emit::scaled_exp && Task::has_target)
      at_target = Task::at_target(row, target.logit, factor);
  }
};

// A row's values on their way out. `exps` says that they are exponentials already, else they are logits.
template <class Task, class T, bool exps, int n>
MLEFAST_FN void finish(typename Storage<T>::Value (&v)[n], const Settled<Task, T>& row) {
  using Ops = typename Storage<T>::Ops;
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if constexpr (Task::emit == rules::Emit::log_probability)
      v[i] = (v[i] - row.max) - row.factor;
    else
      v[i] = (exps ? v[i] : Ops::exp(v[i] - row.max)) * row.factor;
  }
}

}  // namespace mlefast
