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

// Add what training_module.cpp, products_module.cpp and sparse_module.cpp define.
void add_training(py::module_& m);
void add_products(py::module_& m);
void add_sparse(py::module_& m);

}  // namespace mlefast
