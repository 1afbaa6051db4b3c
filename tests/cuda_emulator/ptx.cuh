// In place of src/cuda/ptx.cuh: the same conversions in integer arithmetic, to nearest, ties to even, and an
// assignment.
#pragma once

namespace mlefast {

struct Half {
  unsigned short bits;
};

struct BFloat16 {
  unsigned short bits;
};

inline float widen(Half h) {
  const unsigned sign = unsigned(h.bits & 0x8000) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 0x3ff;
  if (exponent == 0) return __uint_as_float(sign | __float_as_uint(float(fraction) * 0x1p-24f));
  return __uint_as_float(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13);
}

inline Half narrow(float x, Half) {
  const unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return {0x7fff};
  if (magnitude >= 0x477ff000) return {static_cast<unsigned short>(sign | 0x7c00)};  // 65520 and above
  if (magnitude < 0x38800000)  // below the normal numbers: the addition rounds to multiples of 2^-24
    return {static_cast<unsigned short>(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000))};
  return {static_cast<unsigned short>(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13)};
}

inline float widen(BFloat16 h) { return __uint_as_float(unsigned(h.bits) << 16); }

inline BFloat16 narrow(float x, BFloat16) {
  const unsigned u = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {static_cast<unsigned short>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

inline void store_vector(uint4* to, uint4 v) { *to = v; }

template <class T> unsigned narrow_pair(float low, float high, T t) {
  return narrow(low, t).bits | unsigned(narrow(high, t).bits) << 16;
}

}  // namespace mlefast
