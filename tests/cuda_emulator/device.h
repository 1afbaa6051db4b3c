// The names that device code finds in CUDA, for a C++ compiler on the CPU: only those that the kernels use.
//
// The kernels' own text is compiled with -fsanitize=thread, which calls the runtime at every access to memory that
// several threads can see; no sanitizer is linked, the calls end in memory.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __CUDACC__ 1  // what qualifier.h asks about
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// In a block's scope thread_local implies static, and extern thread_local may be an array of unknown length: one
// definition for both kinds of shared memory. A module's thread-local segment is then exactly a block's shared memory.
#define __shared__ thread_local __attribute__((aligned(256)))

struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulator {

enum class Collective { shuffle, shuffle_xor, ballot, sync };

uint3 thread_index();
uint3 block_index();
uint64_t warp_collective(Collective kind, unsigned mask, uint64_t value, unsigned argument, int line);
void block_barrier(int line);
float disturb(float exact, float x);
double disturb(double exact, double x);

template <class T> uint64_t to_bits(T x) {
  uint64_t bits = 0;
  memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T> T from_bits(uint64_t bits) {
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// Kernels by name, called with an array of pointers to their arguments, as cuLaunchKernel has it.
using Entry = void (*)(void** arguments);
void add_kernel(const char* name, Entry entry);

template <class... A, size_t... i>
__attribute__((no_sanitize("thread"))) void call(void (*kernel)(A...), void** arguments, std::index_sequence<i...>) {
  kernel(*static_cast<A*>(arguments[i])...);
}
template <class... A> constexpr size_t count_of(void (*)(A...)) { return sizeof...(A); }
template <auto kernel> __attribute__((no_sanitize("thread"))) void enter(void** arguments) {
  call(kernel, arguments, std::make_index_sequence<count_of(kernel)>{});
}
struct Registered {
  Registered(const char* name, Entry entry) { add_kernel(name, entry); }
};

}  // namespace emulator

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())

inline void __syncthreads(int line = __builtin_LINE()) { emulator::block_barrier(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  emulator::warp_collective(emulator::Collective::sync, mask, 0, 0, line);
}
template <class T> T __shfl_sync(unsigned mask, T x, int lane, int line = __builtin_LINE()) {
  return emulator::from_bits<T>(
      emulator::warp_collective(emulator::Collective::shuffle, mask, emulator::to_bits(x), lane, line));
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int lanes, int line = __builtin_LINE()) {
  return emulator::from_bits<T>(
      emulator::warp_collective(emulator::Collective::shuffle_xor, mask, emulator::to_bits(x), lanes, line));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return static_cast<unsigned>(emulator::warp_collective(emulator::Collective::ballot, mask, predicate != 0, 0, line));
}

inline float __int_as_float(int x) { return emulator::from_bits<float>(emulator::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return emulator::from_bits<float>(emulator::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return emulator::from_bits<unsigned>(emulator::to_bits(x)); }
inline double __hiloint2double(int high, int low) {
  return emulator::from_bits<double>(uint64_t(unsigned(high)) << 32 | unsigned(low));
}
inline int __double2hiint(double x) { return static_cast<int>(emulator::to_bits(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(emulator::to_bits(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

// Last, since they rename: the kernels' functions get an error that a test chooses. Members called exp, log1p and
// log are renamed alike, at their definition and where they are called.
inline float emulator_expf(float x) { return emulator::disturb(::expf(x), x); }
inline float emulator_log1pf(float x) { return emulator::disturb(::log1pf(x), x); }
inline float emulator_logf(float x) { return emulator::disturb(::logf(x), x); }
inline double emulator_exp(double x) { return emulator::disturb(::exp(x), x); }
inline double emulator_log1p(double x) { return emulator::disturb(::log1p(x), x); }
inline double emulator_log(double x) { return emulator::disturb(::log(x), x); }
#define expf emulator_expf
#define log1pf emulator_log1pf
#define logf emulator_logf
#define exp emulator_exp
#define log1p emulator_log1p
#define log emulator_log
