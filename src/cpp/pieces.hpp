// What both drivers cut calls with: how much a thread takes at a time, targets as int64, memory for a call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>

#include "threads.hpp"

namespace mlefast {

inline constexpr int64_t least_chunk = 16384, most_chunk = 262144;  // elements that a thread takes at a time
inline constexpr int64_t thread_elements = 32768;  // below, waking a thread takes longer than it saves (about 5 us)
inline constexpr int64_t piece_rows = 1024;        // targets are widened to int64 for so many rows at a time

// A row per lane: more classes a lane of floats does not tell apart, and so not how many attain the maximum.
inline constexpr int64_t most_lane_classes = 1 << 24;

// Converts targets to int64. What is beyond its range becomes its least number, which is out of range as well, and no
// ignore_index of unsigned targets (see `ignored_among`).
template <class Int> void widen(const Int* from, int64_t n, int64_t* to) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (sizeof(Int) == 8 && std::is_unsigned_v<Int>)
      to[i] = from[i] > static_cast<Int>(std::numeric_limits<int64_t>::max()) ? std::numeric_limits<int64_t>::min()
                                                                              : static_cast<int64_t>(from[i]);
    else
      to[i] = static_cast<int64_t>(from[i]);
  }
}

// No unsigned target is negative: one that is taken for the least number must not be taken for an ignored one.
inline int64_t ignored_among(bool is_signed, int64_t ignore_index) {
  return is_signed ? ignore_index : std::max<int64_t>(ignore_index, -1);
}

// Calls f with a typed pointer.
template <class F> auto with_integers(const void* data, int bytes, bool is_signed, F f) {
  switch (bytes * 2 + is_signed) {
    case 3:
      return f(static_cast<const int8_t*>(data));
    case 2:
      return f(static_cast<const uint8_t*>(data));
    case 5:
      return f(static_cast<const int16_t*>(data));
    case 4:
      return f(static_cast<const uint16_t*>(data));
    case 9:
      return f(static_cast<const int32_t*>(data));
    case 8:
      return f(static_cast<const uint32_t*>(data));
    case 16:
      return f(static_cast<const uint64_t*>(data));
    default:
      return f(static_cast<const int64_t*>(data));
  }
}

// Memory for a call: on the stack if it is little, which spares the smallest calls a fifth of their time.
template <class T, size_t few> class Buffer {
  T local_[few];
  std::unique_ptr<T[]> heap_;

 public:
  explicit Buffer(size_t size) : heap_(size > few ? new T[size] : nullptr) {}
  T* data() { return heap_ ? heap_.get() : local_; }
};

// Rows in chunks, which threads take one by one. A chunk is a part of a run of evenly spaced rows along the last axis,
// or several such runs if they are short.
class Chunks {
  const int64_t inner, outer, rows_each, chunks_each, runs_each;

 public:
  const int64_t count;

  Chunks(int64_t inner_, int64_t outer_, int64_t chunk_rows)
      : inner(inner_),
        outer(outer_),
        rows_each(std::min(inner, chunk_rows)),
        chunks_each((inner + rows_each - 1) / rows_each),
        runs_each(chunks_each > 1 ? 1 : std::max<int64_t>(1, chunk_rows / inner)),
        count((outer + runs_each - 1) / runs_each * chunks_each) {}

  // The sum of work(run, begin, end, thread) over all chunks' rows [begin, end), added in an order that does not depend
  // on the threads.
  template <class Work> double sum(const Team& team, const Work& work) const {
    Buffer<double, 64> totals(static_cast<size_t>(count));
    team.for_each(count, [&](int64_t chunk, int thread) {
      const int64_t first = chunk / chunks_each * runs_each, begin = chunk % chunks_each * rows_each;
      double total = 0;
      for (int64_t run = first; run < std::min(outer, first + runs_each); ++run)
        total += work(run, begin, std::min(inner, begin + rows_each), thread);
      totals.data()[chunk] = total;
    });
    double total = 0;
    for (int64_t chunk = 0; chunk < count; ++chunk) total += totals.data()[chunk];
    return total;
  }
};

}  // namespace mlefast
