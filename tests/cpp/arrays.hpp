// Arrays for tests of kernels: they end where their heap blocks end and start at odd addresses, for sanitizers.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "threads.hpp"

namespace mlefast {

using Long = long double;

template <class T> class Array {
  std::unique_ptr<T[]> memory_;
  int64_t size_;

 public:
  explicit Array(const std::vector<double>& from)
      : memory_(new T[from.size() + 1]), size_(static_cast<int64_t>(from.size())) {
    std::transform(from.begin(), from.end(), data(), [](double x) { return static_cast<T>(x); });
  }
  T* data() { return memory_.get() + 1; }
  T& operator[](int64_t i) { return memory_[static_cast<size_t>(i + 1)]; }
  bool same_bits(Array& other) {
    return std::memcmp(data(), other.data(), static_cast<size_t>(size_) * sizeof(T)) == 0;
  }
};

inline std::vector<double> normals(int64_t n, double scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> x(static_cast<size_t>(n));
  for (auto& v : x) v = static_cast<float>(normal(random));  // numbers that both types hold
  return x;
}

struct Threads {
  explicit Threads(int n) { set_thread_limit(n); }
  ~Threads() { set_thread_limit(0); }
};

}  // namespace mlefast
