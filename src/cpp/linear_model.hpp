// Products, loss, gradient and Hessian of a linear softmax model of few outputs. A loss and its gradient read samples
// from memory once: a block of them stays in the second-level cache from its logits to its share of the gradient.
#pragma once

#include "instruction_set.hpp"

namespace mlefast {

template <class T> struct LinearModel {
  int64_t samples, features, outputs;
  const T* x;             // (samples, features)
  const T* coef;          // (outputs, features); one output is the logit of the second class, the first one's being 0
  const T* intercept;     // for each output, or null
  const T* weight;        // of each sample, or null
  double scale;           // of the gradient
  T* coef_gradient;       // (outputs, features)
  T* intercept_gradient;  // for each output, or null

  int64_t classes() const { return outputs == 1 ? 2 : outputs; }
};

// What follows depends on the sizes and the machine, not on the number of threads.

// Writes scale x the gradient of the weighted sum of losses; returns that sum. The targets, one for each sample, are
// classes.
template <class T> double linear_loss(const InstructionSet& set, const LinearModel<T>& model, const int64_t* target);

// Writes scale x the product of that sum's Hessian with `coef` and `intercept`, at the point where the samples'
// probabilities (samples, classes) are these.
template <class T>
void linear_curvature(const InstructionSet& set, const LinearModel<T>& model, const T* probabilities);

// z (samples, outputs) <- x coef' + intercept.
template <class T> void linear_logits(const InstructionSet& set, const LinearModel<T>& model, T* z);

// coef_gradient <- z' x, and intercept_gradient <- the sums of the columns of z (samples, outputs).
template <class T> void linear_gradient(const InstructionSet& set, const LinearModel<T>& model, T* z);

}  // namespace mlefast
