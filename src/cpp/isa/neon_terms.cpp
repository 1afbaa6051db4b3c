#include "../make_term_table.hpp"
#include "neon.hpp"

const mlefast::TermTable mlefast::neon_terms = mlefast::make_term_table<mlefast::Neon>();
