#include "neon.hpp"
#include "../make_instruction_set.hpp"

const mlefast::InstructionSet mlefast::neon_set =
    mlefast::make_instruction_set<mlefast::Neon>("neon", &neon_terms, &neon_training);
