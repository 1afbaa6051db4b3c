#include "../training_kernel.hpp"
#include "avx2.hpp"

const mlefast::TrainingTable mlefast::avx2_training = mlefast::make_training_table<mlefast::Avx2>();
