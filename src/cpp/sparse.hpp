// Products of a sparse matrix with dense ones, shared by our threads. Each number of a result is a sum in the order of
// the matrix's entries, so that it has the same bits for any number of threads.
#pragma once

#include <cstdint>

namespace mlefast {

// Compressed rows (CSR): those entries of row r that are not 0 are value[p] in column[p], p from start[r] to
// start[r + 1]. Columns may be in any order and occur more than once. What start and column hold is looked at before
// it is followed: whoever filled them may have erred.
template <class T, class I> struct SparseRows {
  int64_t rows, columns, entries;
  const I* start;   // rows + 1
  const I* column;  // entries
  const T* value;   // entries
};

// Rows of contiguous numbers, `distance` apart.
template <class T> struct DenseRows {
  T* data;
  int64_t distance;
};

// Both return the first row of x whose start or columns are out of range, and that contribute nothing, or -1.

// out (rows, outputs) = x dense (columns, outputs), or added to what is there. Long rows are summed up in float64
// across blocks.
template <class T, class I>
int64_t multiply(const SparseRows<T, I>& x, DenseRows<const T> dense, int64_t outputs, DenseRows<T> out, bool add);

// out (columns, outputs) = x' dense (rows, outputs), or added to what is there. Sums are of type O: a column may have
// as many entries as there are samples.
template <class T, class I, class O>
int64_t multiply_transposed(const SparseRows<T, I>& x, DenseRows<const T> dense, int64_t outputs, DenseRows<O> out,
                            bool add);

// Where row r is wrong: the first of its entries whose column is out of range, or -1 if its start is.
template <class T, class I> int64_t wrong_entry(const SparseRows<T, I>& x, int64_t r);

}  // namespace mlefast
