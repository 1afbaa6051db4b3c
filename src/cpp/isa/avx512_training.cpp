#include "../training_kernel.hpp"
#include "avx512.hpp"

const mlefast::TrainingTable mlefast::avx512_training = mlefast::make_training_table<mlefast::Avx512>();
