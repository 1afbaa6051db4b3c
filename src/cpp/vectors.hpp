// Small tools that the kernels share: sums that do not lose digits, the scaling of stored exponentials, prefetches.
#pragma once

#include <cstring>

#include "math.hpp"

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace mlefast {

// A sum over many vectors. float32 terms are added in float64, float64 terms with their rounding errors (Neumaier,
// 1974), so that the error does not grow with the number of terms. The order depends on the terms' positions alone.
template <class Ops, class T = typename Ops::Value> class Sum;

template <class Ops> class Sum<Ops, float> {
  using Double = typename Ops::Double;
  typename Double::Vec part[2] = {Double::set(0), Double::set(0)};

 public:
  MLEFAST_FN void add(typename Ops::Vec v) {
    typename Double::Vec wide[2];
    Ops::widen(v, wide);
    part[0] = part[0] + wide[0], part[1] = part[1] + wide[1];
  }
  MLEFAST_FN void add_once(double x) { part[0] = part[0] + Double::load(&x, 1, 0.0); }
  MLEFAST_FN void multiply(double x) { part[0] = part[0] * Double::set(x), part[1] = part[1] * Double::set(x); }
  MLEFAST_FN double total() const { return Double::reduce_add(part[0] + part[1]); }

  // The sums of the single lanes, times `unit`, rounded once.
  MLEFAST_FN typename Ops::Vec lanes(double unit) const {
    const typename Double::Vec scaled[2] = {part[0] * Double::set(unit), part[1] * Double::set(unit)};
    return Ops::narrow(scaled);
  }
  // And divided by a number for each of them.
  MLEFAST_FN typename Ops::Vec lanes_over(typename Ops::Vec divisor) const {
    typename Double::Vec quotient[2];
    Ops::widen(divisor, quotient);
    for (int i = 0; i < 2; ++i) quotient[i] = part[i] / quotient[i];
    return Ops::narrow(quotient);
  }
};

template <class Ops> class Sum<Ops, double> {
  using Vec = typename Ops::Vec;
  Vec sum = Ops::set(0), error = Ops::set(0);

 public:
  MLEFAST_FN void add(Vec v) {
    const Vec next = sum + v, taken = next - sum;
    error = error + ((sum - (next - taken)) + (v - taken));
    sum = next;
  }
  MLEFAST_FN void add_once(double x) { add(Ops::load(&x, 1, 0.0)); }
  MLEFAST_FN void multiply(double x) { sum = sum * Ops::set(x), error = error * Ops::set(x); }
  MLEFAST_FN double total() const {
    const double all = Ops::reduce_add(sum), rest = Ops::reduce_add(error);
    return rest == rest ? all + rest : all;  // the rounding error of an infinite sum is no number
  }
  MLEFAST_FN Vec lanes(double unit) const { return both() * Ops::set(unit); }
  MLEFAST_FN Vec lanes_over(Vec divisor) const { return both() / divisor; }

 private:
  MLEFAST_FN Vec both() const { return Ops::select(Ops::equal(error, error), sum + error, sum); }  // as in total()
};

// Multiplies exponentials that exp_scaled left by a factor, once and with one rounding, also where the result is a
// denormal number: those are rounded as integers, because the multiplication would take 50 ns for each such vector.
// `exact`: as if the factor was not rounded itself, where products are fused.
template <class Ops, bool exact = false> class Rescale {
  using Vec = typename Ops::Vec;
  using Value = typename Ops::Value;
  using Constants = MathConstants<Value>;
  Vec factor, unscaled, tiny;  // exponentials in (0, tiny) may have denormal results
  Vec rest;                    // what the rounding of `unscaled` lost
  template <class, bool> friend class Rescale;

 public:
  Rescale() = default;
  explicit MLEFAST_FN Rescale(Vec f) : factor(f), unscaled(f * Ops::set(Constants::unscale)) {
    const Vec zero = Ops::set(0), smallest = Ops::set(Constants::smallest), size = Ops::max(factor, zero - factor);
    // Where the product of factor and unscale is itself a denormal number, no exponential is safe; 0 is.
    const Vec limit =
        Ops::select(Ops::less(size, Ops::set(Constants::smallest * Constants::scale)),
                    Ops::set(static_cast<Value>(__builtin_inf())), smallest / (size * Ops::set(Constants::unscale)));
    tiny = Ops::keep(Ops::less(zero, size), limit);
    if constexpr (exact) rest = zero;
  }

  // One factor for all lanes, f + rest, of which rest is what f was rounded by.
  static MLEFAST_FN Rescale by_sum(double f, double rest) {
    const Rescale<Math<Scalar<Value, Ops>>> one(static_cast<Value>(f));  // whose division is a number's, not a vector's
    Rescale all;
    all.factor = Ops::set(one.factor), all.unscaled = Ops::set(one.unscaled), all.tiny = Ops::set(one.tiny);
    if constexpr (exact) {
      const double lost = ((f - double(static_cast<Value>(f))) + rest) * double(Constants::unscale);
      all.rest = Ops::set(lost == lost ? static_cast<Value>(lost) : 0);
      all.tiny = Ops::set(one.tiny * Constants::rounding_digits);  // where a share of `rest` would be denormal
    }
    return all;
  }

  // f / top for each lane.
  static MLEFAST_FN Rescale by_quotient(Vec f, Vec top) {
    const Vec quotient = f / top;
    Rescale all(quotient);
    if constexpr (exact) {
      const Vec lost = Ops::fma(Ops::set(0) - quotient, top, f) / top;
      all.rest = Ops::keep(Ops::equal(lost, lost), lost * Ops::set(Constants::unscale));
      all.tiny = all.tiny * Ops::set(Constants::rounding_digits);
    }
    return all;
  }

  // By way of memory, where each of its vectors lies `stride` behind the one before: a factor for each lane, of other
  // lanes than were stored together, or of one for all.
  static constexpr int vectors = exact ? 4 : 3;
  MLEFAST_FN void store(Value* to, int64_t stride) const {
    Ops::store(to, factor), Ops::store(to + stride, unscaled), Ops::store(to + 2 * stride, tiny);
    if constexpr (exact) Ops::store(to + 3 * stride, rest);
  }
  static MLEFAST_FN Rescale load(const Value* from, int64_t stride) {
    return restored([=](int i) { return Ops::load(from + i * stride); });
  }
  static MLEFAST_FN Rescale of_lane(const Value* from, int64_t stride) {
    return restored([=](int i) { return Ops::set(from[i * stride]); });
  }

  // v[q] by the factor of by(q).
  template <int K, class By> static MLEFAST_FN void apply(const By& by, Vec (&v)[K]) {
    auto small = Ops::less(v[0], by(0).tiny);
    for (int q = 1; q < K; ++q) small = Ops::either(small, Ops::less(v[q], by(q).tiny));
    scale(by, v, Ops::any(small));
  }
  template <int K> MLEFAST_FN void operator()(Vec (&v)[K]) const {
    Vec least = v[0];  // a NaN may hide one, of a row whose factor is NaN as well
    for (int q = 1; q < K; ++q) least = Ops::min(least, v[q]);
    scale([this](int) -> const Rescale& { return *this; }, v, Ops::any(Ops::less(least, tiny)));
  }

 private:
  template <class Stored> static MLEFAST_FN Rescale restored(const Stored& stored) {
    Rescale by;
    by.factor = stored(0), by.unscaled = stored(1), by.tiny = stored(2);
    if constexpr (exact) by.rest = stored(3);
    return by;
  }

  template <int K, class By> static MLEFAST_FN void scale(const By& by, Vec (&v)[K], bool small) {
    if (__builtin_expect(small, 0)) {  // or 0, which is safe
      auto slow = by(0).denormal(v[0]);
      for (int q = 1; q < K; ++q) slow = Ops::either(slow, by(q).denormal(v[q]));
      if (Ops::any(slow)) {
        for (int q = 0; q < K; ++q) v[q] = by(q).carefully(v[q]);
        return;
      }
    }
    for (int q = 0; q < K; ++q) v[q] = by(q).times(v[q]);
  }

  MLEFAST_FN Vec times(Vec v) const {
    if constexpr (exact && Ops::fuses) return Ops::fma(v, unscaled, v * rest);
    return v * unscaled;
  }

  MLEFAST_FN typename Ops::Mask denormal(Vec v) const {
    return Ops::both(Ops::less(Ops::set(0), v), Ops::less(v, tiny));
  }

  // The powers of two are applied apart, in an order in which no intermediate result becomes denormal.
  Vec carefully(Vec v) const {
    const Vec zero = Ops::set(0), minus_zero = Ops::set(-Value(0));
    const Vec product = (v * Ops::set(Constants::denormals_1)) * factor * Ops::set(Constants::denormals_2);
    const Vec count = Ops::max(product, zero - product);  // of the smallest denormal number
    const auto small = Ops::less(count, Ops::set(Constants::denormals));
    const Vec bits = Ops::round_to_denormal(Ops::keep(small, count));
    const Vec normal = (Ops::select(small, zero, v) * factor) * Ops::set(Constants::unscale);
    const Vec result = Ops::select(small, Ops::select(Ops::less(factor, zero), minus_zero - bits, bits), normal);
    if constexpr (!exact) return result;
    const auto is_tiny = Ops::less(v, tiny);
    return Ops::select(is_tiny, result, times(Ops::select(is_tiny, zero, v)));
  }
};

inline constexpr int64_t cache_line = 64;

// Measured on DRAM-bound rows: what is read wants 12 KiB of notice to come to the second-level cache, and 512 bytes
// from there; what is written 1 KiB. (With 8 KiB values took up to a quarter longer on one thread of an AMD EPYC, with
// 16 no less. Into the first-level cache at once, on an Intel Xeon, the many lines that are under way fill all that it
// has for them: 1024 x 32000 float32 took 7.4 ms in place of 4.8, in place 7.6 in place of 6.1; AVX-512, 2 threads.)
inline constexpr int64_t read_ahead = 12288, near_ahead = 512, write_ahead = 1024;

MLEFAST_FN void prefetch(const void* base, int64_t bytes_ahead) {
  __builtin_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(base) + bytes_ahead), 0, 3);
}
MLEFAST_FN void prefetch_far(const void* base, int64_t bytes_ahead) {
  __builtin_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(base) + bytes_ahead), 0, 2);
}
MLEFAST_FN void prefetch_to_write(const void* base, int64_t bytes_ahead) {
  __builtin_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(base) + bytes_ahead), 1, 2);
}

// Elements between the start of a cache line and p, which lies in it.
template <class S> MLEFAST_FN int64_t within_line(const S* p) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % uintptr_t(cache_line) / sizeof(S));
}

// All lines of [begin, begin + bytes), in bytes from `base` on, if that starts on a line.
MLEFAST_FN void prefetch_far(const void* base, int64_t begin, int64_t bytes) {
  for (int64_t byte = 0; byte < bytes; byte += cache_line) prefetch_far(base, begin + byte);
}

MLEFAST_FN int64_t bytes_between(const void* from, const void* to) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) - reinterpret_cast<uintptr_t>(from));
}

// Stores to memory that is neither read first nor kept in a cache, where the processor has them.
MLEFAST_FN void stream_line(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__SSE2__)
  for (int i = 0; i < 4; ++i)
    _mm_stream_si128(static_cast<__m128i*>(to) + i, _mm_loadu_si128(static_cast<const __m128i*>(from) + i));
#else
  std::memcpy(to, from, cache_line);
#endif
}
// Orders them before whatever tells other threads that they are done.
MLEFAST_FN void settle_lines() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

// Elements from p to where an address can be divided by a vector's size; 0 if none of theirs can.
template <class Ops, class S> MLEFAST_FN int64_t to_vector_border(const S* p) {
  constexpr uintptr_t size = Ops::lanes * sizeof(S);
  const uintptr_t beyond = reinterpret_cast<uintptr_t>(p) % size;
  return beyond % sizeof(S) ? 0 : static_cast<int64_t>((size - beyond) % size / sizeof(S));
}

// A stretch of memory that is written from its start on, by whole lines past the caches: what is next is put into a
// buffer, where it lies in its lines as in memory. It leaves when the next is put, since a load that overlaps several
// stores waits for them, and for those past the caches before them. What it has of the line where the next begins goes
// along with that.
class LineWriter {
  char *line, *half[2];           // where the next line goes; the buffers
  int turn = 0;                   // of the next
  int64_t mine, start, size = 0;  // bytes: of the first line, those before what is written here; where the next begins
                                  // in its line; of the buffer that waits

 public:
  // Bytes for buffers of the most that is put at once.
  static constexpr int64_t room(int64_t most) { return 2 * (most + 2 * cache_line); }

  LineWriter(void* out, void* room_, int64_t most) {
    char *const to = static_cast<char*>(out), *const room = static_cast<char*>(room_);
    mine = start = within_line(to), line = to - mine;
    half[0] = room + (cache_line - within_line(room)) % cache_line;
    half[1] = half[0] + (most + 2 * cache_line - 1) / cache_line * cache_line;
  }
  void* next() const { return half[turn] + start; }
  // So many bytes have been put there.
  void put(int64_t bytes) {
    if (size > 0) std::memcpy(half[turn], leave(), static_cast<size_t>(start));
    size = start + bytes, start = size % cache_line, turn = 1 - turn;
  }
  void finish() {
    const char* const rest = leave();
    copy(rest, mine, start);
    settle_lines();
  }

 private:
  // The lines of the buffer that waits; where the rest of it lies.
  const char* leave() {
    const char* from = half[1 - turn];
    for (; size >= cache_line; size -= cache_line, from += cache_line, line += cache_line, mine = 0)
      mine > 0 ? copy(from, mine, cache_line) : stream_line(line, from);
    return from;
  }
  void copy(const char* from, int64_t begin, int64_t end) const {
    std::memcpy(line + begin, from + begin, static_cast<size_t>(end - begin));
  }
};

}  // namespace mlefast
