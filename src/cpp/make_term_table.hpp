// Fills an instruction set's table of losses. Included by the files in isa/ only: everything here is compiled with
// their flags.
#pragma once

#include "instruction_set.hpp"
#include "term_kernel.hpp"

namespace mlefast {

template <template <class> class Isa, class... Loss> constexpr TermTable make_term_table(rules::List<Loss...>) {
  return {{make_term_kernels<Math<Isa<float>>, Loss>()...}, {make_term_kernels<Math<Isa<double>>, Loss>()...}};
}

template <template <class> class Isa> constexpr TermTable make_term_table() {
  return make_term_table<Isa>(rules::Losses{});
}

}  // namespace mlefast
