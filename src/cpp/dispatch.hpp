// Which instruction set the kernels use: the first in the list that this processor has, unless MLEFAST_ISA names one.
#pragma once

#include <string>
#include <vector>

#include "instruction_set.hpp"

namespace mlefast {

// Best first; those that were built into this module and that this processor has.
std::vector<const InstructionSet*> usable_sets();

const InstructionSet& current_set();

// Throws std::invalid_argument for a name that is not in usable_sets().
void choose_set(const std::string& name);

// Follows MLEFAST_ISA; throws like choose_set.
void init_dispatch();

}  // namespace mlefast
