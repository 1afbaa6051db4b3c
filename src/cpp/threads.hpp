// How many threads a call may use, and the one loop that uses them.
#pragma once

#include <cstdint>
#include <exception>

namespace mlefast {

// The limit for a call made now: what set_num_threads asked for, else MLEFAST_NUM_THREADS, OMP_NUM_THREADS or the
// processors that the affinity mask and the control group leave us; never more than OpenMP's own limit if that was
// lowered since (threadpoolctl does), and 1 in a forked child, whose OpenMP threads did not survive the fork.
int thread_limit();

// 0 restores the default.
void set_thread_limit(int threads);

// What the affinity mask and the control group left this process when it started, whatever was asked for since.
int processors();

// "openmp" or "none".
const char* threading_layer();

// Reads the environment; throws std::invalid_argument if MLEFAST_NUM_THREADS is not a positive integer.
void init_threads();

// Threads of this process that are at work in other calls are subtracted, so that callers in many threads together
// use no more than the limit.
class Team {
 public:
  explicit Team(int64_t wanted);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  int size() const { return size_; }

  // work(item, thread) for each item in [0, items), in any order. What work throws is thrown when all others are done,
  // by one thread alone at once.
  template <class Work> void for_each(int64_t items, const Work& work) const {
#ifdef _OPENMP
    if (size_ > 1) {
      std::exception_ptr failure;
#pragma omp parallel num_threads(size_)
      {
        const int thread = this_thread();
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < items; ++item) {
          try {
            work(item, thread);
          } catch (...) {
#pragma omp critical(mlefast_failure)
            failure = std::current_exception();
          }
        }
      }
      if (failure) std::rethrow_exception(failure);
      return;
    }
#endif
    for (int64_t item = 0; item < items; ++item) work(item, 0);
  }

 private:
  static int this_thread();
  int size_;
};

}  // namespace mlefast
