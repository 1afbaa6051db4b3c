#include "driver.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "pieces.hpp"
#include "threads.hpp"
#include "vectors.hpp"

namespace mlefast {
namespace {

constexpr int64_t target_chunk = 65536;
// Of large arrays whose rows lie class by class: at both ends of a chunk each class has a line of the output in part,
// and at the start logits that nobody has asked for. (Measured at 150 and 1000 classes: chunks of 262144 elements, 1728
// and 256 rows, took 1.0 to 1.15 of the time of twice as many.)
constexpr int64_t streamed_chunk_rows = 4096, most_streamed_chunk = 1 << 20;
constexpr int64_t cached_bytes = 1 << 22;    // more than these are taken to come from memory
constexpr int64_t streamed_bytes = 1 << 24;  // an output of more than these is not left in a cache for who reads it
// The same for rows of contiguous classes, whose stores wait for each other less. Measured: with AVX-512 on an Intel
// Xeon, 1000 classes gain nothing from memory and lose a third if a cache holds the output, 2000 and more gain 11 to
// 28 %, also where it might be held; on an AMD EPYC with 32 MB of third-level cache, 700 classes gain a sixth, 1000 a
// third, 500 nothing, strips of 100 a tenth and of 300 a fifth. With AVX-512, rows that could be worked on in strips
// are streamed one by one from the same length on: on an AMD EPYC of family 25 strips took 1.2 to 1.8 of the time at
// 700 and 1000 classes, because nothing is read while they write.
constexpr int64_t streamed_rows_bytes = 1 << 25, streamed_row_bytes = 6144, least_streamed_row_bytes = 2560;

int64_t second_level_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  const int64_t known = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (known > 0) return known;
#endif
  return 1 << 19;
}
// The kernel knows better than sysconf, which says 320 MB of an AMD EPYC whose processors share 32. 0 if nobody knows.
int64_t third_level_cache() {
  static const int64_t known = [] {
    int64_t kilobytes = 0;
    std::ifstream("/sys/devices/system/cpu/cpu0/cache/index3/size") >> kilobytes;
    return kilobytes << 10;
  }();
  return known;
}

template <class S> class Driver {
  using T = ValueOf<S>;
  const Call<S>& call;
  const StorageKernels<S>& set;
  const Kernels<S>& kernel;
  const RowAxis last;
  const int64_t inner, outer;  // rows along the last axis, and how many times that is repeated

  // Of a thread's rows, which a cache holds until they are streamed: its own, or its share of a quarter of the third
  // level. Only large outputs are streamed; other calls need not ask for the threads.
  const int64_t staged_bytes;
  enum class Form { rows, packed, columns, copied } form;
  int64_t chunk_rows;     // rows that a thread takes at a time
  int64_t run_rows;       // rows of one kernel call
  int64_t scratch_size;   // elements for each thread
  int64_t copied_at = 0;  // where in the scratch copied rows lie, in elements of T

 public:
  Driver(const InstructionSet& isa, int task, const Call<S>& c)
      : call(c),
        set(isa.kernels<S>()),
        kernel(set.task[task]),
        last(c.axes.last()),
        inner(last.rows),
        outer(c.axes.outer()),
        staged_bytes(bytes() > streamed_bytes ? std::max(own_bytes(), third_level_cache() / 4 / thread_limit()) : 0) {
    const bool contiguous_rows = call.x_class == 1 && (!call.out || call.out_class == 1);
    const bool contiguous_columns = last.x_stride == 1 && (!call.out || last.out_stride == 1);
    form = contiguous_rows || call.classes == 1                      ? contiguous_form(inner)
           : contiguous_columns && call.classes <= most_lane_classes ? Form::columns
                                                                     : Form::copied;
    const int64_t together = tile_rows();
    const bool large = form == Form::columns && bytes() > streamed_bytes;
    const int64_t most =
        large ? std::clamp(streamed_chunk_rows * call.classes, most_chunk, most_streamed_chunk) : most_chunk;
    const int64_t chunk = std::clamp(outer * inner * call.classes / 64, least_chunk, most);
    chunk_rows = std::max<int64_t>(1, chunk / call.classes / together) * together;
    run_rows = std::min(chunk_rows, piece_rows);
    scratch_size = scratch_of(form);
    if (form == Form::copied) {
      run_rows = std::min(run_rows, std::max<int64_t>(1, 16384 / call.classes));
      copied_at = (std::max(scratch_of(Form::packed), scratch_of(Form::rows)) + 15) / 16 * 16;
      scratch_size = copied_at + run_rows * call.classes;
    }
  }

  double run() const {
    // Chunks of several rows have sums of their own, which must not depend on the number of threads.
    const bool splits = call.classes > segment_length && form == Form::rows && chunk_rows == 1;
    if (splits && inner * outer < thread_limit()) return run_split();
    const Chunks chunks(inner, outer, chunk_rows);
    const Team team(std::min(chunks.count, 1 + inner * outer * call.classes / thread_elements));
    Buffer<T, 512> scratch(stride() * static_cast<size_t>(team.size()) + line);
    return chunks.sum(team, [&](int64_t run, int64_t begin, int64_t end, int thread) {
      return run_some(run, begin, end, part_of(scratch.data(), thread));
    });
  }

 private:
  int64_t blocks() const { return (call.classes + block_length<T> - 1) / block_length<T>; }

  bool few_classes() const { return is_short<T>(call.classes, set.lanes); }
  // Rows are worked on together if a vector's lanes are filled at least by half, unless each is better written while
  // the next is read. (In place both forms take as long; the same one gives the same bits.)
  Form contiguous_form(int64_t rows) const {
    const bool alone = long_vectors() && call.out && row_bytes() >= least_streamed_row_bytes && outgrows_caches();
    return few_classes() && 2 * rows >= set.lanes && !alone ? Form::packed : Form::rows;
  }
  int64_t row_bytes() const { return call.classes * int64_t(sizeof(S)); }
  bool long_vectors() const { return set.lanes * int64_t(sizeof(T)) > 32; }
  // Of the widest tile: four vectors of rows, or one where they are worked on in strips.
  int64_t tile_rows() const {
    if (form == Form::columns) return 64;
    if (form != Form::packed) return 1;
    return call.classes > packed_limit ? set.lanes : 64;
  }
  // Halves must be widened. Others gain if they come from memory, where a tile lies in as many pages as there are
  // classes: each is visited once, not three times, and asked for in time. With an output the same is true of a cache,
  // unless classes are few: those that are a power of two apart push each other out of the first level. (Measured: a
  // gradient takes 0.85 of the time at 10 classes, 0.8 at 32; AVX2 loses a fifth with softmax at 10 and 20 classes.)
  bool stages_columns() const {
    if (is_half<S>) return true;
    const bool pays_in_cache = call.out && call.classes >= (long_vectors() ? 8 : 64);
    return (bytes() > cached_bytes || pays_in_cache) && 4 * set.lanes * call.classes <= staged_columns<T>;
  }
  bool streams_output() const {
    if (bytes() <= streamed_bytes || !call.out) return false;
    if (form != Form::columns) return call.out != call.x;
    return (call.out != call.x || crowds()) && reinterpret_cast<uintptr_t>(call.out) % sizeof(S) == 0;
  }
  // Classes that are pages apart share few sets of a cache: what was read has left it when it is to be overwritten.
  // (Measured in place: streamed, 128 to 1000 classes take 0.7 to 0.9 of the time, but 1.1 where they do not crowd; 21
  // gain nothing.)
  bool crowds() const { return call.classes >= 64 && call.out_class * int64_t(sizeof(S)) % 4096 == 0; }
  // What a thread's own cache holds of its rows.
  static int64_t own_bytes() {
    static const int64_t bytes = second_level_cache() / 4 * 3;
    return bytes;
  }
  bool fit(int64_t rows, int64_t room) const { return rows * call.classes * int64_t(sizeof(T)) <= room; }
  // A row is finished while the next one is scanned, if it is still in cache then. Vectors of 32 bytes have too few
  // registers for a second pass beside exponentials: they lose by it. (1000 classes with a gradient, in cache and from
  // memory: 13 %. log_softmax's second pass hides behind a stream: 20 % less.)
  bool lags() const {
    return fit(2, streams_rows() ? staged_bytes : own_bytes()) && (long_vectors() || (streams_rows() && !kernel.waits));
  }
  // Whether no cache holds the logits and another array of their size.
  bool outgrows_caches() const { return 2 * bytes() > std::max(third_level_cache(), streamed_rows_bytes); }
  bool streams_rows() const {
    return form == Form::rows && streams_output() && fit(1, staged_bytes) &&
           ((row_bytes() >= streamed_row_bytes && bytes() > streamed_rows_bytes) ||
            (row_bytes() >= least_streamed_row_bytes && outgrows_caches()));
  }
  bool streams_strips() const { return streams_output() && outgrows_caches() && last.out_stride == call.classes; }
  int64_t bytes() const { return outer * inner * row_bytes(); }
  int64_t scratch_of(Form f) const {
    if (f == Form::packed) {
      const int64_t buffer = streams_strips() ? LineWriter::room(row_bytes()) / int64_t(sizeof(T)) : 0;
      return few_classes() ? 4 * set.lanes * whole_lines<T>(call.classes) + buffer : 0;
    }
    const int64_t tile = set.lanes * call.classes;  // a vector of rows
    if (f == Form::columns) {
      if (!stages_columns()) return 0;
      if (4 * tile > staged_columns<T>) return tile;
      return streams_output() ? (call.classes + streamed_numbers) * (4 * set.lanes + rows_of_line<S>) : 4 * tile;
    }
    if (f != Form::rows) return 0;
    const bool staged = kernel.waits && (is_half<S> || streams_rows());
    return 2 * blocks() + (staged ? (lags() ? 2 : 1) * whole_lines<T>(call.classes) : 0);
  }

  // One allocation for all threads, each part on cache lines of its own.
  static constexpr size_t line = 64 / sizeof(T);
  size_t stride() const { return (static_cast<size_t>(scratch_size) + 2 * line - 1) / line * line; }
  T* part_of(T* scratch, int thread) const {
    const auto base = (reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64;
    return reinterpret_cast<T*>(base) + stride() * static_cast<size_t>(thread);
  }

  // Rows [begin, end) of one run, a piece at a time.
  double run_some(int64_t run_index, int64_t begin, int64_t end, T* scratch) const {
    const RowAxis offset = call.axes.offset(run_index);
    double total = 0;
    int64_t targets[piece_rows];
    for (int64_t row = begin; row < end; row += run_rows) {
      const int64_t n = std::min(run_rows, end - row), position = run_index * inner + row;
      double sum = 0;
      Run<S> run = make_run(position, n, targets);
      run.x = call.x + offset.x_stride + row * last.x_stride;
      run.out = call.out ? call.out + offset.out_stride + row * last.out_stride : nullptr;
      run.begins = row == begin, run.ends = row + n == end;
      if (form == Form::columns) {  // the others do not look so far ahead
        if (row + n < end)
          run.next_x = run.x + n * last.x_stride;
        else if (run_index + 1 < outer)
          run.next_x = call.x + call.axes.offset(run_index + 1).x_stride + begin * last.x_stride;
      }
      run.total = &sum;
      switch (form) {
        case Form::rows:
          kernel.rows(run, scratch);
          break;
        case Form::packed:
          kernel.packed(run, scratch);
          break;
        case Form::columns:
          kernel.columns(run, stages_columns() ? scratch : nullptr);
          break;
        case Form::copied:
          run_copied(run, scratch);
          break;
      }
      total += sum;
    }
    return total;
  }

  Run<S> make_run(int64_t position, int64_t n, int64_t* targets) const {
    Run<S> run{};
    run.rows = n, run.classes = call.classes;
    run.x_row = last.x_stride, run.x_class = call.x_class;
    run.out_row = last.out_stride, run.out_class = call.out_class;
    if (call.target) {
      with_integers(call.target, call.target_bytes, call.target_signed,
                    [&](auto* target) { widen(target + position, n, targets); });
      run.target = targets;
    }
    if (call.target && bytes() > cached_bytes) {
      run.next_target = static_cast<const char*>(call.target) + (position + n) * call.target_bytes;
      run.next_target_bytes = call.target_bytes;
    }
    run.ignore_index = call.ignore_index;
    run.weight = call.weight;
    run.upstream = call.upstream ? call.upstream + position : nullptr;
    run.scale = call.scale;
    run.value = call.value ? call.value + position : nullptr;
    run.streams = form == Form::rows ? streams_rows() : form == Form::packed ? streams_strips() : streams_output();
    run.lags = lags();
    return run;
  }

  // Neither classes nor rows are contiguous, or not alike in x and out: through a contiguous copy of a few rows.
  void run_copied(Run<S> run, T* scratch) const {
    const Run<S> origin = run;
    S* copy = reinterpret_cast<S*>(scratch + copied_at);
    for (int64_t r = 0; r < run.rows; ++r)
      for (int64_t c = 0; c < run.classes; ++c)
        copy[r * run.classes + c] = origin.x[r * origin.x_row + c * origin.x_class];
    run.streams = false;
    run.x = copy, run.x_row = run.classes, run.x_class = 1;
    run.out = origin.out ? copy : nullptr, run.out_row = run.classes, run.out_class = 1;
    contiguous_form(run.rows) == Form::packed ? kernel.packed(run, scratch) : kernel.rows(run, scratch);
    if (!origin.out) return;
    for (int64_t r = 0; r < run.rows; ++r)
      for (int64_t c = 0; c < run.classes; ++c)
        origin.out[r * origin.out_row + c * origin.out_class] = copy[r * run.classes + c];
  }

  // Fewer rows than threads: all threads share each row.
  double run_split() const {
    const int64_t n = call.classes, segments = (n + segment_length - 1) / segment_length;
    const Team team(segments);
    std::vector<Part> parts(static_cast<size_t>(segments));
    std::vector<T> block_max(static_cast<size_t>(blocks())),
        own_stage(is_half<S> && kernel.waits ? static_cast<size_t>(n) : 0);
    double total = 0;
    for (int64_t r = 0; r < inner * outer; ++r) {
      const RowAxis offset = call.axes.offset(r / inner);
      const S* x = call.x + offset.x_stride + r % inner * last.x_stride;
      S* out = call.out ? call.out + offset.out_stride + r % inner * last.out_stride : nullptr;
      T* stage = own_stage.data();
      if constexpr (!is_half<S>) stage = out;
      int64_t label = 0;
      double sum = 0;
      Run<S> run = make_run(r, 1, &label);
      run.x = x, run.out = out, run.total = &sum;
      const Target<T> target = kernel.first_target(run);
      if (target.ignored) {
        if (run.value) *run.value = 0;
        if (out) std::fill(out, out + n, S{});
        continue;
      }
      const auto length = [&](int64_t s) { return std::min(segment_length, n - s * segment_length); };
      team.for_each(segments, [&](int64_t s, int) {
        const int64_t at = s * segment_length;
        parts[static_cast<size_t>(s)] = kernel.scan(x + at, length(s), stage ? stage + at : stage,
                                                    &block_max[static_cast<size_t>(at / block_length<T>)]);
      });
      const Settled settled = kernel.settle(run, target, parts.data(), segments);
      total += sum;
      if (!out) continue;
      team.for_each(segments, [&](int64_t s, int) {
        const int64_t at = s * segment_length;
        kernel.finish(x + at, stage ? stage + at : stage, out + at, length(s),
                      &block_max[static_cast<size_t>(at / block_length<T>)], settled);
      });
      if (target.index >= 0) out[target.index] = from_value<S>(static_cast<T>(settled.at_target));
    }
    return total;
  }
};

// Adds targets [begin, end), up to the first wrong one.
template <class Int, class T>
void check_piece(const Int* all, int64_t begin, int64_t end, int64_t classes, int64_t ignore_index, const T* weight,
                 TargetCheck& check) {
  if (!weight && (ignore_index < 0 || ignore_index >= classes)) {
    uint64_t signs = 0;  // one is set where a target is out of range; without branches, which vectors have not
    for (int64_t i = begin; i < end; ++i) {
      int64_t y;
      widen(all + i, 1, &y);
      signs |= static_cast<uint64_t>(y) | (static_cast<uint64_t>(classes - 1) - static_cast<uint64_t>(y));
    }
    if (signs >> 63 == 0) {
      check.count += end - begin;
      return;
    }
  }
  for (int64_t i = begin; i < end; ++i) {
    int64_t y;
    widen(all + i, 1, &y);
    if (y == ignore_index) continue;
    if (y < 0 || y >= classes) {
      check.first_wrong = i;
      return;
    }
    ++check.count;
    if (weight) check.weight += double(weight[y]);
  }
}

}  // namespace

template <class S> double run_task(const InstructionSet& set, int task, const Call<S>& call) {
  return call.axes.rows() == 0 ? 0 : Driver<S>(set, task, call).run();
}

template <class T>
TargetCheck check_targets(const void* target, int bytes, bool is_signed, int64_t rows, int64_t classes,
                          int64_t ignore_index, const T* weight) {
  const int64_t chunks = (rows + target_chunk - 1) / target_chunk, ignored = ignored_among(is_signed, ignore_index);
  Buffer<TargetCheck, 16> found(static_cast<size_t>(chunks));
  with_integers(target, bytes, is_signed, [&](auto* all) {
    Team(chunks).for_each(chunks, [&](int64_t chunk, int) {
      const int64_t begin = chunk * target_chunk, end = std::min(rows, begin + target_chunk);
      TargetCheck check{-1, 0, 0};
      for (int64_t i = begin; i < end && check.first_wrong < 0; i += piece_rows)
        check_piece(all, i, std::min(end, i + piece_rows), classes, ignored, weight, check);
      found.data()[chunk] = check;
    });
  });
  TargetCheck all{-1, 0, 0};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const TargetCheck& check = found.data()[chunk];
    if (all.first_wrong < 0) all.first_wrong = check.first_wrong;
    all.count += check.count, all.weight += check.weight;
  }
  if (!weight) all.weight = double(all.count);
  return all;
}

template double run_task(const InstructionSet&, int, const Call<float>&);
template double run_task(const InstructionSet&, int, const Call<double>&);
template double run_task(const InstructionSet&, int, const Call<Float16>&);
template double run_task(const InstructionSet&, int, const Call<BFloat16>&);
template TargetCheck check_targets(const void*, int, bool, int64_t, int64_t, int64_t, const float*);
template TargetCheck check_targets(const void*, int, bool, int64_t, int64_t, int64_t, const double*);

}  // namespace mlefast
