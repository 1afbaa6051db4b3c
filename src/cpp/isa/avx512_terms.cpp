#include "../make_term_table.hpp"
#include "avx512.hpp"

const mlefast::TermTable mlefast::avx512_terms = mlefast::make_term_table<mlefast::Avx512>();
