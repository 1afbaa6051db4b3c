// What a module is compiled for. The .cu files beside this one hold the entry points; definitions choose:
//
//   MLEFAST_STORAGE   float | double | Half | BFloat16
//   MLEFAST_TASK      a position in rules::Tasks
//   MLEFAST_REGIME    rows.cu: packed | resident | staged | streamed | across
//   MLEFAST_BLOCK     threads in a block, a multiple of 32
//   MLEFAST_CLASSES   packed: the number of classes
//   MLEFAST_GROUP, MLEFAST_VECTORS   resident: lanes for a row, 16-byte vectors for a lane
#pragma once

#include "call.cuh"

namespace mlefast {

template <int i, class Tasks> struct TaskAt;
template <class First, class... Rest> struct TaskAt<0, rules::List<First, Rest...>> {
  using type = First;
};
template <int i, class First, class... Rest> struct TaskAt<i, rules::List<First, Rest...>> {
  using type = typename TaskAt<i - 1, rules::List<Rest...>>::type;
};

namespace module {

using T = MLEFAST_STORAGE;
using Value = Storage<T>::Value;
constexpr int block = MLEFAST_BLOCK;

}  // namespace module
}  // namespace mlefast
