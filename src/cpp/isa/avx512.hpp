// AVX-512 F, BW, DQ and VL: 16 floats or 8 doubles, masks in registers. The contract is in scalar.hpp.
#pragma once

#include <immintrin.h>

#include "scalar.hpp"

namespace mlefast {

template <class T> struct Avx512;

template <> struct Avx512<double> {
  using Value = double;
  using Mask = __mmask8;
  static constexpr int lanes = 8, columns = 2, table_bits = 0;
  static constexpr bool fuses = true, streams = true;

  struct Vec {
    __m512d v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  };

  static MLEFAST_FN Mask first(int64_t n) { return static_cast<Mask>((1u << n) - 1); }
  static MLEFAST_FN Vec set(double x) { return {_mm512_set1_pd(x)}; }
  static MLEFAST_FN Vec constant(double x) { return set(x); }
  static MLEFAST_FN Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static MLEFAST_FN Vec load(const double* p, int64_t n, double fill) {
    return {_mm512_mask_loadu_pd(_mm512_set1_pd(fill), first(n), p)};
  }
  static MLEFAST_FN void store(double* p, Vec v) { _mm512_storeu_pd(p, v.v); }
  static MLEFAST_FN void stream(double* p, Vec v) { _mm512_stream_pd(p, v.v); }
  static MLEFAST_FN void store(double* p, Vec v, int64_t n) { _mm512_mask_storeu_pd(p, first(n), v.v); }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {_mm512_sqrt_pd(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ); }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_NLT_UQ); }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_UQ); }
  static MLEFAST_FN bool any(Mask m) { return m != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {_mm512_mask_blend_pd(m, no.v, yes.v)}; }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return a & b; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return a | b; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return {_mm512_maskz_mov_pd(m, v.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return {_mm512_mask3_fmadd_pd(a.v, b.v, c.v, m)}; }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return {_mm512_mask_add_pd(a.v, m, a.v, b.v)}; }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) { return add_where(static_cast<Mask>(~m), a, b); }
  static MLEFAST_FN Vec count(Mask m, Vec n) { return {_mm512_mask_add_pd(n.v, m, n.v, _mm512_set1_pd(1))}; }
  static MLEFAST_FN Vec counted(Vec n) { return n; }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {_mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(v.v), 52))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    exponent = {_mm512_getexp_pd(_mm512_mul_pd(u.v, _mm512_set1_pd(4.0 / 3)))};
    return {_mm512_scalef_pd(_mm512_set1_pd(1), _mm512_sub_pd(_mm512_setzero_pd(), exponent.v))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) { return {_mm512_castsi512_pd(_mm512_cvtpd_epi64(v.v))}; }

  static MLEFAST_FN double reduce_max(Vec v) { return _mm512_reduce_max_pd(v.v); }
  static MLEFAST_FN double reduce_add(Vec v) { return _mm512_reduce_add_pd(v.v); }

  // Rows i, i + 2, i + 4, i + 6 meet in v[i], one in each quarter. (Masked moves of whole vectors cross lines of the
  // cache: with them 10 to 100 classes took 15 to 25 % longer with a gradient.)
  static MLEFAST_FN void load_columns(const double* p, int64_t row, Vec (&v)[2]) {
    for (int i = 0; i < 2; ++i, p += row) {
      const auto pair = [&](int q) { return _mm_loadu_pd(p + 2 * q * row); };
      const auto low = _mm512_insertf64x2(_mm512_castpd128_pd512(pair(0)), pair(1), 1);
      v[i] = {_mm512_insertf64x2(_mm512_insertf64x2(low, pair(2), 2), pair(3), 3)};
    }
    transpose_quarters(v);
  }
  // Row after row, because each may cover what follows it: see Transposer.
  static MLEFAST_FN void store_columns(double* p, int64_t row, Vec (&v)[2]) {
    transpose_quarters(v);
    store_quarter<0>(p, row, v), store_quarter<1>(p + 2 * row, row, v);
    store_quarter<2>(p + 4 * row, row, v), store_quarter<3>(p + 6 * row, row, v);
  }
  template <int q> static MLEFAST_FN void store_quarter(double* p, int64_t row, const Vec (&v)[2]) {
    for (int i = 0; i < 2; ++i) _mm_storeu_pd(p + i * row, _mm512_extractf64x2_pd(v[i].v, q));
  }
  static MLEFAST_FN void transpose_quarters(Vec (&v)[2]) {
    const auto low = _mm512_unpacklo_pd(v[0].v, v[1].v);
    v[1] = {_mm512_unpackhi_pd(v[0].v, v[1].v)}, v[0] = {low};
  }
};

template <> struct Avx512<float> {
  using Value = float;
  using Double = Avx512<double>;
  using Mask = __mmask16;
  static constexpr int lanes = 16, columns = 4, table_bits = 4;
  static constexpr bool fuses = true, streams = true;

  struct Vec {
    __m512 v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  };

  static MLEFAST_FN Mask first(int64_t n) { return static_cast<Mask>((1u << n) - 1); }
  static MLEFAST_FN Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static MLEFAST_FN Vec constant(float x) { return set(x); }
  static MLEFAST_FN Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static MLEFAST_FN Vec load(const float* p, int64_t n, float fill) {
    return {_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p)};
  }
  static MLEFAST_FN void store(float* p, Vec v) { _mm512_storeu_ps(p, v.v); }
  static MLEFAST_FN void stream(float* p, Vec v) { _mm512_stream_ps(p, v.v); }
  static MLEFAST_FN void store(float* p, Vec v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v.v); }

  static MLEFAST_FN __m256i load_halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static MLEFAST_FN __m256i load_halves(const void* p, int64_t n, uint16_t fill) {
    return _mm256_mask_loadu_epi16(_mm256_set1_epi16(static_cast<int16_t>(fill)), first(n), p);
  }
  static MLEFAST_FN Vec widen_halves(__m256i v, Float16) { return {_mm512_cvtph_ps(v)}; }
  static MLEFAST_FN Vec widen_halves(__m256i v, BFloat16) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16))};
  }
  static MLEFAST_FN __m256i narrow_halves(Vec v, Float16) { return _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT); }
  // (Not VCVTNEPS2BF16, which turns subnormal numbers to 0; testing for them first gains nothing.)
  static MLEFAST_FN __m256i narrow_halves(Vec v, BFloat16) {
    const auto u = _mm512_castps_si512(v.v), high = _mm512_srli_epi32(u, 16);
    const auto half = _mm512_add_epi32(_mm512_and_si512(high, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    const auto rounded = _mm512_srli_epi32(_mm512_add_epi32(u, half), 16);
    const auto quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(unlike(v, v), rounded, quiet));
  }
  template <class S> static MLEFAST_FN Vec load(const S* p) { return widen_halves(load_halves(p), S{}); }
  template <class S> static MLEFAST_FN Vec load(const S* p, int64_t n, float fill) {
    return widen_halves(load_halves(p, n, from_value<S>(fill).bits), S{});
  }
  template <class S> static MLEFAST_FN void store(S* p, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_halves(v, S{}));
  }
  template <class S> static MLEFAST_FN void stream(S* p, Vec v) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow_halves(v, S{}));
  }
  template <class S> static MLEFAST_FN void store(S* p, Vec v, int64_t n) {
    _mm256_mask_storeu_epi16(p, first(n), narrow_halves(v, S{}));
  }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {_mm512_sqrt_ps(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ); }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ); }
  static MLEFAST_FN bool any(Mask m) { return m != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {_mm512_mask_blend_ps(m, no.v, yes.v)}; }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return a & b; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return a | b; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return {_mm512_maskz_mov_ps(m, v.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return {_mm512_mask3_fmadd_ps(a.v, b.v, c.v, m)}; }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return {_mm512_mask_add_ps(a.v, m, a.v, b.v)}; }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) { return add_where(static_cast<Mask>(~m), a, b); }
  static MLEFAST_FN Vec count(Mask m, Vec n) { return {_mm512_mask_add_ps(n.v, m, n.v, _mm512_set1_ps(1))}; }
  static MLEFAST_FN Vec counted(Vec n) { return n; }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v.v), 23))};
  }
  static MLEFAST_FN Vec power_of_table(const uint32_t (&table)[1 << table_bits], Vec v) {
    const auto bits = _mm512_castps_si512(v.v);
    const auto entry = _mm512_permutexvar_epi32(bits, _mm512_load_si512(table));
    return {_mm512_castsi512_ps(_mm512_add_epi32(entry, _mm512_slli_epi32(bits, 23 - table_bits)))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    exponent = {_mm512_getexp_ps(_mm512_mul_ps(u.v, _mm512_set1_ps(4.0f / 3)))};
    return {_mm512_scalef_ps(_mm512_set1_ps(1), _mm512_sub_ps(_mm512_setzero_ps(), exponent.v))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) { return {_mm512_castsi512_ps(_mm512_cvtps_epi32(v.v))}; }

  static MLEFAST_FN float reduce_max(Vec v) { return _mm512_reduce_max_ps(v.v); }
  static MLEFAST_FN float reduce_add(Vec v) { return _mm512_reduce_add_ps(v.v); }
  static MLEFAST_FN void widen(Vec v, Double::Vec (&wide)[2]) {
    wide[0] = {_mm512_cvtps_pd(_mm512_castps512_ps256(v.v))};
    wide[1] = {_mm512_cvtps_pd(_mm512_extractf32x8_ps(v.v, 1))};
  }
  static MLEFAST_FN Vec narrow(const Double::Vec (&wide)[2]) {
    const auto low = _mm512_castps256_ps512(_mm512_cvtpd_ps(wide[0].v));
    return {_mm512_insertf32x8(low, _mm512_cvtpd_ps(wide[1].v), 1)};
  }

  // Rows i, i + 4, i + 8, i + 12 meet in v[i], one in each quarter.
  template <class S> static MLEFAST_FN void load_columns(const S* p, int64_t row, Vec (&v)[4]) {
    for (int i = 0; i < 4; ++i) v[i] = load_fours(p + i * row, 4 * row);
    transpose_quarters(v);
  }
  template <class S> static MLEFAST_FN void store_columns(S* p, int64_t row, Vec (&v)[4]) {
    transpose_quarters(v);
    store_quarter<0>(p, row, v), store_quarter<1>(p + 4 * row, row, v);
    store_quarter<2>(p + 8 * row, row, v), store_quarter<3>(p + 12 * row, row, v);
  }
  template <int q, class S> static MLEFAST_FN void store_quarter(S* p, int64_t row, const Vec (&v)[4]) {
    for (int i = 0; i < 4; ++i) store_four<q>(p + i * row, v[i]);
  }
  static MLEFAST_FN void transpose_quarters(Vec (&v)[4]) {
    __m512d t[4];
    for (int i = 0; i < 4; i += 2) {
      t[i] = _mm512_castps_pd(_mm512_unpacklo_ps(v[i].v, v[i + 1].v));
      t[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(v[i].v, v[i + 1].v));
    }
    for (int i = 0; i < 2; ++i) {
      v[2 * i] = {_mm512_castpd_ps(_mm512_unpacklo_pd(t[i], t[i + 2]))};
      v[2 * i + 1] = {_mm512_castpd_ps(_mm512_unpackhi_pd(t[i], t[i + 2]))};
    }
  }
  static MLEFAST_FN Vec load_fours(const float* p, int64_t apart) {
    const auto four = [&](int q) { return _mm_loadu_ps(p + q * apart); };
    const auto low = _mm512_insertf32x4(_mm512_castps128_ps512(four(0)), four(1), 1);
    return {_mm512_insertf32x4(_mm512_insertf32x4(low, four(2), 2), four(3), 3)};
  }
  template <class S> static MLEFAST_FN Vec load_fours(const S* p, int64_t apart) {
    const auto four = [&](int q) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + q * apart)); };
    const auto low = _mm_unpacklo_epi64(four(0), four(1)), high = _mm_unpacklo_epi64(four(2), four(3));
    return widen_halves(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), S{});
  }
  template <int q> static MLEFAST_FN void store_four(float* p, Vec v) {
    _mm_storeu_ps(p, _mm512_extractf32x4_ps(v.v, q));
  }
  template <int q, class S> static MLEFAST_FN void store_four(S* p, Vec v) {
    const auto two = _mm256_extracti128_si256(narrow_halves(v, S{}), q / 2);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), q % 2 ? _mm_unpackhi_epi64(two, two) : two);
  }
};

}  // namespace mlefast
