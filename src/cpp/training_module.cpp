// The part of mlefast._core that a step of training calls.
#include <cmath>
#include <string>

#include "dispatch.hpp"
#include "module.hpp"
#include "training.hpp"

using namespace mlefast;

namespace {

void activate_arrays(int activation, const py::array& values, const py::array& bias, const MaybeArray& slope,
                     const MaybeArray& uniform, double rate) {
  require(activation >= 0 && activation < rules::Activations::size, "activation: one of ACTIVATIONS");
  require_matrix(values, "values: a matrix");
  require(rate >= 0 && rate < 1, "rate: in [0, 1)");
  with_type_of(values, "values", [&](auto type) {
    using T = decltype(type);
    const int64_t size = values.size(), columns = values.shape(1);
    LayerRun<T> layer{values.shape(0),
                      columns,
                      memory<T>(values, size, true, "values"),
                      memory<T>(bias, columns, false, "bias"),
                      memory<T>(slope, size, true, "slope"),
                      memory<T>(uniform, size, false, "uniform"),
                      static_cast<T>(rate),
                      static_cast<T>(1 / (1 - rate))};
    without_lock(size, [&] { activate(current_set(), activation, layer); });
  });
}

void backpropagate_arrays(const py::array& error, const MaybeArray& slope, const py::array& bias_gradient) {
  require_matrix(error, "error: a matrix");
  with_type_of(error, "error", [&](auto type) {
    using T = decltype(type);
    const int64_t size = error.size(), columns = error.shape(1);
    ErrorRun<T> errors{error.shape(0),
                       columns,
                       0,
                       columns,
                       memory<T>(error, size, slope.has_value(), "error"),
                       memory<T>(slope, size, false, "slope"),
                       memory<T>(bias_gradient, columns, true, "bias_gradient")};
    without_lock(size, [&] { backpropagate(current_set(), errors); });
  });
}

void require_weights(int64_t n_weights, const py::array& parameters) {
  require(n_weights >= 0 && n_weights <= parameters.size(), "n_weights: in [0, the number of parameters]");
}

void sgd_step(const py::array& parameters, const py::array& gradient, const py::array& velocity, int64_t n_weights,
              double learning_rate, double momentum, bool nesterov, double l2, double l1) {
  require_weights(n_weights, parameters);
  require(momentum >= 0 && momentum < 1, "momentum: in [0, 1)");
  with_type_of(parameters, "parameters", [&](auto type) {
    using T = decltype(type);
    const int64_t n = parameters.size();
    const auto in = [](double x) { return static_cast<T>(x); };
    MomentumRun<T> run{n,
                       memory<T>(parameters, n, true, "parameters"),
                       memory<T>(gradient, n, false, "gradient"),
                       memory<T>(velocity, n, true, "velocity"),
                       {in(learning_rate), in(momentum), in(l2), in(learning_rate * l1 / (1 - momentum)), nesterov}};
    without_lock(n, [&] { step(current_set(), run, n_weights); });
  });
}

void adamw_step(const py::array& parameters, const py::array& gradient, const py::array& mean, const py::array& square,
                int64_t n_weights, double learning_rate, double beta_1, double beta_2, double epsilon,
                double weight_decay, double l2, double l1, int64_t number) {
  require_weights(n_weights, parameters);
  require(beta_1 >= 0 && beta_1 < 1 && beta_2 >= 0 && beta_2 < 1, "beta_1, beta_2: in [0, 1)");
  require(number >= 1, "step: from 1 on");
  with_type_of(parameters, "parameters", [&](auto type) {
    using T = decltype(type);
    const int64_t n = parameters.size();
    const auto in = [](double x) { return static_cast<T>(x); };
    const auto t = static_cast<double>(number);
    rules::AdaptiveMoments<T> rule{};
    rule.rate = in(learning_rate / (1 - std::pow(beta_1, t)));
    rule.mean_share = in(1 - beta_1), rule.square_share = in(1 - beta_2);
    rule.root = in(1 / std::sqrt(1 - std::pow(beta_2, t)));
    rule.epsilon = in(epsilon);
    rule.decay = in(1 - learning_rate * weight_decay);
    rule.l2 = in(l2), rule.threshold = in(learning_rate * l1);
    AdaptiveRun<T> run{n,
                       memory<T>(parameters, n, true, "parameters"),
                       memory<T>(gradient, n, false, "gradient"),
                       memory<T>(mean, n, true, "mean"),
                       memory<T>(square, n, true, "square"),
                       rule};
    without_lock(n, [&] { step(current_set(), run, n_weights); });
  });
}

void take_rows_arrays(const py::array& x, const py::array& index, const py::array& out) {
  require(x.ndim() == 2 && is_contiguous(x), "x: a contiguous matrix");
  require(holds<int64_t>(index) && is_contiguous(index) && index.ndim() == 1, "index: contiguous int64");
  require(out.ndim() == 2 && is_contiguous(out) && out.writeable() && out.dtype().is(x.dtype()) &&
              out.shape(0) == index.size() && out.shape(1) == x.shape(1),
          "out: a contiguous, writeable matrix of x's dtype and columns with a row for each index");
  int64_t wrong = -1;
  without_lock(out.size(), [&] {
    wrong = take_rows(static_cast<const char*>(x.data()), x.shape(0), x.shape(1) * x.itemsize(),
                      static_cast<const int64_t*>(index.data()), index.size(),
                      static_cast<char*>(const_cast<void*>(out.data())));
  });
  if (wrong >= 0)
    throw py::index_error("index: received " + std::to_string(static_cast<const int64_t*>(index.data())[wrong]) +
                          " at position " + std::to_string(wrong) + "; accepted: 0 to " +
                          std::to_string(x.shape(0) - 1));
}

template <class... Function> py::dict list_activations(rules::List<Function...>) {
  py::dict index;
  int i = 0;
  ((index[Function::name] = i++), ...);
  return index;
}

}  // namespace

void mlefast::add_training(py::module_& m) {
  m.attr("ACTIVATIONS") = list_activations(rules::Activations{});
  m.def("activate", &activate_arrays, py::arg("activation"), py::arg("values").noconvert(), py::arg("bias").noconvert(),
        py::arg("slope").noconvert(), py::arg("uniform").noconvert(), py::arg("rate"),
        "Write f(values + bias) over values and f' to slope; with uniform numbers, drop both with probability rate.");
  m.def("backpropagate", &backpropagate_arrays, py::arg("error").noconvert(), py::arg("slope").noconvert(),
        py::arg("bias_gradient").noconvert(), "Multiply error by slope in place, and write its column sums.");
  m.def("sgd_step", &sgd_step, py::arg("parameters").noconvert(), py::arg("gradient").noconvert(),
        py::arg("velocity").noconvert(), py::arg("n_weights"), py::arg("learning_rate"), py::arg("momentum"),
        py::arg("nesterov"), py::arg("l2"), py::arg("l1"),
        "Move the parameters by momentum; the first n_weights are penalised.");
  m.def("adamw_step", &adamw_step, py::arg("parameters").noconvert(), py::arg("gradient").noconvert(),
        py::arg("mean").noconvert(), py::arg("square").noconvert(), py::arg("n_weights"), py::arg("learning_rate"),
        py::arg("beta_1"), py::arg("beta_2"), py::arg("epsilon"), py::arg("weight_decay"), py::arg("l2"), py::arg("l1"),
        py::arg("step"), "Move the parameters by AdamW; the first n_weights decay and are penalised.");
  m.def("take_rows", &take_rows_arrays, py::arg("x").noconvert(), py::arg("index").noconvert(),
        py::arg("out").noconvert(), "Write the rows x[index] to out.");
}
