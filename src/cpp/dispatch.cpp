#include "dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#ifdef MLEFAST_HAS_AVX2
#include <cpuid.h>
#endif

namespace mlefast {
namespace {

struct Candidate {
  const InstructionSet* set;
  bool (*supported)();
};

#ifdef MLEFAST_HAS_AVX2
bool has_f16c() {  // which __builtin_cpu_supports of older compilers does not know
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// clang-format off
const Candidate candidates[] = {  // best first
#if defined(MLEFAST_EMULATED_AVX512)
    {&avx512_set, [] { return true; }},
#elif defined(MLEFAST_HAS_AVX512)
    {&avx512_set, [] { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"); }},
#endif
#ifdef MLEFAST_HAS_AVX2
    {&avx2_set, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                            has_f16c(); }},
#endif
#ifdef MLEFAST_HAS_NEON
    {&neon_set, [] { return true; }},
#endif
    {&scalar_set, [] { return true; }},
};
// clang-format on

std::atomic<const InstructionSet*> chosen{nullptr};

}  // namespace

std::vector<const InstructionSet*> usable_sets() {
  std::vector<const InstructionSet*> sets;
  for (const auto& candidate : candidates)
    if (candidate.supported()) sets.push_back(candidate.set);
  return sets;
}

const InstructionSet& current_set() { return *chosen.load(std::memory_order_relaxed); }

void choose_set(const std::string& name) {
  std::string accepted;
  for (const auto* set : usable_sets()) {
    if (name == set->name) {
      chosen = set;
      return;
    }
    accepted += std::string(accepted.empty() ? "" : ", ") + set->name;
  }
  throw std::invalid_argument("no instruction set '" + name + "' here; this processor and build have: " + accepted);
}

void init_dispatch() {
  const char* name = std::getenv("MLEFAST_ISA");
  if (name == nullptr || *name == '\0') {
    chosen = usable_sets().front();
    return;
  }
  try {
    choose_set(name);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("MLEFAST_ISA: ") + error.what());
  }
}

}  // namespace mlefast
