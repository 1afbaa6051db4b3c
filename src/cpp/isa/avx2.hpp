// AVX2, FMA and F16C: 8 floats or 4 doubles, masks as vectors. The contract is in scalar.hpp.
#pragma once

#include <immintrin.h>

#include "scalar.hpp"

namespace mlefast {

template <class T> struct Avx2;

template <> struct Avx2<double> {
  using Value = double;
  static constexpr int lanes = 4, columns = 2, table_bits = 0;
  static constexpr bool fuses = true, streams = true;

  struct Vec {
    __m256d v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.v, b.v)}; }
  };
  struct Mask {
    __m256d v;
  };

  static MLEFAST_FN __m256i first(int64_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  static MLEFAST_FN Vec set(double x) { return {_mm256_set1_pd(x)}; }
  // A value that the compiler cannot trace back to memory.
  static MLEFAST_FN Vec constant(double x) {
    Vec v = set(x);
    asm volatile("" : "+x"(v.v));
    return v;
  }
  static MLEFAST_FN Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static MLEFAST_FN Vec load(const double* p, int64_t n, double fill) {
    const auto lanes_in = first(n);
    return {_mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, lanes_in), _mm256_castsi256_pd(lanes_in))};
  }
  static MLEFAST_FN void store(double* p, Vec v) { _mm256_storeu_pd(p, v.v); }
  static MLEFAST_FN void stream(double* p, Vec v) { _mm256_stream_pd(p, v.v); }
  static MLEFAST_FN void store(double* p, Vec v, int64_t n) { _mm256_maskstore_pd(p, first(n), v.v); }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {_mm256_sqrt_pd(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {_mm256_min_pd(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ)}; }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_NLT_UQ)}; }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_EQ_OQ)}; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return {_mm256_cmp_pd(a.v, b.v, _CMP_NEQ_UQ)}; }
  static MLEFAST_FN bool any(Mask m) { return _mm256_movemask_pd(m.v) != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {_mm256_blendv_pd(no.v, yes.v, m.v)}; }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return {_mm256_and_pd(a.v, b.v)}; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return {_mm256_or_pd(a.v, b.v)}; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return {_mm256_and_pd(m.v, v.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return fma(keep(m, a), b, c); }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return a + keep(m, b); }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) { return a + Vec{_mm256_andnot_pd(m.v, b.v)}; }
  static MLEFAST_FN Vec count(Mask m, Vec n) {
    return {_mm256_castsi256_pd(_mm256_sub_epi64(_mm256_castpd_si256(n.v), _mm256_castpd_si256(m.v)))};
  }
  static MLEFAST_FN Vec counted(Vec n) {
    const auto two52 = _mm256_set1_pd(0x1p52);  // an integer below 2^52, or-ed into its bits, becomes a double
    return {_mm256_sub_pd(_mm256_or_pd(n.v, two52), two52)};
  }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(v.v), 52))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    // AVX2 shifts no negative numbers of 64 bits: k + 1024 is never one.
    const auto bias = _mm256_set1_epi64x(int64_t(1024) << 52);
    const auto base = _mm256_sub_epi64(_mm256_castpd_si256(_mm256_set1_pd(0.75)), bias);
    const auto k = _mm256_srli_epi64(_mm256_sub_epi64(_mm256_castpd_si256(u.v), base), 52);
    const auto two52 = _mm256_set1_pd(0x1p52);  // an integer below 2^52, or-ed into its bits, becomes a double
    const auto sum = _mm256_castsi256_pd(_mm256_or_si256(k, _mm256_castpd_si256(two52)));
    exponent = {_mm256_sub_pd(sum, _mm256_set1_pd(0x1p52 + 1024))};
    const auto one = _mm256_add_epi64(_mm256_castpd_si256(_mm256_set1_pd(1)), bias);
    return {_mm256_castsi256_pd(_mm256_sub_epi64(one, _mm256_slli_epi64(k, 52)))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) {
    const auto two52 = _mm256_set1_pd(0x1p52);
    const auto sum = _mm256_castpd_si256(_mm256_add_pd(v.v, two52));
    return {_mm256_castsi256_pd(_mm256_sub_epi64(sum, _mm256_castpd_si256(two52)))};
  }

  static MLEFAST_FN double reduce_max(Vec v) {
    const auto half = _mm_max_pd(_mm256_castpd256_pd128(v.v), _mm256_extractf128_pd(v.v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(half, _mm_unpackhi_pd(half, half)));
  }
  static MLEFAST_FN double reduce_add(Vec v) {
    const auto half = _mm_add_pd(_mm256_castpd256_pd128(v.v), _mm256_extractf128_pd(v.v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
  }

  // Rows 0 and 2 meet in v[0], rows 1 and 3 in v[1], one in each half.
  static MLEFAST_FN void load_columns(const double* p, int64_t row, Vec (&v)[2]) {
    for (int i = 0; i < 2; ++i, p += row) {
      const auto low = _mm256_castpd128_pd256(_mm_loadu_pd(p));
      v[i] = {_mm256_insertf128_pd(low, _mm_loadu_pd(p + 2 * row), 1)};
    }
    transpose_halves(v);
  }
  static MLEFAST_FN void store_columns(double* p, int64_t row, Vec (&v)[2]) {
    transpose_halves(v);
    for (int i = 0; i < 2; ++i, p += row) _mm_storeu_pd(p, _mm256_castpd256_pd128(v[i].v));
    for (int i = 0; i < 2; ++i, p += row) _mm_storeu_pd(p, _mm256_extractf128_pd(v[i].v, 1));
  }
  static MLEFAST_FN void transpose_halves(Vec (&v)[2]) {
    const auto low = _mm256_unpacklo_pd(v[0].v, v[1].v);
    v[1] = {_mm256_unpackhi_pd(v[0].v, v[1].v)}, v[0] = {low};
  }
};

template <> struct Avx2<float> {
  using Value = float;
  using Double = Avx2<double>;
  static constexpr int lanes = 8, columns = 4, table_bits = 2;
  static constexpr bool fuses = true, streams = true;

  struct Vec {
    __m256 v;
    friend MLEFAST_FN Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend MLEFAST_FN Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  };
  struct Mask {
    __m256 v;
  };

  static MLEFAST_FN __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static MLEFAST_FN Vec set(float x) { return {_mm256_set1_ps(x)}; }
  static MLEFAST_FN Vec constant(float x) {
    Vec v = set(x);
    asm volatile("" : "+x"(v.v));
    return v;
  }
  static MLEFAST_FN Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static MLEFAST_FN Vec load(const float* p, int64_t n, float fill) {
    const auto lanes_in = first(n);
    return {_mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, lanes_in), _mm256_castsi256_ps(lanes_in))};
  }
  static MLEFAST_FN void store(float* p, Vec v) { _mm256_storeu_ps(p, v.v); }
  static MLEFAST_FN void stream(float* p, Vec v) { _mm256_stream_ps(p, v.v); }
  static MLEFAST_FN void store(float* p, Vec v, int64_t n) { _mm256_maskstore_ps(p, first(n), v.v); }

  static MLEFAST_FN __m128i load_halves(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static MLEFAST_FN Vec widen_halves(__m128i v, Float16) { return {_mm256_cvtph_ps(v)}; }
  static MLEFAST_FN Vec widen_halves(__m128i v, BFloat16) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16))};
  }
  static MLEFAST_FN __m128i narrow_halves(Vec v, Float16) { return _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT); }
  static MLEFAST_FN __m128i narrow_halves(Vec v, BFloat16) {
    const auto u = _mm256_castps_si256(v.v), high = _mm256_srli_epi32(u, 16);
    const auto half = _mm256_add_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    const auto rounded = _mm256_srli_epi32(_mm256_add_epi32(u, half), 16);
    const auto quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const auto is_nan = _mm256_castps_si256(_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q));
    const auto words = _mm256_blendv_epi8(rounded, quiet, is_nan);
    const auto packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    return _mm256_castsi256_si128(packed);
  }
  template <class S> static MLEFAST_FN Vec load(const S* p) { return widen_halves(load_halves(p), S{}); }
  template <class S> static MLEFAST_FN void store(S* p, Vec v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_halves(v, S{}));
  }
  template <class S> static MLEFAST_FN void stream(S* p, Vec v) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), narrow_halves(v, S{}));
  }
  template <class S> static MLEFAST_FN Vec load(const S* p, int64_t n, float fill) {
    return load_part<Avx2>(p, n, fill);
  }
  template <class S> static MLEFAST_FN void store(S* p, Vec v, int64_t n) { store_part<Avx2>(p, v, n); }

  static MLEFAST_FN Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static MLEFAST_FN Vec sqrt(Vec v) { return {_mm256_sqrt_ps(v.v)}; }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
  static MLEFAST_FN Mask not_less(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NLT_UQ)}; }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
  static MLEFAST_FN bool any(Mask m) { return _mm256_movemask_ps(m.v) != 0; }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
  static MLEFAST_FN Mask both(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
  static MLEFAST_FN Mask either(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return {_mm256_and_ps(m.v, v.v)}; }
  static MLEFAST_FN Vec fma_where(Mask m, Vec a, Vec b, Vec c) { return fma(keep(m, a), b, c); }
  static MLEFAST_FN Vec add_where(Mask m, Vec a, Vec b) { return a + keep(m, b); }
  static MLEFAST_FN Vec add_unless(Mask m, Vec a, Vec b) { return a + Vec{_mm256_andnot_ps(m.v, b.v)}; }
  static MLEFAST_FN Vec count(Mask m, Vec n) {
    return {_mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(n.v), _mm256_castps_si256(m.v)))};
  }
  static MLEFAST_FN Vec counted(Vec n) { return {_mm256_cvtepi32_ps(_mm256_castps_si256(n.v))}; }

  static MLEFAST_FN Vec power_of_two(Vec v) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v.v), 23))};
  }
  static MLEFAST_FN Vec power_of_table(const uint32_t (&table)[1 << table_bits], Vec v) {
    const auto bits = _mm256_castps_si256(v.v);
    const auto all = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(table));
    const auto entry = _mm256_castps_si256(_mm256_permutevar_ps(all, bits));
    return {_mm256_castsi256_ps(_mm256_add_epi32(entry, _mm256_slli_epi32(bits, 23 - table_bits)))};
  }
  static MLEFAST_FN Vec split_exponent(Vec u, Vec& exponent) {
    const auto three_quarters = _mm256_castps_si256(_mm256_set1_ps(0.75f));
    const auto k = _mm256_srai_epi32(_mm256_sub_epi32(_mm256_castps_si256(u.v), three_quarters), 23);
    exponent = {_mm256_cvtepi32_ps(k)};
    const auto one = _mm256_castps_si256(_mm256_set1_ps(1));
    return {_mm256_castsi256_ps(_mm256_sub_epi32(one, _mm256_slli_epi32(k, 23)))};
  }
  static MLEFAST_FN Vec round_to_denormal(Vec v) { return {_mm256_castsi256_ps(_mm256_cvtps_epi32(v.v))}; }

  static MLEFAST_FN float reduce_max(Vec v) {
    auto half = _mm_max_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
  static MLEFAST_FN float reduce_add(Vec v) {
    auto half = _mm_add_ps(_mm256_castps256_ps128(v.v), _mm256_extractf128_ps(v.v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  static MLEFAST_FN void widen(Vec v, Double::Vec (&wide)[2]) {
    wide[0] = {_mm256_cvtps_pd(_mm256_castps256_ps128(v.v))};
    wide[1] = {_mm256_cvtps_pd(_mm256_extractf128_ps(v.v, 1))};
  }
  static MLEFAST_FN Vec narrow(const Double::Vec (&wide)[2]) {
    return {_mm256_set_m128(_mm256_cvtpd_ps(wide[1].v), _mm256_cvtpd_ps(wide[0].v))};
  }

  // Rows i and i + 4 meet in v[i], one in each half.
  template <class S> static MLEFAST_FN void load_columns(const S* p, int64_t row, Vec (&v)[4]) {
    for (int i = 0; i < 4; ++i, p += row) v[i] = load_fours(p, p + 4 * row);
    transpose_halves(v);
  }
  template <class S> static MLEFAST_FN void store_columns(S* p, int64_t row, Vec (&v)[4]) {
    transpose_halves(v);
    for (int i = 0; i < 4; ++i, p += row) store_low_four(p, v[i]);
    for (int i = 0; i < 4; ++i, p += row) store_high_four(p, v[i]);
  }
  static MLEFAST_FN void transpose_halves(Vec (&v)[4]) {
    const auto a = _mm256_unpacklo_ps(v[0].v, v[1].v), b = _mm256_unpackhi_ps(v[0].v, v[1].v);
    const auto c = _mm256_unpacklo_ps(v[2].v, v[3].v), d = _mm256_unpackhi_ps(v[2].v, v[3].v);
    v[0] = {_mm256_shuffle_ps(a, c, 0x44)}, v[1] = {_mm256_shuffle_ps(a, c, 0xee)};
    v[2] = {_mm256_shuffle_ps(b, d, 0x44)}, v[3] = {_mm256_shuffle_ps(b, d, 0xee)};
  }
  static MLEFAST_FN Vec load_fours(const float* low, const float* high) {
    return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1)};
  }
  template <class S> static MLEFAST_FN Vec load_fours(const S* low, const S* high) {
    const auto a = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(low));
    const auto b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(high));
    return widen_halves(_mm_unpacklo_epi64(a, b), S{});
  }
  static MLEFAST_FN void store_low_four(float* p, Vec v) { _mm_storeu_ps(p, _mm256_castps256_ps128(v.v)); }
  static MLEFAST_FN void store_high_four(float* p, Vec v) { _mm_storeu_ps(p, _mm256_extractf128_ps(v.v, 1)); }
  template <class S> static MLEFAST_FN void store_low_four(S* p, Vec v) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), narrow_halves(v, S{}));
  }
  template <class S> static MLEFAST_FN void store_high_four(S* p, Vec v) {
    const auto all = narrow_halves(v, S{});
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpackhi_epi64(all, all));
  }
};

}  // namespace mlefast
