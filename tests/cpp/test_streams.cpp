// Outputs that are written past the caches, kernel by kernel: with the bits of ordinary stores, and nothing beside
// them. (The driver streams only what is too large for sanitizers and emulated processors.)
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "vectors.hpp"

using namespace mlefast;

namespace {

enum Task { softmax = 1, log_softmax = 2, cross_entropy_and_grad = 4 };
enum class Form { rows, strips, columns };

// Elements of scratch, and no more.
template <class S> int64_t scratch_size(const StorageKernels<S>& set, Form form, int64_t classes) {
  using T = ValueOf<S>;
  if (form == Form::columns) return (classes + streamed_numbers) * (4 * set.lanes + rows_of_line<S>);
  if (form == Form::rows) return 2 * (classes / block_length<T> + 1) + 2 * whole_lines<T>(classes);
  return 4 * set.lanes * whole_lines<T>(classes) + LineWriter::room(classes * int64_t(sizeof(S))) / int64_t(sizeof(T));
}

// What a kernel writes, `shift` elements off a cache line, with what lies beside it.
template <class S>
std::vector<S> written(const StorageKernels<S>& set, int task, Form form, int64_t rows, int64_t classes, int64_t shift,
                       bool streams) {
  using T = ValueOf<S>;
  const bool across = form == Form::columns;
  std::vector<S> x;
  for (const double v : normals(rows * classes, 3, 5)) x.push_back(from_value<S>(static_cast<T>(v)));
  for (int64_t r = 0; r < rows && !across; r += 3)  // a row whose blocks have other pivots
    for (int64_t c = 0; c < classes; ++c) {
      S& logit = x[static_cast<size_t>(r * classes + c)];
      logit = from_value<S>(to_value(logit) + static_cast<T>(c * 5 / classes * 40));
    }
  std::vector<int64_t> target;
  for (int64_t r = 0; r < rows; ++r)  // of the tiles of columns, every second has none that is ignored
    target.push_back(r % 5 == 3 && (!across || r / 64 % 2 == 0) ? -100 : r * 7 % classes);
  std::vector<T> scratch(static_cast<size_t>(scratch_size<S>(set, form, classes)));
  std::vector<S> memory(static_cast<size_t>(rows * classes + 256), from_value<S>(T(7)));
  S* out = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) / sizeof(S) + 64 + shift;
  const int64_t piece = across ? 64 : rows;
  for (int64_t r = 0; r < rows; r += piece) {
    Run<S> run{};
    run.rows = std::min(piece, rows - r), run.classes = classes;
    run.x = x.data() + r, run.out = out + r;
    run.x_row = run.out_row = across ? 1 : classes, run.x_class = run.out_class = across ? rows : 1;
    run.streams = streams, run.lags = streams;
    run.begins = r == 0, run.ends = r + run.rows == rows;
    run.target = target.data() + r, run.ignore_index = -100, run.scale = 1;
    const Kernels<S>& kernel = set.task[task];
    (form == Form::rows ? kernel.rows : form == Form::strips ? kernel.packed : kernel.columns)(run, scratch.data());
  }
  return {out - 64, out + rows * classes + 64};
}

template <class S> void check(Form form, std::initializer_list<int64_t> rows, std::initializer_list<int64_t> classes) {
  for (const auto* isa : usable_sets()) {
    const auto& set = isa->kernels<S>();
    for (const int64_t c : classes)
      for (const int64_t r : rows)
        for (const int64_t shift : {0, 1, 9})
          for (const int task : {softmax, log_softmax, cross_entropy_and_grad}) {
            if (form == Form::strips && !is_short<ValueOf<S>>(c, set.lanes)) continue;
            CAPTURE(isa->name);
            CAPTURE(c);
            CAPTURE(r);
            const auto want = written<S>(set, task, form, r, c, shift, false);
            const auto got = written<S>(set, task, form, r, c, shift, true);
            CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(S)) == 0);
          }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("streamed strips", S, float, double, Float16, BFloat16) {
  check<S>(Form::strips, {1, 16, 37, 64, 71}, {64, 100, 129, 300, 1000});
}

TEST_CASE_TEMPLATE("streamed rows", S, float, double, Float16, BFloat16) {
  check<S>(Form::rows, {1, 2, 9}, {5, 33, 300, 1000, 1024, 3001});
}

TEST_CASE_TEMPLATE("streamed columns, in pieces", S, float, double, Float16, BFloat16) {
  check<S>(Form::columns, {5, 64, 69, 128, 200, 333}, {1, 3, 17, 40});
}
