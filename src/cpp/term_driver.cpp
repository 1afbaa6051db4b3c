#include "term_driver.hpp"

#include <algorithm>

#include "pieces.hpp"
#include "threads.hpp"

namespace mlefast {
namespace {

constexpr int64_t copied_elements = 16384;

template <class S> class TermDriver {
  using T = ValueOf<S>;
  const TermCall<S>& call;
  const StorageKernels<S>& set;
  const TermKernels<T>& kernels;
  const RowAxis last;
  const int64_t inner, outer;  // rows along the last axis, and how many times that is repeated

  enum class Form { rows, packed, columns, copied } form;
  int64_t chunk_rows, run_rows;  // that a thread takes at a time; of one kernel call
  int64_t packed_size, scratch_size;

 public:
  TermDriver(const InstructionSet& isa, int loss, const TermCall<S>& c)
      : call(c),
        set(isa.kernels<S>()),
        kernels(isa.terms->kernels<T>()[loss]),
        last(c.axes.last()),
        inner(last.rows),
        outer(c.axes.outer()) {
    if (is_half<S>)
      form = Form::copied;
    else if (call.x_class == 1 || call.classes == 1)
      form = contiguous_form(inner);
    else
      form = last.x_stride == 1 && call.classes <= most_lane_classes ? Form::columns : Form::copied;
    const int64_t chunk = std::clamp(outer * inner * call.classes / 64, least_chunk, most_chunk);
    const int64_t together = form == Form::packed || form == Form::columns ? set.lanes : 1;
    chunk_rows = std::max<int64_t>(1, chunk / call.classes / together) * together;
    run_rows = std::min(chunk_rows, piece_rows);
    packed_size = is_short() ? term_arrays * set.lanes * std::max(call.classes, least_packed) : 0;
    scratch_size = form == Form::packed ? packed_size : 0;
    if (form == Form::copied) {
      run_rows = std::min(run_rows, std::max<int64_t>(1, copied_elements / call.classes));
      scratch_size = packed_size + term_arrays * run_rows * call.classes;
    }
  }

  double run() const {
    const Chunks chunks(inner, outer, chunk_rows);
    const Team team(std::min(chunks.count, 1 + inner * outer * call.classes / thread_elements));
    Buffer<T, 512> scratch(static_cast<size_t>(scratch_size) * static_cast<size_t>(team.size()));
    return chunks.sum(team, [&](int64_t run, int64_t begin, int64_t end, int thread) {
      return run_some(run, begin, end, scratch.data() + scratch_size * thread);
    });
  }

 private:
  bool is_short() const {
    const int64_t limit = kernels.packed_vectors * set.lanes / (call.probabilities || call.v ? 2 : 1);
    return call.classes < limit && fits_packed<T>(call.classes, set.lanes);
  }
  Form contiguous_form(int64_t rows) const { return is_short() && 2 * rows >= set.lanes ? Form::packed : Form::rows; }

  double run_some(int64_t run_index, int64_t begin, int64_t end, T* scratch) const {
    const int64_t start = call.axes.offset(run_index).x_stride;
    double total = 0;
    int64_t targets[piece_rows];
    for (int64_t row = begin; row < end; row += run_rows) {
      const int64_t n = std::min(run_rows, end - row), at = start + row * last.x_stride;
      double sum = 0;
      TermRun<T> run = make_run(run_index * inner + row, n, targets);
      run.total = &sum;
      if (form == Form::copied) {
        run_copied(run, at, scratch);
      } else if constexpr (!is_half<S>) {
        const auto here = [&](auto* array) { return array ? array + at : array; };
        run.row = last.x_stride, run.class_ = call.x_class;
        run.x = here(call.x), run.probabilities = here(call.probabilities), run.v = here(call.v), run.u = here(call.u);
        run.out[0] = here(call.out), run.out[1] = here(call.second);
        const auto& kernel = form == Form::rows     ? kernels.rows
                             : form == Form::packed ? kernels.packed
                                                    : kernels.columns;
        kernel(run, scratch);
      }
      total += sum;
    }
    return total;
  }

  TermRun<T> make_run(int64_t position, int64_t n, int64_t* targets) const {
    const auto from = [&](auto* array) { return array ? array + position : array; };
    TermRun<T> run{};
    run.rows = n, run.classes = call.classes;
    if (call.target) {
      with_integers(call.target, call.target_bytes, call.target_signed,
                    [&](auto* target) { widen(target + position, n, targets); });
      run.target = targets;
    }
    run.ignore_index = call.ignore_index;
    run.weight = call.weight, run.positive = call.positive;
    run.options = call.options;
    for (int k = 0; k < 2; ++k) {
      run.upstream[k] = from(call.upstream[k]), run.scale[k] = call.scale[k];
      run.value[k] = from(call.value[k]);
    }
    run.hit = from(call.hit);
    return run;
  }

  // Halves, and what has neither contiguous classes nor contiguous rows: through contiguous copies of a few rows.
  void run_copied(TermRun<T> run, int64_t at, T* scratch) const {
    const int64_t size = run_rows * call.classes;
    T* next = scratch + packed_size;
    const auto copy_in = [&](auto* array) -> const T* {
      if (!array) return nullptr;
      T* const to = next;
      next += size;
      for (int64_t r = 0; r < run.rows; ++r) {
        const auto* from = array + at + r * last.x_stride;
        T* const row = to + r * call.classes;
        if constexpr (is_half<S> && sizeof(*array) == sizeof(S)) {
          if (call.x_class == 1) {
            set.to_values(from, row, call.classes);
            continue;
          }
        }
        for (int64_t c = 0; c < call.classes; ++c) row[c] = to_value(from[c * call.x_class]);
      }
      return to;
    };
    const auto room = [&](bool wanted) -> T* {
      T* const to = wanted ? next : nullptr;
      next += wanted ? size : 0;
      return to;
    };
    const auto copy_out = [&](const T* from, auto* array) {
      if (!array) return;
      using E = std::remove_pointer_t<decltype(array)>;
      for (int64_t r = 0; r < run.rows; ++r) {
        const T* const row = from + r * call.classes;
        E* const to = array + at + r * last.x_stride;
        if constexpr (is_half<S> && std::is_same_v<E, S>) {
          if (call.x_class == 1) {
            set.from_values(row, to, call.classes);
            continue;
          }
        }
        for (int64_t c = 0; c < call.classes; ++c) to[c * call.x_class] = from_value<E>(row[c]);
      }
    };
    run.row = call.classes, run.class_ = 1;
    run.x = copy_in(call.x), run.probabilities = copy_in(call.probabilities);
    run.v = copy_in(call.v), run.u = copy_in(call.u);
    run.out[0] = room(call.out != nullptr), run.out[1] = room(call.second != nullptr);
    const auto& kernel = contiguous_form(run.rows) == Form::packed ? kernels.packed : kernels.rows;
    kernel(run, scratch);
    copy_out(run.out[0], call.out), copy_out(run.out[1], call.second);
  }
};

}  // namespace

template <class S> double run_terms(const InstructionSet& set, int loss, const TermCall<S>& call) {
  return call.axes.rows() == 0 ? 0 : TermDriver<S>(set, loss, call).run();
}

template double run_terms(const InstructionSet&, int, const TermCall<float>&);
template double run_terms(const InstructionSet&, int, const TermCall<double>&);
template double run_terms(const InstructionSet&, int, const TermCall<Float16>&);
template double run_terms(const InstructionSet&, int, const TermCall<BFloat16>&);

}  // namespace mlefast
