// tanh and the normal distribution over any instruction set, with their slopes, and several vectors at a time:
// `TrainingMath<Isa>` is the `Ops` that the activations of rules/training.h are written over.
//
// | function     | value                   | slope                                    | at -inf, inf             |
// |--------------|-------------------------|------------------------------------------|--------------------------|
// | tanh         | 2 ULP                   | 4 ULP                                    | -1, 1; slopes 0, 0       |
// | times_normal | 7 ULP of z Phi(z)       | 7 ULP of the larger one of its two terms | 0 (the limit), inf;      |
// |              |                         | Phi(z) and z Phi'(z), which cancel       | slopes 0, 1              |
//
// for all arguments, tails included: to results that are denormal numbers half a unit is added. NaN gives NaN. The
// tests hold float32 and sampled float64 to that table (measured: tanh 1.3 and 3.3, times_normal 6.3 and 5.8).
#pragma once

#include "math.hpp"

namespace mlefast {

template <class T> struct TrainingConstants;

// Coefficients by tools/minimax.py; `last` is a number beyond which exp(-t^2/2) is exactly 0.
template <> struct TrainingConstants<float> {
  static constexpr int tanh_terms = 6;
  static constexpr float tanh_c[tanh_terms] = {-0x1.55555p-2f, 0x1.110f52p-3f,  -0x1.b9bb3cp-5f,
                                               0x1.617fecp-6f, -0x1.02972ap-7f, 0x1.f2551cp-10f};
  static constexpr float pole = 3, last = 15;
  static constexpr int normal_terms = 11;
  static constexpr float normal_c[normal_terms] = {0x1.754a76p-1f,   -0x1.04c72ap-1f, 0x1.d712aap-3f,  -0x1.832c1cp-5f,
                                                   -0x1.56515ep-7f,  0x1.c8b2e8p-8f,  0x1.fe4884p-11f, -0x1.111f62p-10f,
                                                   -0x1.847538p-13f, 0x1.3c34d6p-13f, 0x1.61a1b8p-15f};
  static constexpr float splitter = 0x1p12f + 1;
};

template <> struct TrainingConstants<double> {
  static constexpr int tanh_terms = 12;
  static constexpr double tanh_c[tanh_terms] = {-0x1.5555555555529p-2,  0x1.111111110e0a8p-3,   -0x1.ba1ba1b7cca1p-5,
                                                0x1.664f48116787dp-6,   -0x1.226e2896c8ec4p-7,  0x1.d6d1f934a646cp-9,
                                                -0x1.7d8c95463a6bfp-10, 0x1.3495bea16f073p-11,  -0x1.ec7e1bf9ad13cp-13,
                                                0x1.71a01c452036dp-14,  -0x1.c620a7205a2d4p-16, 0x1.42285d39d6688p-18};
  static constexpr double pole = 4, last = 39;
  static constexpr int normal_terms = 25;
  static constexpr double normal_c[normal_terms] = {
      0x1.82b4bb8c94dcep-1,  -0x1.373e3a893c28ap-1,  0x1.8c6dbf2cfc22cp-2,   -0x1.7dff2bff6835cp-3,
      0x1.eec4cc3e5b88ep-5,  -0x1.ee2761049d956p-8,  -0x1.c81719e84923ep-9,  0x1.ab825fc8753d4p-10,
      0x1.17a4bb212dcfdp-13, -0x1.e4a426a91510fp-13, -0x1.003302f94ff01p-19, 0x1.26d092f47891fp-15,
      0x1.81fe459fc740ep-21, -0x1.8d456457b22bdp-18, -0x1.554426d4f4003p-21, 0x1.11c8cb5fe8da8p-20,
      0x1.2e8d783079c5fp-22, -0x1.449ae67da9152p-23, -0x1.9b5e0e65c8f48p-24, 0x1.1a15e907327ap-27,
      0x1.b8d625fb6d633p-26, 0x1.7d0840d951719p-28,  -0x1.0f0dd30b45639p-28, -0x1.f1a0e928d3d32p-30,
      -0x1.42e1ed62abbc9p-34};
  static constexpr double splitter = 0x1p27 + 1;
};

template <class Isa> struct TrainingMath : Math<Isa> {
  using Value = typename Isa::Value;
  using Vec = typename Isa::Vec;
  using Constants = TrainingConstants<Value>;
  using Exp = MathConstants<Value>;

  // With m = 2 / (exp(2|z|) + 1): tanh |z| = 1 - m, which cancels below 0.7, and the slope 1 - tanh^2 = m (2 - m).
  static MLEFAST_FN Vec tanh(Vec z, Vec& slope) {
    const Vec zero = Isa::set(0), one = Isa::set(1), two = Isa::set(2), size = Isa::max(z, zero - z);
    const Vec e = Math<Isa>::exp(zero - (size + size)), m = (e + e) / (one + e);
    slope = m * (two - m);
    const Vec far = one - m, signed_far = Isa::select(Isa::less(z, zero), zero - far, far);
    const Vec square = z * z, near = Isa::fma(z, square * polynomial<Constants::tanh_c>(square), z);
    return Isa::select(Isa::less(size, Isa::set(Value(0.7))), near, signed_far);
  }

  // With t = |z|: Phi(-t) = exp(-t^2/2) tail, tail = G(u) / (t + pole); the rest follows from Phi(t) = 1 - Phi(-t).
  static MLEFAST_FN Vec times_normal(Vec z, Vec& slope) {
    const Vec zero = Isa::set(0), one = Isa::set(1), pole = Isa::set(Constants::pole);
    const Vec last = Isa::set(Constants::last), size = Isa::max(z, zero - z);
    const Vec t = Isa::select(Isa::less(last, size), last, size);  // so that no infinity meets another
    const Vec square = t * t, half = Isa::set(Value(0.5));
    Vec v[1] = {zero - half * square};
    Math<Isa>::exp_scaled(v);  // times Exp::scale, so that it is no denormal number
    const Vec e = Isa::fma(v[0], (zero - half) * rounding_of_square(t, square), v[0]);
    const Vec by = one / (t + pole), tail = polynomial<Constants::normal_c>((t - pole) * by) * by;
    const Vec unscale = Isa::set(Exp::unscale), density = Isa::set(Value(0.39894228040143268)) * t;
    const auto negative = Isa::less(z, zero);
    const Vec below = e * (tail - density) * unscale;
    slope = Isa::select(negative, below, one - below);
    return Isa::select(negative, zero - (e * (tail * t)) * unscale, z * (one - (e * unscale) * tail));
  }

 private:
  template <const auto& c, int k = 0> static MLEFAST_FN Vec polynomial(Vec x) {
    if constexpr (k + 1 == sizeof c / sizeof c[0])
      return Isa::set(c[k]);
    else
      return Isa::fma(polynomial<c, k + 1>(x), x, Isa::set(c[k]));
  }

  // x^2 - square, which the exponential would multiply by the square's size; without fma by T. J. Dekker, 1971.
  static MLEFAST_FN Vec rounding_of_square(Vec x, Vec square) {
    if constexpr (Isa::fuses) return Isa::fma(x, x, Isa::set(0) - square);
    const Vec shifted = x * Isa::set(Constants::splitter), high = shifted - (shifted - x), low = x - high;
    const Vec cross = high * low;
    return ((high * high - square) + (cross + cross)) + low * low;
  }
};

// K vectors as one, for formulas whose operations depend on each other: those of K vectors alternate, because the
// processor looks ahead by less than the length of two such chains.
template <class Isa, int K> struct Several {
  using Value = typename Isa::Value;
  static constexpr int lanes = K * Isa::lanes;
  static constexpr bool fuses = Isa::fuses;
  static constexpr int table_bits = 0;

  struct Vec {
    typename Isa::Vec v[K];
    friend MLEFAST_FN Vec operator+(const Vec& a, const Vec& b) {
      return each([&](int q) { return a.v[q] + b.v[q]; });
    }
    friend MLEFAST_FN Vec operator-(const Vec& a, const Vec& b) {
      return each([&](int q) { return a.v[q] - b.v[q]; });
    }
    friend MLEFAST_FN Vec operator*(const Vec& a, const Vec& b) {
      return each([&](int q) { return a.v[q] * b.v[q]; });
    }
    friend MLEFAST_FN Vec operator/(const Vec& a, const Vec& b) {
      return each([&](int q) { return a.v[q] / b.v[q]; });
    }
  };
  struct Mask {
    typename Isa::Mask m[K];
  };

  template <class F> static MLEFAST_FN Vec each(const F& f) {
    Vec result;
    for (int q = 0; q < K; ++q) result.v[q] = f(q);
    return result;
  }
  template <class F> static MLEFAST_FN Mask each_mask(const F& f) {
    Mask result;
    for (int q = 0; q < K; ++q) result.m[q] = f(q);
    return result;
  }

  static MLEFAST_FN Vec set(Value x) {
    return each([=](int) { return Isa::set(x); });
  }
  static MLEFAST_FN Vec constant(Value x) {
    const auto one = Isa::constant(x);
    return each([=](int) { return one; });
  }
  static MLEFAST_FN Vec load(const Value* p) {
    return each([=](int q) { return Isa::load(p + q * Isa::lanes); });
  }
  static MLEFAST_FN void store(Value* p, const Vec& a) {
    for (int q = 0; q < K; ++q) Isa::store(p + q * Isa::lanes, a.v[q]);
  }
  static MLEFAST_FN Vec fma(const Vec& a, const Vec& b, const Vec& c) {
    return each([&](int q) { return Isa::fma(a.v[q], b.v[q], c.v[q]); });
  }
  static MLEFAST_FN Vec sqrt(const Vec& a) {
    return each([&](int q) { return Isa::sqrt(a.v[q]); });
  }
  static MLEFAST_FN Vec max(const Vec& a, const Vec& b) {
    return each([&](int q) { return Isa::max(a.v[q], b.v[q]); });
  }
  static MLEFAST_FN Vec min(const Vec& a, const Vec& b) {
    return each([&](int q) { return Isa::min(a.v[q], b.v[q]); });
  }
  static MLEFAST_FN Mask less(const Vec& a, const Vec& b) {
    return each_mask([&](int q) { return Isa::less(a.v[q], b.v[q]); });
  }
  static MLEFAST_FN Mask not_less(const Vec& a, const Vec& b) {
    return each_mask([&](int q) { return Isa::not_less(a.v[q], b.v[q]); });
  }
  static MLEFAST_FN Vec select(const Mask& m, const Vec& yes, const Vec& no) {
    return each([&](int q) { return Isa::select(m.m[q], yes.v[q], no.v[q]); });
  }
  static MLEFAST_FN Vec keep(const Mask& m, const Vec& a) {
    return each([&](int q) { return Isa::keep(m.m[q], a.v[q]); });
  }
  static MLEFAST_FN Vec power_of_two(const Vec& a) {
    return each([&](int q) { return Isa::power_of_two(a.v[q]); });
  }
};

}  // namespace mlefast
