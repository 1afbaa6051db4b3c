#include "scalar.hpp"

#include "../make_term_table.hpp"

namespace mlefast {
template <class T> using Plain = Scalar<T>;
const TermTable scalar_terms = make_term_table<Plain>();
}  // namespace mlefast
