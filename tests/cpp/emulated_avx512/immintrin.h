// The AVX-512 intrinsics that src/cpp/isa/avx512.hpp uses, a lane at a time: with -DMLEFAST_EMULATE_AVX512=ON that
// file's kernels run, and are tested, on a processor without AVX-512. Semantics are those of Intel's manual.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

template <class T, int N> struct Lanes {
  T lane[N];
};
using __m512 = Lanes<float, 16>;
using __m512d = Lanes<double, 8>;
using __m512i = Lanes<int32_t, 16>;
using __m256 = Lanes<float, 8>;
using __m256i = Lanes<uint16_t, 16>;
using __m128 = Lanes<float, 4>;
using __m128d = Lanes<double, 2>;
using __m128i = Lanes<uint16_t, 8>;
using __mmask8 = uint8_t;
using __mmask16 = uint16_t;

constexpr int _CMP_EQ_OQ = 0, _CMP_LT_OQ = 17, _CMP_NEQ_UQ = 4, _CMP_NLT_UQ = 21;
constexpr int _MM_FROUND_TO_NEAREST_INT = 0;

namespace emulated {

template <class To, class From> To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class V, class F> V each(F f) {
  V r{};
  for (int i = 0; i < int(sizeof r.lane / sizeof r.lane[0]); ++i) r.lane[i] = f(i);
  return r;
}

template <class M, class T, int N> M compare(Lanes<T, N> a, Lanes<T, N> b, int predicate) {
  unsigned mask = 0;
  for (int i = 0; i < N; ++i) {
    const T x = a.lane[i], y = b.lane[i];
    const bool is = predicate == _CMP_EQ_OQ    ? x == y
                    : predicate == _CMP_LT_OQ  ? x < y
                    : predicate == _CMP_NEQ_UQ ? !(x == y)
                                               : !(x < y);
    mask |= unsigned(is) << i;
  }
  return static_cast<M>(mask);
}

// Lanes of `width` pairs within each quarter of 128 bits: 0, 1, ... of a and b in turn, from the lower or upper half.
template <int half, class T, int N> Lanes<T, N> unpack(Lanes<T, N> a, Lanes<T, N> b) {
  constexpr int quarter = 16 / sizeof(T);
  return each<Lanes<T, N>>([&](int i) {
    const int from = i / quarter * quarter + half * quarter / 2 + i % quarter / 2;
    return i % 2 ? b.lane[from] : a.lane[from];
  });
}

// Quarters chosen by the bits of `control`, two from a, then two from b.
template <class T, int N> Lanes<T, N> shuffle(Lanes<T, N> a, Lanes<T, N> b, int control) {
  constexpr int quarter = N / 4;
  return each<Lanes<T, N>>([&](int i) {
    const int q = i / quarter, from = (control >> (2 * q) & 3) * quarter + i % quarter;
    return q < 2 ? a.lane[from] : b.lane[from];
  });
}

// Parts of a vector: the one that `which` counts, and a vector in which it is replaced.
template <class Part, class T, int N> Part part(Lanes<T, N> v, int which) {
  constexpr int n = int(sizeof(Part) / sizeof(T));
  return each<Part>([&](int i) { return v.lane[which * n + i]; });
}
template <class T, int N, int n> Lanes<T, N> replace(Lanes<T, N> v, Lanes<T, n> part, int which) {
  return each<Lanes<T, N>>([&](int i) { return i / n == which ? part.lane[i % n] : v.lane[i]; });
}
template <class V, class Part> V widened(Part part) {  // the rest is undefined: here what a test would notice
  V v;
  std::memset(&v, 0xff, sizeof v);
  std::memcpy(&v, &part, sizeof part);
  return v;
}

template <class T, int N> T reduce(Lanes<T, N> a, T (*f)(T, T)) {
  for (int n = N / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) a.lane[i] = f(a.lane[i], a.lane[i + n]);
  return a.lane[0];
}
template <class T> T larger(T a, T b) { return a > b ? a : b; }
template <class T> T smaller(T a, T b) { return a < b ? a : b; }
template <class T> T sum(T a, T b) { return a + b; }
template <class T> T scale(T a, T power) {
  return std::ldexp(a, int(std::fmin(std::fmax(std::floor(power), -5000), 5000)));
}

}  // namespace emulated

using emulated::each;

// clang-format off
inline __m512 _mm512_add_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return a.lane[i] + b.lane[i]; }); }
inline __m512 _mm512_sub_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return a.lane[i] - b.lane[i]; }); }
inline __m512 _mm512_mul_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return a.lane[i] * b.lane[i]; }); }
inline __m512 _mm512_div_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return a.lane[i] / b.lane[i]; }); }
inline __m512 _mm512_max_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return emulated::larger(a.lane[i], b.lane[i]); }); }
inline __m512 _mm512_min_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return emulated::smaller(a.lane[i], b.lane[i]); }); }
inline __m512 _mm512_sqrt_ps(__m512 a) { return each<__m512>([&](int i) { return std::sqrt(a.lane[i]); }); }
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) { return each<__m512>([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); }); }
inline __m512d _mm512_add_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return a.lane[i] + b.lane[i]; }); }
inline __m512d _mm512_sub_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return a.lane[i] - b.lane[i]; }); }
inline __m512d _mm512_mul_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return a.lane[i] * b.lane[i]; }); }
inline __m512d _mm512_div_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return a.lane[i] / b.lane[i]; }); }
inline __m512d _mm512_max_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return emulated::larger(a.lane[i], b.lane[i]); }); }
inline __m512d _mm512_min_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return emulated::smaller(a.lane[i], b.lane[i]); }); }
inline __m512d _mm512_sqrt_pd(__m512d a) { return each<__m512d>([&](int i) { return std::sqrt(a.lane[i]); }); }
inline __m512d _mm512_fmadd_pd(__m512d a, __m512d b, __m512d c) { return each<__m512d>([&](int i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); }); }

inline __m512 _mm512_set1_ps(float x) { return each<__m512>([&](int) { return x; }); }
inline __m512d _mm512_set1_pd(double x) { return each<__m512d>([&](int) { return x; }); }
inline __m512 _mm512_setzero_ps() { return {}; }
inline __m512d _mm512_setzero_pd() { return {}; }
inline __m512i _mm512_loadu_si512(const void* p) { __m512i v; std::memcpy(&v, p, sizeof v); return v; }
inline __m512 _mm512_loadu_ps(const void* p) { __m512 v; std::memcpy(&v, p, sizeof v); return v; }
inline __m512d _mm512_loadu_pd(const void* p) { __m512d v; std::memcpy(&v, p, sizeof v); return v; }
inline void _mm512_storeu_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof v); }
inline void _mm512_storeu_pd(void* p, __m512d v) { std::memcpy(p, &v, sizeof v); }
inline __m512 _mm512_mask_loadu_ps(__m512 fill, __mmask16 m, const float* p) { return each<__m512>([&](int i) { return m >> i & 1 ? p[i] : fill.lane[i]; }); }
inline __m512d _mm512_mask_loadu_pd(__m512d fill, __mmask8 m, const double* p) { return each<__m512d>([&](int i) { return m >> i & 1 ? p[i] : fill.lane[i]; }); }
inline void _mm512_stream_si512(__m512i* p, __m512i v) { std::memcpy(static_cast<void*>(p), &v, sizeof v); }
inline void _mm_sfence() {}
inline void _mm512_stream_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof v); }
inline void _mm512_stream_pd(void* p, __m512d v) { std::memcpy(p, &v, sizeof v); }
inline void _mm512_mask_storeu_ps(float* p, __mmask16 m, __m512 v) { for (int i = 0; i < 16; ++i) if (m >> i & 1) p[i] = v.lane[i]; }
inline void _mm512_mask_storeu_pd(double* p, __mmask8 m, __m512d v) { for (int i = 0; i < 8; ++i) if (m >> i & 1) p[i] = v.lane[i]; }

inline __m128 _mm_loadu_ps(const float* p) { __m128 v; std::memcpy(&v, p, sizeof v); return v; }
inline __m128d _mm_loadu_pd(const double* p) { __m128d v; std::memcpy(&v, p, sizeof v); return v; }
inline __m128i _mm_loadl_epi64(const __m128i* p) { __m128i v{}; std::memcpy(&v, p, 8); return v; }
inline void _mm_storeu_ps(float* p, __m128 v) { std::memcpy(p, &v, sizeof v); }
inline void _mm_storeu_pd(double* p, __m128d v) { std::memcpy(p, &v, sizeof v); }
inline void _mm_storel_epi64(__m128i* p, __m128i v) { std::memcpy(p, &v, 8); }
inline __m128i _mm_unpacklo_epi64(__m128i a, __m128i b) { return each<__m128i>([&](int i) { return i < 4 ? a.lane[i] : b.lane[i - 4]; }); }
inline __m128i _mm_unpackhi_epi64(__m128i a, __m128i b) { return each<__m128i>([&](int i) { return i < 4 ? a.lane[i + 4] : b.lane[i]; }); }

inline __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int predicate) { return emulated::compare<__mmask16>(a, b, predicate); }
inline __mmask8 _mm512_cmp_pd_mask(__m512d a, __m512d b, int predicate) { return emulated::compare<__mmask8>(a, b, predicate); }
inline __m512 _mm512_mask_blend_ps(__mmask16 m, __m512 no, __m512 yes) { return each<__m512>([&](int i) { return m >> i & 1 ? yes.lane[i] : no.lane[i]; }); }
inline __m512d _mm512_mask_blend_pd(__mmask8 m, __m512d no, __m512d yes) { return each<__m512d>([&](int i) { return m >> i & 1 ? yes.lane[i] : no.lane[i]; }); }
inline __m512 _mm512_maskz_mov_ps(__mmask16 m, __m512 v) { return _mm512_mask_blend_ps(m, {}, v); }
inline __m512d _mm512_maskz_mov_pd(__mmask8 m, __m512d v) { return _mm512_mask_blend_pd(m, {}, v); }
inline __m512 _mm512_mask3_fmadd_ps(__m512 a, __m512 b, __m512 c, __mmask16 m) { return _mm512_mask_blend_ps(m, c, _mm512_fmadd_ps(a, b, c)); }
inline __m512d _mm512_mask3_fmadd_pd(__m512d a, __m512d b, __m512d c, __mmask8 m) { return _mm512_mask_blend_pd(m, c, _mm512_fmadd_pd(a, b, c)); }
inline __m512 _mm512_mask_add_ps(__m512 other, __mmask16 m, __m512 a, __m512 b) { return _mm512_mask_blend_ps(m, other, _mm512_add_ps(a, b)); }
inline __m512d _mm512_mask_add_pd(__m512d other, __mmask8 m, __m512d a, __m512d b) { return _mm512_mask_blend_pd(m, other, _mm512_add_pd(a, b)); }

inline __m512 _mm512_scalef_ps(__m512 a, __m512 b) { return each<__m512>([&](int i) { return emulated::scale(a.lane[i], b.lane[i]); }); }
inline __m512d _mm512_scalef_pd(__m512d a, __m512d b) { return each<__m512d>([&](int i) { return emulated::scale(a.lane[i], b.lane[i]); }); }
inline __m512 _mm512_getexp_ps(__m512 a) { return each<__m512>([&](int i) { return std::logb(a.lane[i]); }); }
inline __m512d _mm512_getexp_pd(__m512d a) { return each<__m512d>([&](int i) { return std::logb(a.lane[i]); }); }

inline __m512i _mm512_cvtps_epi32(__m512 v) { return each<__m512i>([&](int i) { return int32_t(std::lrint(v.lane[i])); }); }
inline __m512i _mm512_cvtpd_epi64(__m512d v) { return emulated::bits_as<__m512i>(each<Lanes<int64_t, 8>>([&](int i) { return int64_t(std::llrint(v.lane[i])); })); }
inline __m512d _mm512_cvtps_pd(__m256 v) { return each<__m512d>([&](int i) { return double(v.lane[i]); }); }
inline __m256 _mm512_cvtpd_ps(__m512d v) { return each<__m256>([&](int i) { return float(v.lane[i]); }); }
inline __m512 _mm512_castsi512_ps(__m512i v) { return emulated::bits_as<__m512>(v); }
inline __m512d _mm512_castsi512_pd(__m512i v) { return emulated::bits_as<__m512d>(v); }
inline __m512d _mm512_castps_pd(__m512 v) { return emulated::bits_as<__m512d>(v); }
inline __m512 _mm512_castpd_ps(__m512d v) { return emulated::bits_as<__m512>(v); }
inline __m256 _mm512_castps512_ps256(__m512 v) { return each<__m256>([&](int i) { return v.lane[i]; }); }
inline __m512 _mm512_castps256_ps512(__m256 v) { return emulated::widened<__m512>(v); }
inline __m256 _mm512_extractf32x8_ps(__m512 v, int half) { return emulated::part<__m256>(v, half); }
inline __m512 _mm512_insertf32x8(__m512 v, __m256 part, int half) { return emulated::replace(v, part, half); }
inline __m512 _mm512_castps128_ps512(__m128 v) { return emulated::widened<__m512>(v); }
inline __m128 _mm512_extractf32x4_ps(__m512 v, int quarter) { return emulated::part<__m128>(v, quarter); }
inline __m512 _mm512_insertf32x4(__m512 v, __m128 part, int quarter) { return emulated::replace(v, part, quarter); }
inline __m512d _mm512_castpd128_pd512(__m128d v) { return emulated::widened<__m512d>(v); }
inline __m128d _mm512_extractf64x2_pd(__m512d v, int quarter) { return emulated::part<__m128d>(v, quarter); }
inline __m512d _mm512_insertf64x2(__m512d v, __m128d part, int quarter) { return emulated::replace(v, part, quarter); }
inline __m256i _mm256_castsi128_si256(__m128i v) { return emulated::widened<__m256i>(v); }
inline __m128i _mm256_extracti128_si256(__m256i v, int half) { return emulated::part<__m128i>(v, half); }
inline __m256i _mm256_inserti128_si256(__m256i v, __m128i part, int half) { return emulated::replace(v, part, half); }

inline __m512i _mm512_castps_si512(__m512 v) { return emulated::bits_as<__m512i>(v); }
inline __m512i _mm512_set1_epi32(int32_t x) { return each<__m512i>([&](int) { return x; }); }
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) { return each<__m512i>([&](int i) { return int32_t(uint32_t(a.lane[i]) + uint32_t(b.lane[i])); }); }
inline __m512i _mm512_permutexvar_epi32(__m512i index, __m512i v) { return each<__m512i>([&](int i) { return v.lane[index.lane[i] & 15]; }); }
inline __m512i _mm512_load_si512(const void* p) { __m512i v; std::memcpy(&v, p, sizeof v); return v; }
inline __m512i _mm512_and_si512(__m512i a, __m512i b) { return each<__m512i>([&](int i) { return a.lane[i] & b.lane[i]; }); }
inline __m512i _mm512_or_si512(__m512i a, __m512i b) { return each<__m512i>([&](int i) { return a.lane[i] | b.lane[i]; }); }
inline __m512i _mm512_srli_epi32(__m512i v, int n) { return each<__m512i>([&](int i) { return int32_t(uint32_t(v.lane[i]) >> n); }); }
inline __m512i _mm512_slli_epi32(__m512i v, int n) { return each<__m512i>([&](int i) { return int32_t(uint32_t(v.lane[i]) << n); }); }
inline __m512i _mm512_castpd_si512(__m512d v) { return emulated::bits_as<__m512i>(v); }
inline __m512i _mm512_slli_epi64(__m512i v, int n) { const auto wide = emulated::bits_as<Lanes<uint64_t, 8>>(v); return emulated::bits_as<__m512i>(each<Lanes<uint64_t, 8>>([&](int i) { return wide.lane[i] << n; })); }
inline __m512i _mm512_mask_blend_epi32(__mmask16 m, __m512i no, __m512i yes) { return each<__m512i>([&](int i) { return m >> i & 1 ? yes.lane[i] : no.lane[i]; }); }
inline __m512i _mm512_cvtepu16_epi32(__m256i v) { return each<__m512i>([&](int i) { return int32_t(v.lane[i]); }); }
inline __m256i _mm512_cvtepi32_epi16(__m512i v) { return each<__m256i>([&](int i) { return uint16_t(v.lane[i]); }); }
inline void _mm256_stream_si256(__m256i* p, __m256i v) { std::memcpy(static_cast<void*>(p), &v, sizeof v); }
inline __m256i _mm256_set1_epi16(int16_t x) { return each<__m256i>([&](int) { return uint16_t(x); }); }
inline __m256i _mm256_loadu_si256(const __m256i* p) { __m256i v; std::memcpy(&v, p, sizeof v); return v; }
inline void _mm256_storeu_si256(__m256i* p, __m256i v) { std::memcpy(p, &v, sizeof v); }
inline __m256i _mm256_mask_loadu_epi16(__m256i fill, __mmask16 m, const void* p) { return each<__m256i>([&](int i) { return m >> i & 1 ? static_cast<const uint16_t*>(p)[i] : fill.lane[i]; }); }
inline void _mm256_mask_storeu_epi16(void* p, __mmask16 m, __m256i v) { for (int i = 0; i < 16; ++i) if (m >> i & 1) static_cast<uint16_t*>(p)[i] = v.lane[i]; }
inline __m512 _mm512_cvtph_ps(__m256i v) { return each<__m512>([&](int i) { return float(emulated::bits_as<_Float16>(v.lane[i])); }); }
inline __m256i _mm512_cvtps_ph(__m512 v, int) { return each<__m256i>([&](int i) { return emulated::bits_as<uint16_t>(static_cast<_Float16>(v.lane[i])); }); }

inline float _mm512_reduce_max_ps(__m512 v) { return emulated::reduce(v, emulated::larger<float>); }
inline double _mm512_reduce_max_pd(__m512d v) { return emulated::reduce(v, emulated::larger<double>); }
inline float _mm512_reduce_add_ps(__m512 v) { return emulated::reduce(v, emulated::sum<float>); }
inline double _mm512_reduce_add_pd(__m512d v) { return emulated::reduce(v, emulated::sum<double>); }
inline __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) { return emulated::unpack<0>(a, b); }
inline __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) { return emulated::unpack<1>(a, b); }
inline __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) { return emulated::unpack<0>(a, b); }
inline __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) { return emulated::unpack<1>(a, b); }
// clang-format on
