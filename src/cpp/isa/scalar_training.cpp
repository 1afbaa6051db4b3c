#include "scalar.hpp"

#include "../training_kernel.hpp"

namespace mlefast {
template <class T> using Plain = Scalar<T>;
const TrainingTable scalar_training = make_training_table<Plain>();
}  // namespace mlefast
