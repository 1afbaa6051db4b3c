// The machine's limits, by every method that is known to come near them on some machine: none is the fastest on all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mlefast {

// What a kernel is held against: one that only reads, one that reads and writes, one that overwrites what it reads.
enum class LimitKind { read, copy, update };

struct LimitMethod {
  const char* name;
  LimitKind kind;
};

const std::vector<LimitMethod>& limit_methods();

// Runs a method over n numbers with the threads that a kernel would use and this processor's best instruction set,
// whatever set the kernels were told to use. Reads add up x, copies go from x to out, updates multiply out by 1. Gives
// the sum where there is one, else 0. Throws std::invalid_argument for an unknown name.
template <class T> double run_limit(const std::string& name, const T* x, T* out, int64_t n);

}  // namespace mlefast
