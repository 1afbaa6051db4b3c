// The Python module mlefast._core: arrays in, pointers out. What is wrong with an input is said in Python; here it is
// only made sure that no memory outside the arrays is touched.
#include "module.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "driver.hpp"
#include "limits.hpp"
#include "term_driver.hpp"
#include "threads.hpp"

using namespace mlefast;

namespace {

struct Integers {
  const void* data = nullptr;
  int bytes = 8;
  bool is_signed = true;
};

Integers integers_of(const MaybeArray& a, int64_t size) {
  if (!a) return {};
  const char kind = a->dtype().kind();
  require((kind == 'i' || kind == 'u') && is_contiguous(*a) && a->size() == size && a->dtype().byteorder() != '>',
          "target: native contiguous integers, one for each row");
  return {a->data(), static_cast<int>(a->itemsize()), kind == 'i'};
}

template <class S>
double run_typed(int task, const py::array& logits, int axis, const MaybeArray& out, const MaybeArray& value,
                 const MaybeArray& target, int64_t ignore_index, const MaybeArray& weight, const MaybeArray& upstream,
                 double scale) {
  const int ndim = static_cast<int>(logits.ndim());
  require(axis >= 0 && axis < ndim, "axis");
  using T = ValueOf<S>;
  constexpr int64_t size = sizeof(S);
  int64_t rows = 1;
  Call<S> call{};
  call.x = static_cast<const S*>(logits.data());
  if (out) {
    require(holds<S>(*out) && out->writeable() && out->ndim() == ndim, "out: the dtype and shape of the logits");
    call.out = static_cast<S*>(const_cast<void*>(out->data()));
  }
  for (int d = 0; d < ndim; ++d) {
    const int64_t n = logits.shape(d), x_stride = logits.strides(d) / size,
                  out_stride = out ? out->strides(d) / size : 0;
    require(n < 2 || logits.strides(d) % size == 0, "logits: strides that are multiples of the item size");
    require(!out || (out->shape(d) == n && (n < 2 || out->strides(d) % size == 0)),
            "out: the dtype and shape of the logits");
    if (d == axis) {
      call.classes = n, call.x_class = x_stride, call.out_class = out_stride;
    } else {
      call.axes.add({n, x_stride, out_stride});
      rows *= n;
    }
  }
  require(call.classes > 0, "logits: at least one class");
  const Integers integers = integers_of(target, rows);
  call.target = integers.data, call.target_bytes = integers.bytes, call.target_signed = integers.is_signed;
  call.ignore_index = ignore_index;
  call.weight = data_of<T>(weight, call.classes, "weight: one number for each class, of the loss's dtype");
  call.upstream = data_of<T>(upstream, rows, "upstream: one number for each row, of the loss's dtype");
  call.scale = scale;
  if (value) require(value->writeable(), "value: writeable");
  call.value = const_cast<T*>(data_of<T>(value, rows, "value: one number for each row, of the loss's dtype"));
  const InstructionSet& set = current_set();
  py::gil_scoped_release without_gil;
  return run_task(set, task, call);
}

struct TaskInfo {
  const char* name;
  bool has_target, has_value, has_output;
};

template <class... Task> std::vector<TaskInfo> list_tasks(rules::List<Task...>) {
  return {{Task::name, Task::has_target, Task::has_value, Task::emit != rules::Emit::nothing}...};
}

double run(int task, const py::array& logits, int axis, const MaybeArray& out, const MaybeArray& value,
           const MaybeArray& target, int64_t ignore_index, const MaybeArray& weight, const MaybeArray& upstream,
           double scale) {
  static const auto tasks = list_tasks(rules::Tasks{});
  require(task >= 0 && task < rules::Tasks::size, "task");
  const TaskInfo& info = tasks[static_cast<size_t>(task)];
  require(info.has_output == out.has_value() && info.has_target == target.has_value(), "task: its arrays, no other");
  const auto run_as = [&](auto storage) {
    return run_typed<decltype(storage)>(task, logits, axis, out, value, target, ignore_index, weight, upstream, scale);
  };
  if (holds<float>(logits)) return run_as(float());
  if (holds<double>(logits)) return run_as(double());
  if (holds<Float16>(logits)) return run_as(Float16());
  require(holds<BFloat16>(logits), "logits: float16, bfloat16, float32 or float64");
  return run_as(BFloat16());
}

std::tuple<int64_t, int64_t, double> check(const py::array& target, int64_t classes, int64_t ignore_index,
                                           const MaybeArray& weight) {
  const int64_t rows = target.size();
  const Integers integers = integers_of(target, rows);
  TargetCheck result{};
  const auto check_with = [&](auto* weights) {
    py::gil_scoped_release without_gil;
    result = check_targets(integers.data, integers.bytes, integers.is_signed, rows, classes, ignore_index, weights);
  };
  if (weight && holds<double>(*weight))
    check_with(data_of<double>(weight, classes, "weight: one number for each class"));
  else
    check_with(data_of<float>(weight, classes, "weight: one number for each class"));
  return {result.first_wrong, result.count, result.weight};
}

// ---- the losses of rules/term_losses.h

rules::Options options_of(const py::dict& given) {
  rules::Options o;
  const std::pair<const char*, double*> places[] = {
      {"keep", &o.keep},       {"spread", &o.spread}, {"z_loss", &o.z_loss},
      {"softcap", &o.softcap}, {"gamma", &o.gamma},   {"inverse_temperature", &o.inverse_temperature},
      {"hessian", &o.hessian}, {"floor", &o.floor}};
  for (const auto& [key, value] : given) {
    const auto place = std::find_if(std::begin(places), std::end(places),
                                    [&, k = py::cast<std::string>(key)](auto& p) { return k == p.first; });
    require(place != std::end(places), "options: those of rules::Options");
    *place->second = py::cast<double>(value);
  }
  return o;
}

// An optional array with the shape and the strides of the logits.
template <class T> T* data_like(const py::array& logits, const MaybeArray& a, bool writes, const char* name) {
  if (!a) return nullptr;
  require(holds<T>(*a) && a->ndim() == logits.ndim() && (!writes || a->writeable()), name);
  for (int d = 0; d < logits.ndim(); ++d) {
    require(a->shape(d) == logits.shape(d), name);
    require(a->shape(d) < 2 || a->strides(d) / int64_t(sizeof(T)) == logits.strides(d) / logits.itemsize(), name);
  }
  return static_cast<T*>(const_cast<void*>(a->data()));
}

template <class T> T* rows_of(const MaybeArray& a, int64_t rows, const char* name) {
  if (a) require(a->writeable(), name);
  return const_cast<T*>(data_of<T>(a, rows, name));
}

struct TermArrays {
  MaybeArray out, second, probabilities, v, u, target, weight, positive, upstream, second_upstream, value, second_value,
      hit;
};

template <class S>
double run_loss_typed(int loss, const py::array& logits, int axis, const TermArrays& a, int64_t ignore_index,
                      double scale, double second_scale, const rules::Options& options) {
  using T = ValueOf<S>;
  constexpr int64_t size = sizeof(S);
  const int ndim = static_cast<int>(logits.ndim());
  require(axis >= 0 && axis < ndim, "axis");
  int64_t rows = 1;
  TermCall<S> call{};
  call.x = static_cast<const S*>(logits.data());
  for (int d = 0; d < ndim; ++d) {
    const int64_t n = logits.shape(d), stride = logits.strides(d) / size;
    require(n < 2 || logits.strides(d) % size == 0, "logits: strides that are multiples of the item size");
    if (d == axis) {
      call.classes = n, call.x_class = stride;
    } else {
      call.axes.add({n, stride, stride});
      rows *= n;
    }
  }
  require(call.classes > 0, "logits: at least one class");
  call.out = data_like<S>(logits, a.out, true, "out: like the logits");
  call.second = data_like<T>(logits, a.second, true, "second: like the logits, of the loss's dtype");
  call.probabilities = data_like<T>(logits, a.probabilities, false, "probabilities: like the logits");
  call.v = data_like<T>(logits, a.v, false, "v: like the logits");
  call.u = data_like<T>(logits, a.u, false, "u: like the logits");
  const Integers integers = integers_of(a.target, rows);
  call.target = integers.data, call.target_bytes = integers.bytes, call.target_signed = integers.is_signed;
  call.ignore_index = ignore_index;
  call.weight = data_of<T>(a.weight, call.classes, "weight: one number for each class, of the loss's dtype");
  call.positive = data_of<T>(a.positive, call.classes, "positive: one number for each class, of the loss's dtype");
  const char* upstream = "upstream: one number for each row, of the loss's dtype";
  call.upstream[0] = data_of<T>(a.upstream, rows, upstream);
  call.upstream[1] = data_of<T>(a.second_upstream, rows, upstream);
  call.scale[0] = scale, call.scale[1] = second_scale;
  call.options = options;
  const char* value = "value: one number for each row, of the loss's dtype";
  call.value[0] = rows_of<T>(a.value, rows, value), call.value[1] = rows_of<T>(a.second_value, rows, value);
  if (a.hit) {
    require(py::isinstance<py::array_t<bool>>(*a.hit) && is_contiguous(*a.hit) && a.hit->size() == rows &&
                a.hit->writeable() && (call.target || call.probabilities),
            "hit: one bool for each row");
    call.hit = static_cast<uint8_t*>(const_cast<void*>(a.hit->data()));
  }
  const InstructionSet& set = current_set();
  py::gil_scoped_release without_gil;
  return run_terms(set, loss, call);
}

double run_loss(int loss, const py::array& logits, int axis, const py::kwargs& given) {
  require(loss >= 0 && loss < rules::Losses::size, "loss");
  TermArrays a;
  const std::pair<const char*, MaybeArray*> places[] = {{"out", &a.out},
                                                        {"second", &a.second},
                                                        {"probabilities", &a.probabilities},
                                                        {"v", &a.v},
                                                        {"u", &a.u},
                                                        {"target", &a.target},
                                                        {"weight", &a.weight},
                                                        {"positive", &a.positive},
                                                        {"upstream", &a.upstream},
                                                        {"second_upstream", &a.second_upstream},
                                                        {"value", &a.value},
                                                        {"second_value", &a.second_value},
                                                        {"hit", &a.hit}};
  int64_t ignore_index = -1;
  double scale = 1, second_scale = 1;
  rules::Options options;
  for (const auto& [key, value] : given) {
    const std::string name = py::cast<std::string>(key);
    const auto place = std::find_if(std::begin(places), std::end(places), [&](auto& p) { return name == p.first; });
    if (place != std::end(places)) {
      require(value.is_none() || py::isinstance<py::array>(value), "arrays: ndarrays");
      if (!value.is_none()) *place->second = py::reinterpret_borrow<py::array>(value);
    } else if (name == "ignore_index") {
      ignore_index = py::cast<int64_t>(value);
    } else if (name == "scale") {
      scale = py::cast<double>(value);
    } else if (name == "second_scale") {
      second_scale = py::cast<double>(value);
    } else {
      require(name == "options", "an argument of run_loss");
      options = options_of(py::cast<py::dict>(value));
    }
  }
  const auto run_as = [&](auto storage) {
    return run_loss_typed<decltype(storage)>(loss, logits, axis, a, ignore_index, scale, second_scale, options);
  };
  if (holds<float>(logits)) return run_as(float());
  if (holds<double>(logits)) return run_as(double());
  if (holds<Float16>(logits)) return run_as(Float16());
  require(holds<BFloat16>(logits), "logits: float16, bfloat16, float32 or float64");
  return run_as(BFloat16());
}

template <class... Loss> py::dict list_losses(rules::List<Loss...>) {
  py::dict index;
  int i = 0;
  ((index[Loss::name] = i++), ...);
  return index;
}

// The calls that are made most often, and on the smallest arrays: C-contiguous logits of float32 or float64 with the
// classes last; contiguous targets of int64 or int32, no weights, the reduction "mean" or "sum". Their arguments are
// checked in a few comparisons, without pybind11's dispatch; whatever is not plain is answered with None, for Python to
// look at closely and to say what is wrong.
struct PlainArray {
  const py::detail::PyArray_Proxy* array = nullptr;
  int type = -1;

  // Only exact ndarrays, contiguous, aligned and of native byte order.
  explicit PlainArray(PyObject* object) {
    const auto& api = py::detail::npy_api::get();
    if (Py_TYPE(object) != api.PyArray_Type_) return;
    array = py::detail::array_proxy(object);
    constexpr int wanted = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    const auto* descr = py::detail::array_descriptor_proxy(array->descr);
    if ((array->flags & wanted) == wanted && descr->byteorder != '>') type = descr->type_num;
  }
  int64_t size() const {
    int64_t n = 1;
    for (int d = 0; d < array->nd; ++d) n *= array->dimensions[d];
    return n;
  }
  bool is_apart_from(const PlainArray& other) const {
    return array->data + bytes() <= other.array->data || other.array->data + other.bytes() <= array->data;
  }
  // Whether this one may be written over the other: alike, and either the very same memory or apart from it.
  bool replaces(const PlainArray& other) const {
    if (type != other.type || array->nd != other.array->nd) return false;
    if (!(array->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) return false;
    if (!std::equal(array->dimensions, array->dimensions + array->nd, other.array->dimensions)) return false;
    return array->data == other.array->data || is_apart_from(other);
  }
  // Of those that are used: logits are float32 or float64, targets int64 or int32.
  int64_t bytes() const { return size() * (is_float64() || is_int64() ? 8 : 4); }
  bool is_float32() const { return type == py::dtype::num_of<float>(); }
  bool is_float64() const { return type == py::dtype::num_of<double>(); }
  bool is_int64() const { return type == py::dtype::num_of<int64_t>(); }
  bool is_int32() const { return type == py::dtype::num_of<int32_t>(); }
  bool is_logits() const {
    return (is_float32() || is_float64()) && array->nd > 0 && array->dimensions[array->nd - 1] > 0;
  }
  int64_t classes() const { return array->dimensions[array->nd - 1]; }
  int64_t rows() const { return size() / classes(); }
  std::vector<py::ssize_t> shape(int dimensions) const { return {array->dimensions, array->dimensions + dimensions}; }
};

template <class T> Call<T> plain_call(const PlainArray& logits) {
  Call<T> call{};
  call.x = reinterpret_cast<const T*>(logits.array->data);
  call.classes = logits.classes(), call.x_class = call.out_class = 1;
  call.axes.add({logits.rows(), call.classes, call.classes});
  return call;
}

// The given output, or a new array.
template <class T> py::object plain_output(const PlainArray& logits, PyObject* given, Call<T>& call) {
  if (given) {
    call.out = reinterpret_cast<T*>(py::detail::array_proxy(given)->data);
    return py::reinterpret_borrow<py::object>(given);
  }
  py::array_t<T> made(logits.shape(logits.array->nd));
  call.out = made.mutable_data();
  return std::move(made);
}

// Small calls are sooner done than the lock is given away and taken back.
template <class Compute> auto plain_compute(const PlainArray& logits, const Compute& compute) {
  if (logits.size() < 4096) return compute();
  py::gil_scoped_release without_gil;
  return compute();
}

template <class T> PyObject* scalar_of(double value) {
  static PyObject* const scalar_type = py::object(py::dtype::of<T>().attr("type")).release().ptr();
  const auto number = py::reinterpret_steal<py::object>(PyFloat_FromDouble(value));
  return PyObject_CallOneArg(scalar_type, number.ptr());
}

template <class T>
PyObject* plain_cross_entropy_of(const PlainArray& logits, const PlainArray& target, int64_t ignore_index, bool mean,
                                 double denominator, bool gradient, PyObject* given_out) {
  static const auto tasks = list_tasks(rules::Tasks{});
  static const auto task_named = [](const char* name) {
    return static_cast<int>(
        std::find_if(tasks.begin(), tasks.end(), [=](auto& t) { return std::strcmp(t.name, name) == 0; }) -
        tasks.begin());
  };
  static const int value_task = task_named("cross_entropy"), gradient_task = task_named("cross_entropy_and_grad");

  const int bytes = target.is_int64() ? 8 : 4;
  double total = 0;
  auto call = plain_call<T>(logits);
  const py::object out = gradient ? plain_output(logits, given_out, call) : py::object();
  const bool valid = plain_compute(logits, [&] {
    const auto targets =
        check_targets<T>(target.array->data, bytes, true, logits.rows(), call.classes, ignore_index, nullptr);
    if (targets.first_wrong >= 0) return false;
    if (denominator == 0) denominator = mean ? static_cast<double>(targets.count) : 1;
    call.target = target.array->data, call.target_bytes = bytes, call.target_signed = true;
    call.ignore_index = ignore_index;
    call.scale = 1 / denominator;
    total = run_task(current_set(), gradient ? gradient_task : value_task, call);
    return true;
  });
  if (!valid) Py_RETURN_NONE;
  auto loss = py::reinterpret_steal<py::object>(scalar_of<T>(total / denominator));
  if (!loss || !gradient) return loss.release().ptr();
  return py::make_tuple(std::move(loss), out).release().ptr();
}

template <class F> PyObject* with_python_errors(const F& f) {
  try {
    return f();
  } catch (const py::error_already_set& error) {
    py::error_already_set(error).restore();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
  }
  return nullptr;
}

// plain_cross_entropy(logits, target, ignore_index, reduction, denominator, gradient, out)
PyObject* plain_cross_entropy(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return with_python_errors([=]() -> PyObject* {
    if (n != 7 || !PyLong_CheckExact(args[2]) || !PyUnicode_CheckExact(args[3])) Py_RETURN_NONE;
    const PlainArray logits(args[0]), target(args[1]);
    if (!logits.is_logits() || !(target.is_int64() || target.is_int32())) Py_RETURN_NONE;
    const auto *x = logits.array, *y = target.array;
    if (y->nd != x->nd - 1 || !std::equal(y->dimensions, y->dimensions + y->nd, x->dimensions)) Py_RETURN_NONE;
    int overflow = 0;
    const int64_t ignore_index = PyLong_AsLongLongAndOverflow(args[2], &overflow);
    const bool mean = PyUnicode_CompareWithASCIIString(args[3], "mean") == 0;
    if (overflow || !(mean || PyUnicode_CompareWithASCIIString(args[3], "sum") == 0)) Py_RETURN_NONE;
    if (args[4] != Py_None && !(PyFloat_CheckExact(args[4]) && PyFloat_AS_DOUBLE(args[4]) > 0)) Py_RETURN_NONE;
    const double denominator = args[4] == Py_None ? 0 : PyFloat_AS_DOUBLE(args[4]);
    const bool gradient = args[5] == Py_True;
    PyObject* const out = args[6] == Py_None ? nullptr : args[6];
    if (out && !(PlainArray(out).replaces(logits) && PlainArray(out).is_apart_from(target))) Py_RETURN_NONE;
    const auto compute = logits.is_float32() ? plain_cross_entropy_of<float> : plain_cross_entropy_of<double>;
    return compute(logits, target, ignore_index, mean, denominator, gradient, out);
  });
}

template <class T> PyObject* plain_rows_of(int task, const TaskInfo& info, const PlainArray& logits, PyObject* given) {
  auto call = plain_call<T>(logits);
  call.scale = 1, call.ignore_index = -1;
  py::object result;
  T single = 0;
  const int dimensions = logits.array->nd - 1;
  if (info.has_output) {
    result = plain_output(logits, given, call);
  } else if (dimensions == 0) {
    call.value = &single;
  } else {
    py::array_t<T> made(logits.shape(dimensions));
    call.value = made.mutable_data();
    result = std::move(made);
  }
  plain_compute(logits, [&] { return run_task(current_set(), task, call); });
  return result ? result.release().ptr() : scalar_of<T>(static_cast<double>(single));
}

// plain_rows(task, x, out): a task without a target
PyObject* plain_rows(PyObject*, PyObject* const* args, Py_ssize_t n) {
  return with_python_errors([=]() -> PyObject* {
    static const auto tasks = list_tasks(rules::Tasks{});
    const int64_t task = n == 3 && PyLong_CheckExact(args[0]) ? PyLong_AsLongLong(args[0]) : -1;
    require(task >= 0 && task < rules::Tasks::size && !tasks[static_cast<size_t>(task)].has_target, "task");
    const PlainArray logits(args[1]);
    PyObject* const out = args[2] == Py_None ? nullptr : args[2];
    if (!logits.is_logits() || (out && !PlainArray(out).replaces(logits))) Py_RETURN_NONE;
    const auto compute = logits.is_float32() ? plain_rows_of<float> : plain_rows_of<double>;
    return compute(static_cast<int>(task), tasks[static_cast<size_t>(task)], logits, out);
  });
}

template <class T> double run_limit_typed(const std::string& method, const py::array& x, const MaybeArray& out) {
  T* to = const_cast<T*>(data_of<T>(out, x.size(), "out: a contiguous array like x"));
  const T* from = static_cast<const T*>(x.data());
  py::gil_scoped_release without_gil;
  return run_limit(method, from, to, x.size());
}

double limit(const std::string& method, const py::array& x, const MaybeArray& out) {
  const auto& methods = limit_methods();
  const auto found = std::find_if(methods.begin(), methods.end(), [&](auto& m) { return method == m.name; });
  require(found != methods.end(), "method: one of LIMITS");
  require(is_contiguous(x), "x: contiguous");
  require((found->kind == LimitKind::read) != out.has_value(), "out: for a copy or an update, no other");
  require(!out || out->writeable(), "out: writeable");
  if (holds<float>(x)) return run_limit_typed<float>(method, x, out);
  require(holds<double>(x), "x: float32 or float64");
  return run_limit_typed<double>(method, x, out);
}

template <class T> py::array exp_typed(const py::array& x) {
  require(is_contiguous(x), "x: contiguous");
  py::array_t<T> y(x.size());
  current_set().kernels<T>().exp(static_cast<const T*>(x.data()), y.mutable_data(), x.size());
  return std::move(y);
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  try {
    init_threads();
    init_dispatch();
  } catch (const std::invalid_argument& error) {
    throw py::import_error(error.what());
  }
  m.doc() = "The compiled kernels of mlefast. Private: use the functions of mlefast.";

  // A task is named by its place in rules::Tasks.
  const auto tasks = list_tasks(rules::Tasks{});
  py::dict index;
  for (size_t i = 0; i < tasks.size(); ++i) index[tasks[i].name] = i;
  m.attr("TASKS") = index;

  m.def("run", &run, py::arg("task"), py::arg("logits").noconvert(), py::arg("axis"), py::arg("out").noconvert(),
        py::arg("value").noconvert(), py::arg("target").noconvert(), py::arg("ignore_index"),
        py::arg("weight").noconvert(), py::arg("upstream").noconvert(), py::arg("scale"),
        "Run a task over every row; the sum of its values.");
  m.attr("LOSSES") = list_losses(rules::Losses{});
  m.def("run_loss", &run_loss, py::arg("loss"), py::arg("logits").noconvert(), py::arg("axis"),
        "Run a loss of LOSSES over every row, with the arrays and options given; the sum of its values.");
  m.def("check_targets", &check, py::arg("target").noconvert(), py::arg("classes"), py::arg("ignore_index"),
        py::arg("weight").noconvert(),
        "(position of the first target that is out of range or -1, rows not ignored, sum of their weights).");
  static PyMethodDef plain[] = {
      {"plain_cross_entropy", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&plain_cross_entropy)),
       METH_FASTCALL, "The loss, or (loss, gradient), of plain arguments; None for any others."},
      {"plain_rows", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&plain_rows)), METH_FASTCALL,
       "The result of a task of TASKS without a target, of plain arguments; None for any others."},
      {nullptr, nullptr, 0, nullptr}};
  if (PyModule_AddFunctions(m.ptr(), plain) != 0) throw py::error_already_set();
  m.def(
      "exp",
      [](const py::array& x) {
        require(holds<float>(x) || holds<double>(x), "x: float32 or float64");
        return holds<float>(x) ? exp_typed<float>(x) : exp_typed<double>(x);
      },
      py::arg("x").noconvert(), "exp(x) for x <= 0, by the current instruction set.");

  py::dict limits;
  for (const auto& method : limit_methods())
    limits[method.name] = std::array<const char*, 3>{"read", "copy", "update"}[static_cast<size_t>(method.kind)];
  m.attr("LIMITS") = limits;
  m.def("run_limit", &limit, py::arg("method"), py::arg("x").noconvert(), py::arg("out").noconvert(),
        "What memory allows: read x, copy it to out, or update out; the sum of what was read.");

  add_linear_model(m);
  add_training(m);
  add_products(m);
  add_sparse(m);

  m.def("isas", [] {
    std::vector<std::string> names;
    for (const auto* set : usable_sets()) names.emplace_back(set->name);
    return names;
  });
  m.def("isa", [] { return current_set().name; });
  m.def("set_isa", &choose_set, py::arg("name"));
  m.def("threading_layer", &threading_layer);
  m.def("get_num_threads", &thread_limit);
  m.def("set_num_threads", &set_thread_limit, py::arg("threads"));
}
