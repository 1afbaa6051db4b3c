// Matrix products by a BLAS. In tiles that our threads share, each by one call of a BLAS that uses one thread, the
// result has the same bits for any number of threads, which no BLAS promises of its own, and there is one pool of
// threads, not two that wait for each other in busy loops.
#pragma once

#include <cstdint>

namespace mlefast {

// Fortran's sgemm or dgemm: alpha op(A) op(B) + beta C, by columns.
template <class T>
using Gemm = void(char* op_a, char* op_b, int* m, int* n, int* k, T* alpha, T* a, int* lda, T* b, int* ldb, T* beta,
                  T* c, int* ldc);

template <class T> struct Matrix {
  T* data;
  int64_t row, column;  // strides, in elements; one of them is 1
};

// c (rows, columns) = alpha a (rows, inner) b (inner, columns) + beta c. The rows of c are contiguous. Sizes and
// strides are positive and below 2^31.
template <class T> struct Product {
  int64_t rows, inner, columns;
  Matrix<T> a, b, c;
  T alpha, beta;
};

// One call, whose threads are the BLAS's.
template <class T> void multiply(Gemm<T>* gemm, const Product<T>& product);

// A call for each tile, which our threads share.
template <class T> void multiply_in_tiles(Gemm<T>* gemm, const Product<T>& product);

}  // namespace mlefast
