#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace mlefast {
namespace {

std::atomic<int> requested{0};  // by set_thread_limit; 0: nothing
std::atomic<int> at_work{0};
std::atomic<bool> forked{false};
int default_limit = 1;
int processors_at_start = 1;
int openmp_at_start = 1;

int openmp_limit() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

int positive_integer(const char* name, const char* text) {
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || n < 1 || n > INT_MAX)
    throw std::invalid_argument(std::string(name) + "='" + text + "' is not a positive integer");
  return static_cast<int>(n);
}

int processors_in_affinity() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// "max 100000" or "150000 100000": the microseconds of processor time in a period.
int processors_in_quota(const std::string& folder) {
  std::ifstream unified(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (unified >> quota >> period && quota != "max" && period > 0)
    return std::max(1, static_cast<int>(std::ceil(std::atof(quota.c_str()) / period)));
  std::ifstream quota_us(folder + "/cpu.cfs_quota_us"), period_us(folder + "/cpu.cfs_period_us");
  double q = 0;
  if (quota_us >> q && period_us >> period && q > 0 && period > 0)
    return std::max(1, static_cast<int>(std::ceil(q / period)));
  return INT_MAX;
}

// The tightest quota of this process's control group and its ancestors (versions 1 and 2).
int processors_in_control_group() {
  int limit = INT_MAX;
#ifdef __linux__
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    std::istringstream fields(line);
    std::string id, controllers, path;
    std::getline(fields, id, ':'), std::getline(fields, controllers, ':'), std::getline(fields, path);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    for (;; path.erase(path.rfind('/'))) {
      limit = std::min(limit, processors_in_quota(root + path));
      if (path.find_last_of('/') == std::string::npos) break;
    }
  }
#endif
  return limit;
}

}  // namespace

void init_threads() {
  openmp_at_start = openmp_limit();
  processors_at_start = std::min(processors_in_affinity(), processors_in_control_group());
  if (const char* text = std::getenv("MLEFAST_NUM_THREADS"))
    default_limit = positive_integer("MLEFAST_NUM_THREADS", text);
  else if (std::getenv("OMP_NUM_THREADS"))
    default_limit = INT_MAX;  // the user's word, which OpenMP has already taken
  else
    default_limit = processors_at_start;
#if defined(__unix__) || defined(__APPLE__)
  static bool registered = pthread_atfork(nullptr, nullptr, [] { forked = true, at_work = 0; }) == 0;
  (void)registered;
#endif
}

int thread_limit() {
  const int openmp = openmp_limit(), asked = requested;
  if (forked) return 1;
  if (asked > 0) return openmp < openmp_at_start ? std::min(asked, openmp) : asked;
  return std::min(openmp, default_limit);
}

int processors() { return processors_at_start; }

void set_thread_limit(int threads) { requested = threads; }

const char* threading_layer() {
#ifdef _OPENMP
  return "openmp";
#else
  return "none";
#endif
}

Team::Team(int64_t wanted) {
  int limit = thread_limit();
#ifdef _OPENMP
  if (omp_in_parallel()) limit = 1;
#endif
  const int free = std::max(1, limit - at_work.load());
  size_ = static_cast<int>(std::clamp<int64_t>(wanted, 1, free));
  at_work += size_;
}

Team::~Team() { at_work -= size_; }

int Team::this_thread() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace mlefast
