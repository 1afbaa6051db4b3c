// What arrays hold, and what is computed with: float16 and bfloat16 are stored only, and computed in float32.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../rules/qualifier.h"

namespace mlefast {

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that elements of storage type S are computed in.
template <class S> struct ValueType {
  using Type = S;
};
template <> struct ValueType<Float16> {
  using Type = float;
};
template <> struct ValueType<BFloat16> {
  using Type = float;
};
template <class S> using ValueOf = typename ValueType<S>::Type;
template <class S> inline constexpr bool is_half = !std::is_same_v<S, ValueOf<S>>;

MLEFAST_FN uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
MLEFAST_FN float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

MLEFAST_FN float to_value(float x) { return x; }
MLEFAST_FN double to_value(double x) { return x; }
MLEFAST_FN float to_value(BFloat16 x) { return float_of(uint32_t(x.bits) << 16); }
MLEFAST_FN float to_value(Float16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | magnitude << 13);
  // The bits mean 2^-112 of the number as a float32, denormal numbers included.
  return float_of(sign | bits_of(float_of(magnitude << 13) * 0x1p112f));
}

// Rounded to the nearest, ties to even; what is too large becomes infinite, a NaN stays one.
template <class S> MLEFAST_FN S from_value(ValueOf<S> x) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const uint32_t u = bits_of(x);
    if (x != x) return {static_cast<uint16_t>(u >> 16 | 0x40)};
    return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
  } else if constexpr (std::is_same_v<S, Float16>) {
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000)
      half = 0x7e00 | (magnitude >> 13 & 0x3ff);
    else if (magnitude >= 0x477ff000)  // 65520, halfway between the largest number and the next power of two
      half = 0x7c00;
    else if (magnitude < 0x38800000)  // below 2^-14: a sum with 1/2, whose last bit is worth 2^-24, does the rounding
      half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000;
    else
      half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
    return {static_cast<uint16_t>(sign | half)};
  } else {
    return x;
  }
}

// The first n of a vector's elements, through memory that holds all of them: for instruction sets without masks.
template <class Isa, class S> MLEFAST_FN typename Isa::Vec load_part(const S* p, int64_t n, ValueOf<S> fill) {
  S part[Isa::lanes];
  for (int i = 0; i < Isa::lanes; ++i) part[i] = i < n ? p[i] : from_value<S>(fill);
  return Isa::load(part);
}
template <class Isa, class S> MLEFAST_FN void store_part(S* p, typename Isa::Vec v, int64_t n) {
  S part[Isa::lanes];
  Isa::store(part, v);
  for (int i = 0; i < n; ++i) p[i] = part[i];
}

}  // namespace mlefast
