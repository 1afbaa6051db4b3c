// Fills an instruction set's table. Included by the files in isa/ only: everything here is compiled with their flags.
#pragma once

#include "column_kernel.hpp"
#include "instruction_set.hpp"
#include "row_kernel.hpp"
#include "strip_kernel.hpp"

namespace mlefast {

// From how many classes on rows are worked on in strips rather than transposed; with an output or without it, so that
// the values have the same bits. (Measured at 32 to 1000 classes. AVX2: both take as long at 100 to 130 classes of
// floats. AVX-512 on an Intel Xeon: at 112 classes of floats or doubles, but at 72 to 75 with an output; on an AMD EPYC
// at 112 as well, and at 100 strips take a tenth more, in place from memory a third.)
template <class Ops> constexpr int64_t strips_from() {
  return Ops::lanes * sizeof(typename Ops::Value) < 64 ? transposed_vectors * Ops::lanes : 112;
}

// Short rows of contiguous classes.
template <class Ops, class Task, class S> void run_packed(const Run<S>& run, typename Ops::Value* scratch) {
  using T = typename Ops::Value;
  constexpr int lanes = Ops::lanes;
  Sum<Ops> total;
  if (fits_packed<T>(run.classes, lanes) && (run.classes < strips_from<Ops>() || !fits_strip<T>(run.classes, lanes))) {
    run_transposed<Ops, Task, 1>(run, run_transposed<Ops, Task, 4>(run, 0, scratch, total), scratch, total);
  } else {
    run_strips<Ops, Task>(run, scratch, total);
  }
  if (Task::has_value && run.total) *run.total = total.total();
}

template <class Ops> void exp_array(const typename Ops::Value* x, typename Ops::Value* y, int64_t n) {
  for (int64_t i = 0; i < n; i += Ops::lanes) {
    typename Ops::Vec v[1] = {n - i >= Ops::lanes ? Ops::load(x + i) : Ops::load(x + i, n - i, 0)};
    Ops::exp_scaled(v);
    Rescale<Ops>(Ops::set(1))(v);
    n - i >= Ops::lanes ? Ops::store(y + i, v[0]) : Ops::store(y + i, v[0], n - i);
  }
}

template <class Ops, class From, class To> void convert(const From* x, To* y, int64_t n) {
  int64_t i = 0;
  for (; i + Ops::lanes <= n; i += Ops::lanes) Ops::store(y + i, Ops::load(x + i));
  if (i < n) Ops::store(y + i, Ops::load(x + i, n - i, 0), n - i);
}

template <class S, class Ops, class Task> constexpr Kernels<S> make_task() {
  using Rows = RowKernel<Ops, Task, S>;
  return {Rows::rows,
          run_packed<Ops, Task, S>,
          run_columns<Ops, Task, S>,
          Task::emit == rules::Emit::scaled_exp,
          Rows::first_target,
          Rows::scan,
          Rows::settle_parts,
          Rows::finish};
}

template <class S, template <class> class Isa, class... Task>
constexpr StorageKernels<S> make_kernels(rules::List<Task...>) {
  using Ops = Math<Isa<ValueOf<S>>>;
  return {Ops::lanes,
          {make_task<S, Ops, Task>()...},
          exp_array<Ops>,
          convert<Ops, S, ValueOf<S>>,
          convert<Ops, ValueOf<S>, S>};
}

template <template <class> class Isa>
constexpr InstructionSet make_instruction_set(const char* name, const TermTable* terms, const TrainingTable* training) {
  return {name,
          make_kernels<float, Isa>(rules::Tasks{}),
          make_kernels<double, Isa>(rules::Tasks{}),
          make_kernels<Float16, Isa>(rules::Tasks{}),
          make_kernels<BFloat16, Isa>(rules::Tasks{}),
          Limits<Isa<float>>::table(),
          Limits<Isa<double>>::table(),
          terms,
          training};
}

}  // namespace mlefast
