// The kernels as C++ calls them, for comparison with `mlefast bench`: the difference is what Python adds. The names are
// task/dtype/instruction set/rows/classes; the counter is the bytes that must be moved. For example:
//
//   kernel_benchmarks --benchmark_filter='cross_entropy_and_grad/float32/avx2' --benchmark_repetitions=9
//
// The limits of performance, from src/cpp/limits.cpp, are among them under the name of their method.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <exception>
#include <utility>

#include "dispatch.hpp"
#include "limits.hpp"
#include "problem.hpp"
#include "threads.hpp"

namespace {

using namespace mlefast;

// The smallest calls, one that fits in the second-level cache, and the four shapes of `mlefast bench`.
const std::pair<int64_t, int64_t> shapes[] = {{1, 10},      {128, 10},     {32, 1000},   {1000000, 10},
                                              {8192, 1000}, {1024, 32000}, {256, 128256}};

void count_bytes(benchmark::State& state, int64_t bytes) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * bytes);
}

template <class T> void run_kernel(benchmark::State& state, const InstructionSet* set, int task) {
  Problem<T> problem(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(problem.run(*set, task));
  const int64_t once = problem.rows * problem.classes * static_cast<int64_t>(sizeof(T));
  count_bytes(state, writes_output(task, rules::Tasks{}) ? 2 * once : once);
}

void run_limit_method(benchmark::State& state, LimitMethod method) {
  Problem<float> problem(state.range(0), state.range(1));
  const auto n = static_cast<int64_t>(problem.x.size());
  for (auto _ : state) benchmark::DoNotOptimize(run_limit(method.name, problem.x.data(), problem.out.data(), n));
  count_bytes(state, n * int64_t{sizeof(float)} * (method.kind == LimitKind::read ? 1 : 2));
}

template <class T> void add_kernels(const char* dtype) {
  const auto tasks = task_names(rules::Tasks{});
  for (const InstructionSet* set : usable_sets())
    for (size_t task = 0; task < tasks.size(); ++task)
      for (const auto& shape : shapes)
        benchmark::RegisterBenchmark((tasks[task] + "/" + dtype + "/" + set->name).c_str(), run_kernel<T>, set,
                                     static_cast<int>(task))
            ->Args({shape.first, shape.second})
            ->UseRealTime();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    init_threads();
    add_kernels<float>("float32");
    add_kernels<double>("float64");
    for (const LimitMethod& method : limit_methods())
      for (const auto& shape : shapes)
        benchmark::RegisterBenchmark((std::string("limit/") + method.name).c_str(), run_limit_method, method)
            ->Args({shape.first, shape.second})
            ->UseRealTime();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    benchmark::AddCustomContext("threads", std::to_string(thread_limit()));
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
  return 0;
}
