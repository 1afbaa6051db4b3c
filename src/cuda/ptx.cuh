// What is said in PTX: 16-bit floats, converted on load and on store and computed in float, without a header of the
// CUDA toolkit at run time; and a 16-byte store, which the compiler would split in some kernels.
#pragma once

#include "../rules/qualifier.h"

namespace mlefast {

struct Half {
  unsigned short bits;
};

struct BFloat16 {
  unsigned short bits;
};

MLEFAST_FN float widen(Half h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h.bits));
  return x;
}

MLEFAST_FN Half narrow(float x, Half) {
  Half h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
  return h;
}

MLEFAST_FN float widen(BFloat16 h) { return __uint_as_float(static_cast<unsigned>(h.bits) << 16); }

MLEFAST_FN BFloat16 narrow(float x, BFloat16) {
  BFloat16 h;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h.bits) : "f"(x));
#else  // to nearest, ties to even; a carry out of the significand is the next exponent, and infinity at the end
  const unsigned u = __float_as_uint(x);
  h.bits = x != x ? 0x7fff : static_cast<unsigned short>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
#endif
  return h;
}

MLEFAST_FN void store_vector(uint4* to, uint4 v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}

// Two at once into a word, the first one low.
MLEFAST_FN unsigned narrow_pair(float low, float high, Half h) {
#if __CUDA_ARCH__ >= 800
  unsigned both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return narrow(low, h).bits | static_cast<unsigned>(narrow(high, h).bits) << 16;
#endif
}

MLEFAST_FN unsigned narrow_pair(float low, float high, BFloat16 h) {
#if __CUDA_ARCH__ >= 800
  unsigned both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return narrow(low, h).bits | static_cast<unsigned>(narrow(high, h).bits) << 16;
#endif
}

}  // namespace mlefast
