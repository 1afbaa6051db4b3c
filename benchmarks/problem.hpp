// Logits, targets and outputs of a call, for the programs in this folder.
#pragma once

#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "driver.hpp"

namespace mlefast {

template <class... Task> std::vector<std::string> task_names(rules::List<Task...>) { return {Task::name...}; }

inline int task_named(const std::string& name) {
  const auto names = task_names(rules::Tasks{});
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<int>(i);
  throw std::invalid_argument("no task is named " + name);
}

template <class... Task> bool writes_output(int task, rules::List<Task...>) {
  return std::vector<bool>{(Task::emit != rules::Emit::nothing)...}[static_cast<size_t>(task)];
}

template <class... Task> bool has_target(int task, rules::List<Task...>) {
  return std::vector<bool>{Task::has_target...}[static_cast<size_t>(task)];
}

template <class T> struct Problem {
  int64_t rows, classes;
  std::vector<T> x, out;
  std::vector<int64_t> target;

  Problem(int64_t n, int64_t c) : rows(n), classes(c), x(static_cast<size_t>(n * c)), out(x), target() {
    std::minstd_rand random(1);  // the same numbers with every standard library, which normal_distribution is not
    for (T& each : x) each = static_cast<T>((static_cast<double>(random() % 20001) - 10000) / 2500);
    for (int64_t r = 0; r < n; ++r) target.push_back(static_cast<int64_t>(random()) % c);
  }

  double run(const InstructionSet& set, int task, bool in_place = false) {
    Call<T> call{};
    call.x = x.data();
    call.out = !writes_output(task, rules::Tasks{}) ? nullptr : in_place ? x.data() : out.data();
    call.classes = classes, call.x_class = call.out_class = 1;
    call.axes.add({rows, classes, classes});
    const bool labelled = has_target(task, rules::Tasks{});
    call.target = labelled ? target.data() : nullptr;
    call.target_bytes = 8, call.target_signed = true, call.ignore_index = -100;
    call.scale = labelled ? 1 / static_cast<double>(rows) : 1;
    if (labelled) {
      const auto check = check_targets<T>(target.data(), 8, true, rows, classes, call.ignore_index, nullptr);
      if (check.first_wrong >= 0) throw std::logic_error("a target is out of range");
    } else if (!call.out) {
      call.value = out.data();
    }
    return run_task(set, task, call);
  }
};

}  // namespace mlefast
