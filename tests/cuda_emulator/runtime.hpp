// One block of CUDA threads on one CPU thread: a fiber for each, switched at barriers, collectives and, if asked for,
// at any access to memory.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct uint3 {
  unsigned x, y, z;
};

namespace emulator {

enum class Collective { shuffle, shuffle_xor, ballot, sync };
enum class State { ready, in_warp, at_barrier, done };

// One access as the watch over coalescing sees it.
struct Logged {
  uintptr_t code, address;
  uint32_t size;
  bool write, shared;
};

struct Fiber {
  uint3 index;
  int number, warp, lane;
  State state;
  char* stack;  // the low end
  void* context;
#if !defined(__x86_64__)
  ucontext_t machine;
#endif
  // The collective that it waits in.
  Collective kind;
  unsigned mask, argument;
  uint64_t value;
  int line;
  // Which steps of its warp's lanes it is ordered after: raised by __syncwarp alone, since shuffles order nothing.
  uint32_t clock[32];
  std::vector<Logged> log;
};

constexpr size_t stack_size = 64 * 1024, most_threads = 1024;

struct Machine {
  unsigned grid, block;  // one-dimensional, as all kernels here are
  int order;             // 0 forward, 1 backward, 2 at random
  int preempt;           // of 1024 accesses, how many are followed by a switch
  float ulps;            // the error of exp and log1p, in units in the last place
  uint64_t budget;       // accesses until a kernel counts as endless

  uint3 block_index;
  uint32_t epoch;  // barriers that the block has passed
  Fiber* current;
  std::vector<Fiber*> fibers;
  std::vector<int> ready;
  int alive;
  bool aborted;
  std::mt19937_64 random;

  std::string errors;
  int error_count;
};
extern Machine machine;

// Reports an error where the current fiber stands; a fatal one ends the block.
__attribute__((format(printf, 4, 5))) void report(bool fatal, uintptr_t code, int line, const char* format, ...);
void yield_ready();

// memory.cpp
void prepare_memory(size_t dynamic_shared);  // before a launch
void enter_block();
void leave_block();
const char* shared_memory_problem();

}  // namespace emulator
