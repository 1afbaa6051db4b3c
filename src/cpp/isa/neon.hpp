// AArch64 Advanced SIMD (NEON): 4 floats or 2 doubles. The contract is in scalar.hpp.
#pragma once

#include <arm_neon.h>

#include "scalar.hpp"

namespace mlefast {

template <class T> struct Neon;

template <> struct Neon<double> {
  using Value = double;
  static constexpr int lanes = 2, columns = 2, table_bits = 0;
  static constexpr bool fuses = true, streams = false;

  struct Vec {
    float64x2_t v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {vaddq_f64(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {vsubq_f64(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {vmulq_f64(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {vdivq_f64(a.v, b.v)}; }
  };
  struct Mask {
    uint64x2_t v;
  };

  static MLEFAST_FN Mask invert(uint64x2_t m) { return {vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(m)))}; }
  static MLEFAST_FN Vec set(double x) { return {vdupq_n_f64(x)}; }
  static MLEFAST_FN Vec constant(double x) { return set(x); }
  static MLEFAST_FN Vec load(const double* p) { return {vld1q_f64(p)}; }
  static MLEFAST_FN Vec load(const double* p, int64_t n, double fill) {
    if (n >= lanes) return load(p);
    return n > 0 ? Vec{vsetq_lane_f64(*p, vdupq_n_f64(fill), 0)} : set(fill);
  }
  static MLEFAST_FN void store(double* p, Vec v) { vst1q_f64(p, v.v); }
  static MLEFAST_FN void stream(double* p, Vec v) { store(p, v); }
  static MLEFAST_FN void store(double* p, Vec v, int64_t n) {
    if (n >= lanes) return store(p, v);
    if (n > 0) vst1q_lane_f64(p, v.v, 0);
  }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {vsqrtq_f64(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {vmaxq_f64(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {vminq_f64(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return {vcltq_f64(a.v, b.v)}; }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return invert(vcltq_f64(a.v, b.v)); }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return {vceqq_f64(a.v, b.v)}; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return invert(vceqq_f64(a.v, b.v)); }
  static MLEFAST_FN bool any(Mask m) { return vmaxvq_u32(vreinterpretq_u32_u64(m.v)) != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {vbslq_f64(m.v, yes.v, no.v)}; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) {
    return {vreinterpretq_f64_u64(vandq_u64(m.v, vreinterpretq_u64_f64(v.v)))};
  }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return {vandq_u64(a.v, b.v)}; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return {vorrq_u64(a.v, b.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return fma(keep(m, a), b, c); }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return a + keep(m, b); }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) {
    return a + Vec{vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(b.v), m.v))};
  }
  static MLEFAST_FN Vec count(Mask m, Vec n) {
    return {vreinterpretq_f64_u64(vsubq_u64(vreinterpretq_u64_f64(n.v), m.v))};
  }
  static MLEFAST_FN Vec counted(Vec n) { return {vcvtq_f64_u64(vreinterpretq_u64_f64(n.v))}; }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {vreinterpretq_f64_s64(vshlq_n_s64(vreinterpretq_s64_f64(v.v), 52))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    const auto three_quarters = vreinterpretq_s64_f64(vdupq_n_f64(0.75));
    const auto k = vshrq_n_s64(vsubq_s64(vreinterpretq_s64_f64(u.v), three_quarters), 52);
    exponent = {vcvtq_f64_s64(k)};
    return {vreinterpretq_f64_s64(vsubq_s64(vreinterpretq_s64_f64(vdupq_n_f64(1)), vshlq_n_s64(k, 52)))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) { return {vreinterpretq_f64_s64(vcvtnq_s64_f64(v.v))}; }

  static MLEFAST_FN double reduce_max(Vec v) { return vmaxvq_f64(v.v); }
  static MLEFAST_FN double reduce_add(Vec v) { return vaddvq_f64(v.v); }

  static MLEFAST_FN void load_columns(const double* p, int64_t row, Vec (&v)[2]) {
    for (int i = 0; i < 2; ++i) v[i] = load(p + i * row);
    transpose(v);
  }
  static MLEFAST_FN void store_columns(double* p, int64_t row, Vec (&v)[2]) {
    transpose(v);
    for (int i = 0; i < 2; ++i) store(p + i * row, v[i]);
  }
  static MLEFAST_FN void transpose(Vec (&r)[2]) {
    const auto a = r[0].v, b = r[1].v;
    r[0] = {vtrn1q_f64(a, b)}, r[1] = {vtrn2q_f64(a, b)};
  }
};

template <> struct Neon<float> {
  using Value = float;
  using Double = Neon<double>;
  static constexpr int lanes = 4, columns = 4, table_bits = 0;
  static constexpr bool fuses = true, streams = false;

  struct Vec {
    float32x4_t v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
  };
  struct Mask {
    uint32x4_t v;
  };

  static MLEFAST_FN Mask invert(uint32x4_t m) { return {vmvnq_u32(m)}; }
  static MLEFAST_FN Vec set(float x) { return {vdupq_n_f32(x)}; }
  static MLEFAST_FN Vec constant(float x) { return set(x); }
  static MLEFAST_FN Vec load(const float* p) { return {vld1q_f32(p)}; }
  static MLEFAST_FN Vec load(const float* p, int64_t n, float fill) {
    if (n >= lanes) return load(p);
    auto v = vdupq_n_f32(fill);
    if (n > 0) v = vsetq_lane_f32(p[0], v, 0);
    if (n > 1) v = vsetq_lane_f32(p[1], v, 1);
    if (n > 2) v = vsetq_lane_f32(p[2], v, 2);
    return {v};
  }
  static MLEFAST_FN void store(float* p, Vec v) { vst1q_f32(p, v.v); }
  template <class S> static MLEFAST_FN void stream(S* p, Vec v) { store(p, v); }
  static MLEFAST_FN void store(float* p, Vec v, int64_t n) {
    if (n >= lanes) return store(p, v);
    if (n > 0) vst1q_lane_f32(p, v.v, 0);
    if (n > 1) vst1q_lane_f32(p + 1, v.v, 1);
    if (n > 2) vst1q_lane_f32(p + 2, v.v, 2);
  }

  static MLEFAST_FN Vec load(const Float16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
  static MLEFAST_FN void store(Float16* p, Vec v) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(v.v))); }
  static MLEFAST_FN Vec load(const BFloat16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))}; }
  static MLEFAST_FN void store(BFloat16* p, Vec v) {
    const auto u = vreinterpretq_u32_f32(v.v), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const auto rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const auto quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    vst1_u16(&p->bits, vshrn_n_u32(vbslq_u32(vceqq_f32(v.v, v.v), rounded, quiet), 16));
  }
  template <class S> static MLEFAST_FN Vec load(const S* p, int64_t n, float fill) {
    return load_part<Neon>(p, n, fill);
  }
  template <class S> static MLEFAST_FN void store(S* p, Vec v, int64_t n) { store_part<Neon>(p, v, n); }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {vsqrtq_f32(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return invert(vcltq_f32(a.v, b.v)); }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return {vceqq_f32(a.v, b.v)}; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return invert(vceqq_f32(a.v, b.v)); }
  static MLEFAST_FN bool any(Mask m) { return vmaxvq_u32(m.v) != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {vbslq_f32(m.v, yes.v, no.v)}; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) {
    return {vreinterpretq_f32_u32(vandq_u32(m.v, vreinterpretq_u32_f32(v.v)))};
  }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return {vandq_u32(a.v, b.v)}; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return {vorrq_u32(a.v, b.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return fma(keep(m, a), b, c); }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return a + keep(m, b); }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) {
    return a + Vec{vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(b.v), m.v))};
  }
  static MLEFAST_FN Vec count(Mask m, Vec n) {
    return {vreinterpretq_f32_u32(vsubq_u32(vreinterpretq_u32_f32(n.v), m.v))};
  }
  static MLEFAST_FN Vec counted(Vec n) { return {vcvtq_f32_u32(vreinterpretq_u32_f32(n.v))}; }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(v.v), 23))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    const auto three_quarters = vreinterpretq_s32_f32(vdupq_n_f32(0.75f));
    const auto k = vshrq_n_s32(vsubq_s32(vreinterpretq_s32_f32(u.v), three_quarters), 23);
    exponent = {vcvtq_f32_s32(k)};
    return {vreinterpretq_f32_s32(vsubq_s32(vreinterpretq_s32_f32(vdupq_n_f32(1)), vshlq_n_s32(k, 23)))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) { return {vreinterpretq_f32_s32(vcvtnq_s32_f32(v.v))}; }

  static MLEFAST_FN float reduce_max(Vec v) { return vmaxvq_f32(v.v); }
  static MLEFAST_FN float reduce_add(Vec v) { return vaddvq_f32(v.v); }
  static MLEFAST_FN void widen(Vec v, Double::Vec (&wide)[2]) {
    wide[0] = {vcvt_f64_f32(vget_low_f32(v.v))}, wide[1] = {vcvt_high_f64_f32(v.v)};
  }
  static MLEFAST_FN Vec narrow(const Double::Vec (&wide)[2]) {
    return {vcvt_high_f32_f64(vcvt_f32_f64(wide[0].v), wide[1].v)};
  }

  template <class S> static MLEFAST_FN void load_columns(const S* p, int64_t row, Vec (&v)[4]) {
    for (int i = 0; i < 4; ++i) v[i] = load(p + i * row);
    transpose(v);
  }
  template <class S> static MLEFAST_FN void store_columns(S* p, int64_t row, Vec (&v)[4]) {
    transpose(v);
    for (int i = 0; i < 4; ++i) store(p + i * row, v[i]);
  }
  static MLEFAST_FN void transpose(Vec (&r)[4]) {
    const auto a = vtrn1q_f32(r[0].v, r[1].v), b = vtrn2q_f32(r[0].v, r[1].v);
    const auto c = vtrn1q_f32(r[2].v, r[3].v), d = vtrn2q_f32(r[2].v, r[3].v);
    const auto pair = [](float32x4_t low, float32x4_t high, bool second) {
      const auto x = vreinterpretq_f64_f32(low), y = vreinterpretq_f64_f32(high);
      return Vec{vreinterpretq_f32_f64(second ? vtrn2q_f64(x, y) : vtrn1q_f64(x, y))};
    };
    r[0] = pair(a, c, false), r[1] = pair(b, d, false), r[2] = pair(a, c, true), r[3] = pair(b, d, true);
  }
};

}  // namespace mlefast
