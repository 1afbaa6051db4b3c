// A CUDA thread as the `Ops` that the rules in ../rules are written over: it plays the part of a SIMD lane.
#pragma once

#include "../rules/term_losses.h"

namespace mlefast {

template <class T> struct Thread;

template <> struct Thread<float> {
  using Value = float;
  using Vec = float;
  using Mask = bool;

  static MLEFAST_FN Vec infinity() { return __int_as_float(0x7f800000); }  // NVRTC has no <limits>
  static MLEFAST_FN Vec nan() { return __int_as_float(0x7fc00000); }
  static MLEFAST_FN Vec set(float x) { return x; }
  static MLEFAST_FN Vec exp(Vec x) { return expf(x); }
  static MLEFAST_FN Vec log1p(Vec x) { return log1pf(x); }
  static MLEFAST_FN Vec add_log1p(Vec a, Vec x) { return a + log1pf(x); }
  static MLEFAST_FN Vec log(Vec x) { return logf(x); }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return fmaxf(a, b); }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return fminf(a, b); }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return a < b; }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return a == b; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return !(a == b); }
  static MLEFAST_FN bool any(Mask m) { return m; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return m ? v : Vec(0); }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return m ? yes : no; }
};

template <> struct Thread<double> {
  using Value = double;
  using Vec = double;
  using Mask = bool;

  static MLEFAST_FN Vec infinity() { return __hiloint2double(0x7ff00000, 0); }
  static MLEFAST_FN Vec nan() { return __hiloint2double(0x7ff80000, 0); }
  static MLEFAST_FN Vec set(double x) { return x; }
  static MLEFAST_FN Vec exp(Vec x) { return ::exp(x); }
  static MLEFAST_FN Vec log1p(Vec x) { return ::log1p(x); }
  static MLEFAST_FN Vec add_log1p(Vec a, Vec x) { return a + ::log1p(x); }
  static MLEFAST_FN Vec log(Vec x) { return ::log(x); }
  static MLEFAST_FN Vec max(Vec a, Vec b) { return fmax(a, b); }
  static MLEFAST_FN Vec min(Vec a, Vec b) { return fmin(a, b); }
  static MLEFAST_FN Mask less(Vec a, Vec b) { return a < b; }
  static MLEFAST_FN Mask equal(Vec a, Vec b) { return a == b; }
  static MLEFAST_FN Mask unlike(Vec a, Vec b) { return !(a == b); }
  static MLEFAST_FN bool any(Mask m) { return m; }
  static MLEFAST_FN Vec keep(Mask m, Vec v) { return m ? v : Vec(0); }
  static MLEFAST_FN Vec select(Mask m, Vec yes, Vec no) { return m ? yes : no; }
};

}  // namespace mlefast
