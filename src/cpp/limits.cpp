#include "limits.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "dispatch.hpp"
#include "threads.hpp"

namespace mlefast {
namespace {

constexpr int64_t chunk_bytes = 1 << 18;   // what a thread takes at a time
constexpr int64_t thread_bytes = 1 << 17;  // below, waking a thread takes longer than it saves, as for the kernels
constexpr int64_t ahead = 1024;            // bytes; 512 to 2048 measure the same

#ifdef __SSE2__
// Stores that bypass the cache: the lines of `out` are not read before they are overwritten. Every x86-64 processor has
// these instructions, and four of them fill the line that a wider store would.
void stream(const void* x, void* out, int64_t bytes) {
  const char* from = static_cast<const char*>(x);
  char* to = static_cast<char*>(out);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<intptr_t>(to) & 63);
  std::memcpy(to, from, static_cast<size_t>(head));
  int64_t i = head;
  for (; i + 64 <= bytes; i += 64)
    for (int64_t k = 0; k < 64; k += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + k),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
  std::memcpy(to + i, from + i, static_cast<size_t>(bytes - i));
  _mm_sfence();
}
#endif

// part(begin, length) over [0, n), in chunks as the kernels' driver makes them or in one part for each thread.
template <class T, class Part> void over_threads(int64_t n, bool chunks, const Part& part) {
  constexpr int64_t size = sizeof(T);
  const Team team(1 + n * size / thread_bytes);
  const int64_t even = (n + team.size() - 1) / team.size();
  const int64_t length = std::max<int64_t>(1, chunks ? std::min(chunk_bytes / size, even) : even);
  team.for_each((n + length - 1) / length, [&](int64_t i, int) { part(i * length, std::min(length, n - i * length)); });
}

template <class T> double threaded_sum(const LimitKernels<T>& kernel, const T* x, int64_t n, int64_t distance) {
  constexpr int64_t length = chunk_bytes / static_cast<int64_t>(sizeof(T));
  std::vector<double> sums(static_cast<size_t>((n + length - 1) / length));
  const Team team(std::min<int64_t>(static_cast<int64_t>(sums.size()), 1 + n * int64_t{sizeof(T)} / thread_bytes));
  team.for_each(static_cast<int64_t>(sums.size()), [&](int64_t i, int) {
    sums[static_cast<size_t>(i)] = kernel.sum(x + i * length, std::min(length, n - i * length), distance);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

const std::vector<LimitMethod>& limit_methods() {
  static const std::vector<LimitMethod> methods = {
      {"sum", LimitKind::read},
      {"sum, prefetched", LimitKind::read},
      {"memcpy", LimitKind::copy},
      {"copy", LimitKind::copy},
      {"copy, prefetched", LimitKind::copy},
#ifdef __SSE2__
      {"copy, streamed", LimitKind::copy},
#endif
      {"update", LimitKind::update},
      {"update, prefetched", LimitKind::update},
  };
  return methods;
}

template <class T> double run_limit(const std::string& name, const T* x, T* out, int64_t n) {
  const LimitKernels<T>& kernel = usable_sets().front()->limits<T>();
  const auto is = [&](const char* method) { return name == method; };
  if (is("sum")) return threaded_sum(kernel, x, n, 0);
  if (is("sum, prefetched")) return threaded_sum(kernel, x, n, ahead);
  if (is("memcpy")) {
    over_threads<T>(n, false, [&](int64_t at, int64_t length) {
      std::memcpy(out + at, x + at, static_cast<size_t>(length) * sizeof(T));
    });
  } else if (is("copy") || is("copy, prefetched")) {
    const int64_t distance = is("copy") ? 0 : ahead;
    over_threads<T>(n, true, [&](int64_t at, int64_t length) { kernel.copy(x + at, out + at, length, distance); });
#ifdef __SSE2__
  } else if (is("copy, streamed")) {
    over_threads<T>(n, true, [&](int64_t at, int64_t length) {
      stream(x + at, out + at, length * static_cast<int64_t>(sizeof(T)));
    });
#endif
  } else if (is("update") || is("update, prefetched")) {
    const int64_t distance = is("update") ? 0 : ahead;
    over_threads<T>(n, true, [&](int64_t at, int64_t length) { kernel.update(out + at, length, distance, T(1)); });
  } else {
    throw std::invalid_argument("no limit is named '" + name + "'");
  }
  return 0;
}

template double run_limit(const std::string&, const float*, float*, int64_t);
template double run_limit(const std::string&, const double*, double*, int64_t);

}  // namespace mlefast
