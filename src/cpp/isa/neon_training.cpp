#include "../training_kernel.hpp"
#include "neon.hpp"

const mlefast::TrainingTable mlefast::neon_training = mlefast::make_training_table<mlefast::Neon>();
