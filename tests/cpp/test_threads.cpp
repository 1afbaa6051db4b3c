// What a team of threads promises to those who use it.
#include <doctest/doctest.h>

#include <atomic>
#include <initializer_list>
#include <new>

#include "threads.hpp"

using namespace mlefast;

TEST_CASE("what work throws is thrown by for_each; other threads do their work first") {
  for (const int threads : {1, 3}) {
    set_thread_limit(threads);
    const Team team(threads);
    std::atomic<int> done{0};
    const auto work = [&](int64_t item, int) {
      if (item == 5) throw std::bad_alloc();
      ++done;
    };
    CHECK_THROWS_AS(team.for_each(10, work), std::bad_alloc);
    CHECK(done == (threads == 1 ? 5 : 9));
  }
  set_thread_limit(0);
}
