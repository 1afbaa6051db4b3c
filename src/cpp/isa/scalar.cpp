#include "scalar.hpp"

#include "../make_instruction_set.hpp"

namespace mlefast {
template <class T> using Plain = Scalar<T>;
const InstructionSet scalar_set = make_instruction_set<Plain>("scalar", &scalar_terms, &scalar_training);
}  // namespace mlefast
