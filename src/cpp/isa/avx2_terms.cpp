#include "../make_term_table.hpp"
#include "avx2.hpp"

const mlefast::TermTable mlefast::avx2_terms = mlefast::make_term_table<mlefast::Avx2>();
