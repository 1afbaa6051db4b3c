// How a number is stored and in what it is computed, and the 16-byte vectors in which rows are read and written.
#pragma once

#include "ops.cuh"
#include "ptx.cuh"

namespace mlefast {

using int64 = long long;

// Value is what is computed in; a 16-byte vector holds `lanes` stored numbers.
template <class T> struct Storage {  // Half and BFloat16
  using Ops = Thread<float>;
  using Value = float;
  static constexpr int lanes = 8;

  static MLEFAST_FN Value load(const T* from) { return widen(*from); }
  static MLEFAST_FN void store(T* to, Value x) { *to = narrow(x, T{}); }

  static MLEFAST_FN void unpack(uint4 raw, Value (&v)[lanes]) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = widen(T{static_cast<unsigned short>(words[i])});
      v[2 * i + 1] = widen(T{static_cast<unsigned short>(words[i] >> 16)});
    }
  }

  static MLEFAST_FN uint4 pack(const Value (&v)[lanes]) {
    const T t{};
    return {narrow_pair(v[0], v[1], t), narrow_pair(v[2], v[3], t), narrow_pair(v[4], v[5], t),
            narrow_pair(v[6], v[7], t)};
  }
};

template <> struct Storage<float> {
  using Ops = Thread<float>;
  using Value = float;
  static constexpr int lanes = 4;

  static MLEFAST_FN Value load(const float* from) { return *from; }
  static MLEFAST_FN void store(float* to, Value x) { *to = x; }

  static MLEFAST_FN void unpack(uint4 raw, Value (&v)[lanes]) {
    v[0] = __uint_as_float(raw.x), v[1] = __uint_as_float(raw.y);
    v[2] = __uint_as_float(raw.z), v[3] = __uint_as_float(raw.w);
  }

  static MLEFAST_FN uint4 pack(const Value (&v)[lanes]) {
    return {__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])};
  }
};

template <> struct Storage<double> {
  using Ops = Thread<double>;
  using Value = double;
  static constexpr int lanes = 2;

  static MLEFAST_FN Value load(const double* from) { return *from; }
  static MLEFAST_FN void store(double* to, Value x) { *to = x; }

  static MLEFAST_FN void unpack(uint4 raw, Value (&v)[lanes]) {
    v[0] = __hiloint2double(static_cast<int>(raw.y), static_cast<int>(raw.x));
    v[1] = __hiloint2double(static_cast<int>(raw.w), static_cast<int>(raw.z));
  }

  static MLEFAST_FN uint4 pack(const Value (&v)[lanes]) {
    return {static_cast<unsigned>(__double2loint(v[0])), static_cast<unsigned>(__double2hiint(v[0])),
            static_cast<unsigned>(__double2loint(v[1])), static_cast<unsigned>(__double2hiint(v[1]))};
  }
};

// n consecutive numbers, cut at the 16-byte borders of memory: vector k holds elements from k * lanes - skew on. The
// first and the last vector may be short; what they lack is -inf, the logit of a masked class. Nothing outside the n
// numbers is ever touched, since it may belong to another block's row that is being overwritten.
template <class T> class Window {
  using Store = Storage<T>;
  using Value = typename Store::Value;

 public:
  static constexpr int lanes = Store::lanes;

  MLEFAST_FN Window(const T* at, int n)
      : at_(at), n_(n), skew_(static_cast<int>((reinterpret_cast<unsigned long long>(at) & 15) / sizeof(T))) {}

  MLEFAST_FN int size() const { return n_; }
  MLEFAST_FN int vectors() const { return (n_ + skew_ + lanes - 1) / lanes; }
  MLEFAST_FN int first(int k) const { return k * lanes - skew_; }
  MLEFAST_FN int vector_of(int i) const { return (i + skew_) / lanes; }

  static MLEFAST_FN uint4 padding() {
    Value v[lanes];
#pragma unroll
    for (int j = 0; j < lanes; ++j) v[j] = -Store::Ops::infinity();
    return Store::pack(v);
  }

  // Raw, so that several loads can be under way before the first is converted.
  MLEFAST_FN uint4 load(int k) const {
    const int i = first(k);
    if (i >= 0 && i + lanes <= n_) return *reinterpret_cast<const uint4*>(at_ + i);
    if (i >= n_) return padding();
    Value v[lanes];
#pragma unroll
    for (int j = 0; j < lanes; ++j)
      v[j] = i + j >= 0 && i + j < n_ ? Store::load(at_ + (i + j)) : -Store::Ops::infinity();
    return Store::pack(v);
  }

  // Writes vector k of this window to the same elements of `to`, an array of n numbers. `in_loop`: in the loops over
  // long rows NVRTC splits an assignment of 16 bytes in four; the instruction by name would cost unrolled rows
  // registers.
  template <bool in_loop = false> MLEFAST_FN void store(T* to, int k, const Value (&v)[lanes]) const {
    const int i = first(k);
    const bool congruent = (reinterpret_cast<unsigned long long>(to + i) & 15) == 0;
    if (congruent && i >= 0 && i + lanes <= n_) {
      auto* const vector = reinterpret_cast<uint4*>(to + i);
      if constexpr (in_loop)
        store_vector(vector, Store::pack(v));
      else
        *vector = Store::pack(v);
    } else {
#pragma unroll
      for (int j = 0; j < lanes; ++j)
        if (i + j >= 0 && i + j < n_) Store::store(to + (i + j), v[j]);
    }
  }

  // Whether element j of vector k is one of the n.
  MLEFAST_FN bool holds(int k, int j) const { return first(k) + j >= 0 && first(k) + j < n_; }

  // The numbers that another array of n has for vector k, and `fill` beyond them: in 16-byte vectors if they lie so.
  MLEFAST_FN void load_beside(const Value* at, int k, Value fill, Value (&v)[lanes]) const {
    const int i = first(k);
    if (i >= 0 && i + lanes <= n_ && (reinterpret_cast<unsigned long long>(at + i) & 15) == 0) {
#pragma unroll
      for (int w = 0; w < lanes / beside; ++w)
        Storage<Value>::unpack(reinterpret_cast<const uint4*>(at + i)[w],
                               reinterpret_cast<Value(&)[beside]>(v[w * beside]));
    } else {
#pragma unroll
      for (int j = 0; j < lanes; ++j) v[j] = holds(k, j) ? at[i + j] : fill;
    }
  }

  MLEFAST_FN void store_beside(Value* to, int k, const Value (&v)[lanes]) const {
    const int i = first(k);
    if (i >= 0 && i + lanes <= n_ && (reinterpret_cast<unsigned long long>(to + i) & 15) == 0) {
#pragma unroll
      for (int w = 0; w < lanes / beside; ++w)
        store_vector(reinterpret_cast<uint4*>(to + i) + w,
                     Storage<Value>::pack(reinterpret_cast<const Value(&)[beside]>(v[w * beside])));
    } else {
#pragma unroll
      for (int j = 0; j < lanes; ++j)
        if (holds(k, j)) to[i + j] = v[j];
    }
  }

 private:
  static constexpr int beside = Storage<Value>::lanes;

  const T* at_;
  int n_, skew_;
};

// The same of n numbers that lie `step` apart: neighbouring threads hold neighbouring numbers of other columns, so each
// of a warp's accesses is one run of memory.
template <class T> class Column {
  using Store = Storage<T>;
  using Value = typename Store::Value;

 public:
  static constexpr int lanes = Store::lanes;

  MLEFAST_FN Column(const T* at, int n, int64 step) : at_(at), n_(n), step_(step) {}

  MLEFAST_FN int size() const { return n_; }
  MLEFAST_FN int vectors() const { return (n_ + lanes - 1) / lanes; }
  MLEFAST_FN int first(int k) const { return k * lanes; }
  MLEFAST_FN bool holds(int k, int j) const { return first(k) + j < n_; }

  MLEFAST_FN uint4 load(int k) const {
    Value v[lanes];
#pragma unroll
    for (int j = 0; j < lanes; ++j)
      v[j] = holds(k, j) ? Store::load(at_ + (first(k) + j) * step_) : -Store::Ops::infinity();
    return Store::pack(v);
  }

  MLEFAST_FN void load_beside(const Value* at, int k, Value fill, Value (&v)[lanes]) const {
#pragma unroll
    for (int j = 0; j < lanes; ++j) v[j] = holds(k, j) ? at[(first(k) + j) * step_] : fill;
  }

  template <bool> MLEFAST_FN void store(T* to, int k, const Value (&v)[lanes]) const {
#pragma unroll
    for (int j = 0; j < lanes; ++j)
      if (holds(k, j)) Store::store(to + (first(k) + j) * step_, v[j]);
  }

  MLEFAST_FN void store_beside(Value* to, int k, const Value (&v)[lanes]) const {
#pragma unroll
    for (int j = 0; j < lanes; ++j)
      if (holds(k, j)) to[(first(k) + j) * step_] = v[j];
  }

 private:
  const T* at_;
  int n_;
  int64 step_;
};

}  // namespace mlefast
