// Fills an instruction set's table. Included by the files in isa/ only: everything here is compiled with their flags.
#pragma once

#include "column_kernel.hpp"
#include "instruction_set.hpp"
#include "row_kernel.hpp"

namespace mlefast {

template <class Ops> void exp_array(const typename Ops::Value* x, typename Ops::Value* y, int64_t n) {
  for (int64_t i = 0; i < n; i += Ops::lanes) {
    typename Ops::Vec v[1] = {n - i >= Ops::lanes ? Ops::load(x + i) : Ops::load(x + i, n - i, 0)};
    Ops::exp_scaled(v);
    Rescale<Ops>::apply({Rescale<Ops>(Ops::set(1))}, v);
    n - i >= Ops::lanes ? Ops::store(y + i, v[0]) : Ops::store(y + i, v[0], n - i);
  }
}

template <class Ops, class... Task> constexpr StorageKernels<typename Ops::Value> make_kernels(rules::List<Task...>) {
  return {
      Ops::lanes,
      128,
      {{RowKernel<Ops, Task>::rows, run_packed<Ops, Task>, run_columns<Ops, Task>, RowKernel<Ops, Task>::first_target,
        RowKernel<Ops, Task>::scan, RowKernel<Ops, Task>::settle_parts, RowKernel<Ops, Task>::finish}...},
      exp_array<Ops>};
}

template <template <class> class Isa> constexpr InstructionSet make_instruction_set(const char* name) {
  return {name, make_kernels<Math<Isa<float>>>(rules::Tasks{}), make_kernels<Math<Isa<double>>>(rules::Tasks{}),
          Limits<Isa<float>>::table(), Limits<Isa<double>>::table()};
}

}  // namespace mlefast
