#include "avx2.hpp"
#include "../make_instruction_set.hpp"

const mlefast::InstructionSet mlefast::avx2_set =
    mlefast::make_instruction_set<mlefast::Avx2>("avx2", &avx2_terms, &avx2_training);
