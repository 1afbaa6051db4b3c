// What the files of the Python module share: arrays whose type and layout is looked at before their memory is touched.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <type_traits>

#include "storage.hpp"

namespace mlefast {

namespace py = pybind11;

using MaybeArray = std::optional<py::array>;

inline void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

inline bool is_contiguous(const py::array& a) { return (a.flags() & py::array::c_style) != 0; }

template <class S> bool holds(const py::array& a) {
  if constexpr (is_half<S>) {  // NumPy knows one of the two; the other comes from ml_dtypes
    const py::dtype dtype = a.dtype();
    if (std::is_same_v<S, Float16>) return dtype.num() == 23 && dtype.byteorder() != '>';
    return dtype.itemsize() == 2 && dtype.num() > 23 && py::str(dtype.attr("name")).equal(py::str("bfloat16"));
  } else {
    return py::isinstance<py::array_t<S>>(a);
  }
}

// The data of an optional contiguous array of `size` numbers of type T.
template <class T> const T* data_of(const MaybeArray& a, int64_t size, const char* name) {
  if (!a) return nullptr;
  require(holds<T>(*a) && is_contiguous(*a) && a->size() == size, name);
  return static_cast<const T*>(a->data());
}

// The memory of a contiguous array of T with the given number of elements.
template <class T> T* memory(const py::array& a, int64_t size, bool writes, const char* name) {
  if (holds<T>(a) && is_contiguous(a) && a.size() == size && (!writes || a.writeable()))
    return static_cast<T*>(const_cast<void*>(a.data()));
  throw std::invalid_argument(std::string(name) + ": received " + py::str(a.dtype()).cast<std::string>() + " of " +
                              std::to_string(a.size()) + " elements" + (is_contiguous(a) ? "" : ", not contiguous") +
                              (a.writeable() ? "" : ", read-only") + "; accepted: contiguous" +
                              (writes ? ", writeable " : " ") + py::str(py::dtype::of<T>()).cast<std::string>() +
                              " of " + std::to_string(size));
}
template <class T> T* memory(const MaybeArray& a, int64_t size, bool writes, const char* name) {
  return a ? memory<T>(*a, size, writes, name) : nullptr;
}

// f(0.0f) or f(0.0): with the type of the array that all others have to follow.
template <class F> void with_type_of(const py::array& a, const char* name, const F& f) {
  if (holds<float>(a)) return f(float());
  if (holds<double>(a)) return f(double());
  throw std::invalid_argument(std::string(name) + ": received " + py::str(a.dtype()).cast<std::string>() +
                              "; accepted: float32 or float64");
}

inline void require_matrix(const py::array& a, const char* what) { require(a.ndim() == 2, what); }

// The smallest arrays are done sooner than the lock is given away and taken back.
template <class F> void without_lock(int64_t elements, const F& f) {
  if (elements < 4096) return f();
  py::gil_scoped_release without_gil;
  f();
}

// Add what linear_module.cpp, products_module.cpp, sparse_module.cpp and training_module.cpp define.
void add_linear_model(py::module_& m);
void add_training(py::module_& m);
void add_products(py::module_& m);
void add_sparse(py::module_& m);

}  // namespace mlefast
