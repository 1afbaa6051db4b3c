// One call of a kernel on one thread, for callgrind to count its instructions (tools/instructions.py):
//
//   count TASK float32|float64 ROWS CLASSES INSTRUCTION_SET
//
// Only what happens inside counted_call is to be counted: valgrind --tool=callgrind --toggle-collect=counted_call.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "dispatch.hpp"
#include "problem.hpp"
#include "threads.hpp"

using namespace mlefast;

namespace {

Problem<float>* float_problem;
Problem<double>* double_problem;
int task;
double total;

#ifdef __clang__
const char compiler[] = "Clang " __clang_version__;
#else
const char compiler[] = "GCC " __VERSION__;
#endif

}  // namespace

extern "C" __attribute__((noinline)) void counted_call() {
  total = float_problem ? float_problem->run(current_set(), task) : double_problem->run(current_set(), task);
}

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s TASK float32|float64 ROWS CLASSES INSTRUCTION_SET\n", argv[0]);
    return 2;
  }
  try {
    task = task_named(argv[1]);
    const bool is_float = std::string(argv[2]) == "float32";
    if (!is_float && std::string(argv[2]) != "float64") throw std::invalid_argument("no dtype is named so");
    const int64_t rows = std::atoll(argv[3]), classes = std::atoll(argv[4]);
    if (rows < 1 || classes < 1) throw std::invalid_argument("rows and classes are numbers from 1");
    init_threads();
    set_thread_limit(1);
    choose_set(argv[5]);
    if (is_float)
      float_problem = new Problem<float>(rows, classes);
    else
      double_problem = new Problem<double>(rows, classes);
    counted_call();
    std::printf("total %.9g\ncompiler %s\n", total, compiler);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
  return 0;
}
