#include "avx512.hpp"
#include "../make_instruction_set.hpp"

const mlefast::InstructionSet mlefast::avx512_set =
    mlefast::make_instruction_set<mlefast::Avx512>("avx512", &avx512_terms, &avx512_training);
