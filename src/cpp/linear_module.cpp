// The part of mlefast._core that fits a linear model of few outputs.
#include "dispatch.hpp"
#include "linear_model.hpp"
#include "module.hpp"

namespace mlefast {
namespace {

// x and coef (or their gradients) as a model; what else it has is added by the caller.
template <class T>
LinearModel<T> model_of(const py::array& x, const py::array& coef, const MaybeArray& intercept, bool writes) {
  require_matrix(x, "x: a matrix");
  require(coef.ndim() == 2 && coef.shape(0) > 0 && coef.shape(1) == x.shape(1), "coef: a row of x's columns each");
  LinearModel<T> model{};
  model.samples = x.shape(0), model.features = x.shape(1), model.outputs = coef.shape(0);
  model.x = memory<T>(x, x.size(), false, "x");
  T* const weights = memory<T>(coef, coef.size(), writes, "coef");
  T* const offsets = memory<T>(intercept, model.outputs, writes, "intercept");
  if (writes)
    model.coef_gradient = weights, model.intercept_gradient = offsets;
  else
    model.coef = weights, model.intercept = offsets;
  return model;
}

// A model with its parameters, weights of samples and gradients.
template <class T>
LinearModel<T> model_of(const py::array& x, const py::array& coef, const MaybeArray& intercept,
                        const MaybeArray& weight, double scale, const py::array& coef_gradient,
                        const MaybeArray& intercept_gradient) {
  LinearModel<T> model = model_of<T>(x, coef, intercept, false);
  model.weight = memory<T>(weight, model.samples, false, "weight");
  model.scale = scale;
  model.coef_gradient = memory<T>(coef_gradient, coef.size(), true, "coef_gradient");
  model.intercept_gradient = memory<T>(intercept_gradient, model.outputs, true, "intercept_gradient");
  return model;
}

double loss(const py::array& x, const py::array& coef, const MaybeArray& intercept, const py::array& target,
            const MaybeArray& weight, double scale, const py::array& coef_gradient,
            const MaybeArray& intercept_gradient) {
  double sum = 0;
  with_type_of(x, "x", [&](auto type) {
    using T = decltype(type);
    const auto model = model_of<T>(x, coef, intercept, weight, scale, coef_gradient, intercept_gradient);
    const auto* classes = memory<int64_t>(target, model.samples, false, "target");
    without_lock(x.size(), [&] { sum = linear_loss(current_set(), model, classes); });
  });
  return sum;
}

void curvature(const py::array& x, const py::array& coef, const MaybeArray& intercept, const py::array& probabilities,
               const MaybeArray& weight, double scale, const py::array& coef_gradient,
               const MaybeArray& intercept_gradient) {
  with_type_of(x, "x", [&](auto type) {
    using T = decltype(type);
    const auto model = model_of<T>(x, coef, intercept, weight, scale, coef_gradient, intercept_gradient);
    const T* p = memory<T>(probabilities, model.samples * model.classes(), false, "probabilities");
    without_lock(x.size(), [&] { linear_curvature(current_set(), model, p); });
  });
}

void logits(const py::array& x, const py::array& coef, const MaybeArray& intercept, const py::array& out) {
  with_type_of(x, "x", [&](auto type) {
    using T = decltype(type);
    const auto model = model_of<T>(x, coef, intercept, false);
    T* z = memory<T>(out, model.samples * model.outputs, true, "out");
    without_lock(x.size(), [&] { linear_logits(current_set(), model, z); });
  });
}

void gradient(const py::array& x, const py::array& errors, const py::array& coef_gradient,
              const MaybeArray& intercept_gradient) {
  with_type_of(x, "x", [&](auto type) {
    using T = decltype(type);
    const auto model = model_of<T>(x, coef_gradient, intercept_gradient, true);
    T* z = memory<T>(errors, model.samples * model.outputs, false, "errors");
    without_lock(x.size(), [&] { linear_gradient(current_set(), model, z); });
  });
}

}  // namespace

void add_linear_model(py::module_& m) {
  const auto array = [](const char* name) { return py::arg(name).noconvert(); };
  m.def("linear_loss", &loss, array("x"), array("coef"), array("intercept"), array("target"), array("weight"),
        py::arg("scale"), array("coef_gradient"), array("intercept_gradient"),
        "Return the weighted sum of the samples' losses; write scale x its gradient.");
  m.def("linear_curvature", &curvature, array("x"), array("coef"), array("intercept"), array("probabilities"),
        array("weight"), py::arg("scale"), array("coef_gradient"), array("intercept_gradient"),
        "Write scale x the product of that sum's Hessian with coef and intercept, where the probabilities are these.");
  m.def("linear_logits", &logits, array("x"), array("coef"), array("intercept"), array("out"),
        "Write x coef' + intercept to out.");
  m.def("linear_gradient", &gradient, array("x"), array("errors"), array("coef_gradient"), array("intercept_gradient"),
        "Write errors' x and the sums of the errors' columns.");
}

}  // namespace mlefast
