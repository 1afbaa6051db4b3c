#include "products.hpp"

#include <algorithm>

#include "threads.hpp"

namespace mlefast {
namespace {

// How a side of c is cut: by sizes and the machine, never by how many threads a call may use. Each tile packs both of
// its factors again, so there are no more tiles than processors, and none below two million multiply-adds (about 50
// us).
constexpr int64_t least_side = 32, tile_multiply_adds = 1 << 21;

struct Cut {
  int64_t size, count;
  Cut(int64_t side, int64_t wanted) {
    const int64_t parts = std::max<int64_t>(std::min(wanted, side / least_side), 1);
    size = ((side + parts - 1) / parts + 15) / 16 * 16;  // whole vectors of c, and cache lines of its own
    count = (side + size - 1) / size;
  }
};

}  // namespace

template <class T> void multiply(Gemm<T>* gemm, const Product<T>& p) {
  // To a BLAS, which stores columns, each matrix is its transpose: c' = b' a'.
  int m = static_cast<int>(p.columns), n = static_cast<int>(p.rows), k = static_cast<int>(p.inner);
  char op_b = p.b.column == 1 ? 'N' : 'T', op_a = p.a.column == 1 ? 'N' : 'T';
  int ldb = static_cast<int>(p.b.column == 1 ? p.b.row : p.b.column);
  int lda = static_cast<int>(p.a.column == 1 ? p.a.row : p.a.column), ldc = static_cast<int>(p.c.row);
  T alpha = p.alpha, beta = p.beta;
  gemm(&op_b, &op_a, &m, &n, &k, &alpha, p.b.data, &ldb, p.a.data, &lda, &beta, p.c.data, &ldc);
}

template <class T> void multiply_in_tiles(Gemm<T>* gemm, const Product<T>& p) {
  const double work = static_cast<double>(p.rows) * static_cast<double>(p.inner) * static_cast<double>(p.columns);
  const auto tiles = static_cast<int64_t>(std::clamp(work / tile_multiply_adds, 1.0, double(processors())));
  const bool tall = p.rows >= p.columns;
  const int64_t longer = std::max(p.rows, p.columns), shorter = std::min(p.rows, p.columns);
  const Cut along(longer, tiles), across(shorter, tiles / along.count);
  const Cut by_row = tall ? along : across, by_column = tall ? across : along;

  const auto tile = [&](int64_t index) {
    const int64_t r = index / by_column.count * by_row.size, c = index % by_column.count * by_column.size;
    Product<T> part = p;
    part.rows = std::min(by_row.size, p.rows - r), part.columns = std::min(by_column.size, p.columns - c);
    part.a.data += r * p.a.row, part.b.data += c * p.b.column, part.c.data += r * p.c.row + c;
    multiply(gemm, part);
  };
  const int64_t count = by_row.count * by_column.count;
  const Team team(count);
  team.for_each(count, [&](int64_t index, int) { tile(index); });
}

template void multiply(Gemm<float>*, const Product<float>&);
template void multiply(Gemm<double>*, const Product<double>&);
template void multiply_in_tiles(Gemm<float>*, const Product<float>&);
template void multiply_in_tiles(Gemm<double>*, const Product<double>&);

}  // namespace mlefast
