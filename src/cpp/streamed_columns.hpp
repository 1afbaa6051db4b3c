// Tiles of rows that lie class by class, whose output is written past the caches: by whole lines, which are not read.
//
// In each class, a tile's rows begin somewhere within a line of the output. Those before them in that line are the last
// ones of the tile before, and have waited for it: in the copy of each class they lie in front of the tile's own, as
// they were before the last pass, and so does what that pass takes of each row. It goes from line to line then, and
// stores what it has in registers. Only where a stretch of runs begins and ends (Run::begins) are there parts of lines.
#pragma once

#include <cstring>

#include "tile.hpp"

namespace mlefast {

template <class Ops, class Tile, class S> class StreamedColumns {
  using T = typename Ops::Value;
  using Vec = typename Ops::Vec;
  static constexpr int lanes = Ops::lanes, W = Tile::rows / lanes, line_vectors = rows_of_line<S> / lanes;
  static constexpr int64_t rows = Tile::rows, line = rows_of_line<S>;
  static_assert(Tile::stored < streamed_numbers);

  T *copy, *numbers;  // of the rows in front and of the tile's: the classes, and what `Tile::store` stores
  T& wants_all;       // of the rows in front: not 0 if all are wanted
  const int64_t classes;

 public:
  // Whether it can be used: a tile fills lines.
  static constexpr bool possible = rows % line == 0 && line % lanes == 0;
  static constexpr int64_t stride = line + rows;

  // `scratch`: stride times classes and streamed_numbers; if no stretch begins with this run, as the run before left
  // it.
  StreamedColumns(T* scratch, int64_t classes_, bool begins)
      : copy(scratch),
        numbers(scratch + classes_ * stride),
        wants_all(numbers[Tile::stored * stride]),
        classes(classes_) {
    if (!begins) return;
    // What is not there is worked on as well, and not written.
    wants_all = 1;
    for (int64_t k = 0; k < classes + Tile::stored; ++k)
      for (int64_t i = 0; i < line; i += lanes) Ops::store(copy + k * stride + i, Ops::set(0));
  }

  // Where a tile's rows are to lie.
  T* tile_rows() const { return copy + line; }

  // A tile that was worked on; `out` is where its first row belongs.
  void write(const Tile& tile, S* out, int64_t out_class, bool is_first) {
    tile.store(numbers + line, stride);
    const bool all = wants_all != 0 && tile.wants_all();
    wants_all = tile.wants_all() ? T(1) : T(0);
    each_class(out, out_class, all, [&](T* all_rows, S* to, int64_t before, Vec(&v)[W]) __attribute__((always_inline)) {
      const bool in_part = is_first && before > 0;
      if (in_part) store_part(to, v, before, line);
      for (int w = in_part ? line_vectors : 0; w < W; ++w) Ops::stream(to + w * lanes, v[w]);
      move_to_front(all_rows);
    });
    for (int k = 0; k < Tile::stored; ++k) move_to_front(numbers + k * stride);
  }

  // What waits still; `out` is where the row behind it belongs.
  void finish(S* out, int64_t out_class) {
    each_class(out, out_class, wants_all != 0,
               [](T*, S* to, int64_t before, Vec(&v)[W]) { store_part(to, v, 0, before); });
    settle_lines();
  }

 private:
  // put(copy, line, before, v) for each class: `before` rows lie in the line before the tile's first one, and v are the
  // final values from that line on.
  template <class Put> MLEFAST_FN void each_class(S* out, int64_t out_class, bool all, const Put& put) {
    using Finisher = typename Tile::Finisher;
    int64_t known = within_line(out);  // mostly the same for all classes
    Finisher finish(numbers + line - known, stride, all);
    for (int64_t c = 0; c < classes; ++c) {
      S* const to = out + c * out_class;
      const int64_t before = within_line(to);
      if (before != known) known = before, finish = Finisher(numbers + line - before, stride, all);
      T* const all_rows = copy + c * stride;
      Vec v[W];
      for (int w = 0; w < W; ++w) v[w] = Ops::load(all_rows + line - before + w * lanes);
      finish(c, v);
      put(all_rows, to - before, before, v);
    }
  }

  // Elements [begin, end) of a line.
  static void store_part(S* to, const Vec (&v)[W], int64_t begin, int64_t end) {
    S buffer[line];
    for (int w = 0; w < line_vectors; ++w) Ops::store(buffer + w * lanes, v[w]);
    std::memcpy(to + begin, buffer + begin, static_cast<size_t>(end - begin) * sizeof(S));
  }
  static MLEFAST_FN void move_to_front(T* all_rows) {
    for (int64_t i = 0; i < line; i += lanes) Ops::store(all_rows + i, Ops::load(all_rows + rows + i));
  }
};

}  // namespace mlefast
