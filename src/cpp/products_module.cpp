// Matrix products for Python: a BLAS's gemm is called through its address.
#include <limits>

#include "module.hpp"
#include "products.hpp"

namespace mlefast {
namespace {

template <class T> Matrix<T> matrix_of(const py::array& a, const char* what) {
  constexpr int64_t size = sizeof(T), most = std::numeric_limits<int>::max();
  require(holds<T>(a) && a.ndim() == 2 && reinterpret_cast<uintptr_t>(a.data()) % alignof(T) == 0, what);
  const int64_t rows = a.shape(0), columns = a.shape(1);
  require(rows > 0 && columns > 0 && rows <= most && columns <= most, what);
  require(a.strides(0) % size == 0 && a.strides(1) % size == 0, what);
  Matrix<T> m{static_cast<T*>(const_cast<void*>(a.data())), a.strides(0) / size, a.strides(1) / size};
  // NumPy gives a side of length 1 any stride; a BLAS wants one that holds the other side.
  if (columns == 1) m.column = 1;
  if (rows == 1) m.row = m.column == 1 ? columns : 1;
  require((m.column == 1 && m.row >= columns && m.row <= most) || (m.row == 1 && m.column >= rows && m.column <= most),
          what);
  return m;
}

template <class T>
void gemm_typed(uintptr_t address, double alpha, const py::array& a, const py::array& b, double beta,
                const py::array& c, bool in_tiles) {
  Product<T> product{a.shape(0), a.shape(1), c.shape(1), {}, {}, {}, static_cast<T>(alpha), static_cast<T>(beta)};
  product.a = matrix_of<T>(a, "a: a matrix of the dtype of c, with strides of contiguous rows or columns");
  product.b = matrix_of<T>(b, "b: a matrix of the dtype of c, with strides of contiguous rows or columns");
  product.c = matrix_of<T>(c, "c: a matrix of contiguous rows");
  require(product.c.column == 1, "c: a matrix of contiguous rows");
  const auto gemm = reinterpret_cast<Gemm<T>*>(address);
  py::gil_scoped_release without_gil;
  in_tiles ? multiply_in_tiles(gemm, product) : multiply(gemm, product);
}

void gemm(uintptr_t address, double alpha, const py::array& a, const py::array& b, double beta, const py::array& c,
          bool in_tiles) {
  require(address != 0 && c.writeable() && a.ndim() == 2 && b.ndim() == 2 && c.ndim() == 2, "a, b, c: matrices");
  require(a.shape(0) == c.shape(0) && b.shape(1) == c.shape(1) && a.shape(1) == b.shape(0), "a, b, c: shapes that fit");
  if (holds<float>(c)) return gemm_typed<float>(address, alpha, a, b, beta, c, in_tiles);
  require(holds<double>(c), "c: float32 or float64");
  gemm_typed<double>(address, alpha, a, b, beta, c, in_tiles);
}

}  // namespace

void add_products(py::module_& m) {
  m.def("gemm", &gemm, py::arg("address"), py::arg("alpha"), py::arg("a").noconvert(), py::arg("b").noconvert(),
        py::arg("beta"), py::arg("c").noconvert(), py::arg("in_tiles"),
        "c = alpha a b + beta c, by a BLAS's gemm for the dtype at this address: in one call, or in tiles that our "
        "threads share.");
}

}  // namespace mlefast
