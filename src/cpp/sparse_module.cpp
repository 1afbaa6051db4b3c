// Products of sparse matrices for Python.
#include <string>

#include "module.hpp"
#include "sparse.hpp"

namespace mlefast {
namespace {

std::string received(const py::array& a) {
  return ": received " + py::str(a.dtype()).cast<std::string>() + " of shape " +
         py::str(a.attr("shape")).cast<std::string>() + (a.writeable() ? "" : ", read-only");
}

template <class T> const T* vector(const py::array& a, const char* name, int64_t size = -1) {
  if (holds<T>(a) && a.ndim() == 1 && is_contiguous(a) && (size < 0 || a.size() == size) &&
      reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0)
    return static_cast<const T*>(a.data());
  throw std::invalid_argument(name + received(a) + "; accepted: contiguous " +
                              py::str(py::dtype::of<T>()).cast<std::string>() +
                              (size < 0 ? "" : " of " + std::to_string(size)));
}

template <class T> DenseRows<T> matrix(const py::array& a, int64_t rows, int64_t columns, const char* name) {
  using S = std::remove_const_t<T>;
  constexpr int64_t size = sizeof(T);
  // NumPy gives a side of length 1, and empty arrays, any stride.
  if (holds<S>(a) && a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == columns &&
      reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0 && (std::is_const_v<T> || a.writeable()) &&
      (a.size() == 0 || ((columns == 1 || a.strides(1) == size) &&
                         (rows == 1 || (a.strides(0) % size == 0 && a.strides(0) >= columns * size)))))
    return {static_cast<T*>(const_cast<void*>(a.data())), a.strides(0) / size};
  throw std::invalid_argument(name + received(a) + "; accepted: rows of contiguous " +
                              py::str(py::dtype::of<S>()).cast<std::string>() + " of shape (" + std::to_string(rows) +
                              ", " + std::to_string(columns) + ")" + (std::is_const_v<T> ? "" : ", writeable"));
}

// f(SparseRows) with the types of the arrays.
template <class F>
void with_sparse(const py::array& indptr, const py::array& indices, const py::array& data, int64_t columns,
                 const F& f) {
  require(columns >= 0, "columns: at least 0");
  require(indptr.ndim() == 1 && indptr.size() >= 1, "indptr: a vector of at least 1");
  const auto with_index = [&](auto index, auto value) {
    using I = decltype(index);
    using T = decltype(value);
    const int64_t entries = data.size();
    const SparseRows<T, I> x{
        indptr.size() - 1,      columns, entries, vector<I>(indptr, "indptr"), vector<I>(indices, "indices", entries),
        vector<T>(data, "data")};
    const int64_t row = f(x);
    if (row < 0) return;
    const int64_t entry = wrong_entry(x, row);
    if (entry < 0)
      throw std::invalid_argument("indptr: received " + std::to_string(x.start[row]) + " and " +
                                  std::to_string(x.start[row + 1]) + " for row " + std::to_string(row) +
                                  "; accepted: ascending, from 0 to " + std::to_string(entries));
    throw py::index_error("indices: received " + std::to_string(x.column[entry]) + " in row " + std::to_string(row) +
                          "; accepted: 0 to " + std::to_string(columns - 1));
  };
  const auto with_value = [&](auto value) {
    if (holds<int64_t>(indptr)) return with_index(int64_t(), value);
    with_index(int32_t(), value);
  };
  if (holds<float>(data)) return with_value(float());
  if (holds<double>(data)) return with_value(double());
  throw std::invalid_argument("data" + received(data) + "; accepted: float32 or float64");
}

int64_t outputs_of(const py::array& out) {
  require(out.ndim() == 2, "out: a matrix");
  return out.shape(1);
}

void multiply_arrays(const py::array& indptr, const py::array& indices, const py::array& data, const py::array& dense,
                     const py::array& out, bool add) {
  const int64_t outputs = outputs_of(out);
  require(dense.ndim() == 2, "dense: a matrix");
  with_sparse(indptr, indices, data, dense.shape(0), [&](const auto& x) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(x.value)>>;
    const auto b = matrix<const T>(dense, x.columns, outputs, "dense");
    const auto c = matrix<T>(out, x.rows, outputs, "out");
    py::gil_scoped_release without_gil;
    return multiply(x, b, outputs, c, add);
  });
}

void multiply_transposed_arrays(const py::array& indptr, const py::array& indices, const py::array& data,
                                const py::array& dense, const py::array& out, bool add) {
  const int64_t outputs = outputs_of(out);
  with_sparse(indptr, indices, data, out.shape(0), [&](const auto& x) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(x.value)>>;
    const auto b = matrix<const T>(dense, x.rows, outputs, "dense");
    const auto into = [&](const auto& c) {
      py::gil_scoped_release without_gil;
      return multiply_transposed(x, b, outputs, c, add);
    };
    if (holds<double>(out)) return into(matrix<double>(out, x.columns, outputs, "out"));
    return into(matrix<T>(out, x.columns, outputs, "out"));
  });
}

}  // namespace

void add_sparse(py::module_& m) {
  const auto product = [&](const char* name, const auto& f, const char* doc) {
    m.def(name, f, py::arg("indptr").noconvert(), py::arg("indices").noconvert(), py::arg("data").noconvert(),
          py::arg("dense").noconvert(), py::arg("out").noconvert(), py::arg("add"), doc);
  };
  product("csr_product", &multiply_arrays,
          "Write (or add) the product of a CSR matrix, whose columns are the rows of `dense`, with `dense` to out.");
  product("csr_transposed_product", &multiply_transposed_arrays,
          "Write (or add) the product of a CSR matrix's transpose, whose rows are those of out, with `dense` to out.");
}

}  // namespace mlefast
