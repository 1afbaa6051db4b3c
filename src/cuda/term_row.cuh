// The losses of rules/term_losses.h on a GPU: what a call gives, what one row makes of it, and the passes that a loss
// asks for over the elements that a thread holds. term_kernels.cuh says which thread holds what.
#pragma once

#include "call.cuh"
#include "reduce.cuh"

namespace mlefast {

template <class T> struct TermCall {
  using Value = typename Storage<T>::Value;

  const T* x;     // logits: a row's classes are contiguous, here and in all arrays of their shape
  T* out;         // the first output or null; may be x itself with x's stride
  Value* second;  // the second output
  const Value *probabilities, *v, *u;
  int64 rows, classes;  // of an elementwise loss: the number of elements, and how many of them a block takes
  int64 x_row, out_row, second_row, probabilities_row, v_row, u_row;
  int64 inner, step;  // across: so many rows are neighbours, and all arrays have the logits' strides

  const void* target;  // contiguous integers, one for each row, or null
  Integer target_kind;
  int64 ignore_index;
  const Value *weight, *positive;  // factors for each class, or null
  int64 period;                    // of an elementwise loss: how many classes its elements go through
  const Value *upstream, *second_upstream;
  int64 upstream_row, second_upstream_row;  // 1: a factor for each row; 0: one for all
  double scale, second_scale;
  const double* scale_at;  // null, or where a factor of both scales will stand when the kernel runs

  rules::Options options;
  Value *value, *second_value;  // for each row, or null
  int* hit;
  double* partial;  // sums of the first values of fixed groups of rows, or null
};

// A 16-byte vector of logits and what belongs to them, or `n` such vectors.
template <class T, int n> struct Held {
  using Value = typename Storage<T>::Value;
  static constexpr int lanes = Storage<T>::lanes;
  Value x[n][lanes];  // the logits; their exponentials once those are known, if nothing else is asked for
  Value target[n][lanes], v[n][lanes], u[n][lanes];
};

// Where a thread's vectors lie in a row: numbers first, first + step, ... of a window (or column) that begins at class
// `begin`.
template <class Window> struct Place {
  Window window;
  int64 begin;
  int first, step;

  MLEFAST_FN int vector(int k) const { return first + k * step; }

  // Where in the window a class is: far off if it is not in there, since vectors reach beyond its ends.
  MLEFAST_FN int find(int64 index) const {
    const int64 i = index - begin;
    return i >= 0 && i < window.size() ? static_cast<int>(i) : -1000;
  }
};

// `Asked` says at compile time what a call asks for: index, probabilities, smooths, factors (of each class), capped,
// vector, units (the inputs v and u), writes, hits, across (the class axis is not the last one).
template <class Loss, class Asked, class T> class TermRow {
  using Store = Storage<T>;
  using Value = typename Store::Value;

 public:
  using Ops = typename Store::Ops;
  using Element = rules::Element<Ops>;
  static constexpr int lanes = Store::lanes;
  static constexpr int terms = Loss::sums + Loss::weighted, least = Loss::softmax ? 2 : 0;
  static constexpr int sums = terms + least > 0 ? terms + least : 1, later = Loss::later > 0 ? Loss::later : 1;
  // Exponentials are taken once where they stay in registers and say everything about the logits.
  static constexpr bool exponentials_do = Loss::softmax && !Loss::needs_gap && !Asked::capped;

  bool wanted;  // neither ignored nor beyond the last row

  MLEFAST_FN TermRow(const TermCall<T>& call_, int64 number_, bool exists)
      : wanted(exists), call(call_), number(number_), label(-1), hot(0), weight(1), row{} {
    if (!exists) return;
    const Value shared = call.scale_at ? Ops::set(*call.scale_at) : Ops::set(1);
    row.scale[0] = Ops::set(call.scale) * shared, row.scale[1] = Ops::set(call.second_scale) * shared;
    if (call.upstream) row.scale[0] *= call.upstream[number * call.upstream_row];
    if (call.second_upstream) row.scale[1] *= call.second_upstream[number * call.second_upstream_row];
    if constexpr (Asked::index) {
      const int64 y = load_integer(call.target, call.target_kind, number);
      if (y == call.ignore_index) {
        wanted = false;
      } else if (y < 0 || y >= call.classes) {  // the row becomes NaN; nothing is read or written through the label
        weight = row.scale[0] = row.scale[1] = Ops::nan();
      } else {
        label = y, hot = Ops::set(call.options.keep);
        const Value of_class = call.weight ? call.weight[y] : Ops::set(1);
        (Loss::weighs_rows ? weight : hot) *= of_class;
      }
    }
  }

  MLEFAST_FN const T* x() const { return call.x + offset(call.x_row); }

  // `all`: not the logits alone. These may come from shared memory, or be kept there.
  template <bool all, class At, int n>
  MLEFAST_FN void load(const At& at, Held<T, n>& held, const uint4* kept = nullptr, uint4* keep = nullptr) const {
    uint4 raw[n];
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const int i = at.vector(k);
      raw[k] = kept && i < at.window.vectors() ? kept[i] : at.window.load(i);
      if (keep && i < at.window.vectors()) keep[i] = raw[k];
    }
    load_beside<all && Asked::probabilities>(at, call.probabilities, call.probabilities_row, held.target);
    load_beside<all && Asked::vector>(at, call.v, call.v_row, held.v);
    load_beside<all && Asked::units>(at, call.u, call.u_row, held.u);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      Store::unpack(raw[k], held.x[k]);
      if constexpr (!Loss::softmax)  // what lies beyond the row is 0, not the logit of a masked class
#pragma unroll
        for (int j = 0; j < lanes; ++j) held.x[k][j] = Ops::keep(at.window.holds(at.vector(k), j), held.x[k][j]);
    }
  }

  // ---- passes: each over what a thread holds, then, once all threads' results are merged, over the row

  template <int n> static MLEFAST_FN Value largest(const Value (&x)[n][lanes], Value max) {
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
      for (int j = 0; j < lanes; ++j) max = Ops::max(max, x[k][j]);
    return max;
  }

  MLEFAST_FN void set_maximum(Value max) {
    x_max = capped_max = max;
    if constexpr (Asked::capped) capped_max = rules::cap<Ops>(max, call.options.softcap).value;
    row.state.max = capped_max * Ops::set(call.options.inverse_temperature);
  }

  // The first class whose number attains a maximum, as in argmax.
  template <class At, int n>
  static MLEFAST_FN int64 first_of(const At& at, const Value (&x)[n][lanes], Value max, int64 found) {
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        const int64 i = at.begin + at.window.first(at.vector(k)) + j;
        if (at.window.holds(at.vector(k), j) && Ops::equal(x[k][j], max) && i < found) found = i;
      }
    return found;
  }

  // Adds to `sum`: how many attain the maximum, the exponentials of the others, and the loss's terms.
  template <bool stays, class Sum, class At, int n>
  MLEFAST_FN void add_terms(const At& at, Held<T, n>& held, Sum (&sum)[sums]) const {
    Value part[sums] = {};
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        const Element of = element<false, false>(at, held, k, j);
        if constexpr (Loss::softmax) {
          part[0] += Ops::select(of.wins, Ops::set(1), Ops::set(0));
          part[1] += Ops::select(of.wins, Ops::set(0), of.e);
          if constexpr (stays && exponentials_do) held.x[k][j] = of.e;
        }
        if constexpr (terms > 0) {
          Value term[terms];
          Loss::terms(of, term);
#pragma unroll
          for (int s = 0; s < terms; ++s) part[least + s] += term[s];
        }
      }
#pragma unroll
    for (int s = 0; s < least + terms; ++s) sum[s] += part[s];
  }

  template <class Sum> MLEFAST_FN void settle(const Sum (&sum)[sums]) {
    if constexpr (Loss::softmax) {
      row.state.others = static_cast<Value>(sum[1] + (sum[0] > 1 ? sum[0] - 1 : 0));
      row.total = row.state.total();
      row.log_total = Ops::log1p(row.state.others);
      inverse_total = Ops::set(1) / row.total;
    }
#pragma unroll
    for (int s = 0; s < terms; ++s) row.sum[s] = static_cast<Value>(sum[least + s]);
    Loss::settle(row, call.options);
  }

  template <bool stays, class Sum, class At, int n>
  MLEFAST_FN void add_later(const At& at, const Held<T, n>& held, Sum (&sum)[later]) const {
    Value part[later] = {};
#pragma unroll
    for (int k = 0; k < n; ++k)
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        Value term[later];
        Loss::later_terms(element<true, stays>(at, held, k, j), row, term);
#pragma unroll
        for (int s = 0; s < later; ++s) part[s] += term[s];
      }
#pragma unroll
    for (int s = 0; s < later; ++s) sum[s] += part[s];
  }

  template <class Sum> MLEFAST_FN void finish(const Sum (&sum)[later]) {
#pragma unroll
    for (int s = 0; s < later; ++s) row.later[s] = static_cast<Value>(sum[s]);
    Loss::finish(row, call.options);
  }

  // What has no softmax, or holds a NaN, must not look as if it had one.
  MLEFAST_FN void conclude() {
    Value poison = 0;
    if constexpr (Loss::softmax) poison = row.state.poison() + (row.state.others - row.state.others);
    row.value[0] = Ops::keep(wanted, row.value[0] * weight + poison);
    row.value[1] = Ops::keep(wanted, row.value[1]);
    row.scale[0] = row.scale[0] * weight + poison, row.scale[1] = row.scale[1] * weight + poison;
  }

  MLEFAST_FN Value value() const { return row.value[0]; }

  // By one thread of the row.
  MLEFAST_FN void write_values() const {
    if constexpr (Loss::values > 0)
      if (call.value) call.value[number] = row.value[0];
    if constexpr (Loss::values > 1)
      if (call.second_value) call.second_value[number] = row.value[1];
  }

  // `x` and `t` are where the largest logit and the largest probability stand.
  MLEFAST_FN void write_hit(int64 x, int64 t) const { call.hit[number] = wanted && x == (Asked::index ? label : t); }

  template <bool stays, class At, int n> MLEFAST_FN void write(const At& at, const Held<T, n>& held) const {
    T* const out = call.out + offset(call.out_row) + at.begin;
    Value* const second = call.second + offset(call.second_row) + at.begin;
#pragma unroll
    for (int k = 0; k < n; ++k) {
      Value first_out[lanes], second_out[lanes];
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        Value result[2];
        Loss::emit(element<true, stays>(at, held, k, j), row, result);
        first_out[j] = Ops::keep(wanted, result[0]);
        if constexpr (Loss::outputs > 1) second_out[j] = Ops::keep(wanted, result[1]);
      }
      at.window.template store<true>(out, at.vector(k), first_out);
      if constexpr (Loss::outputs > 1) at.window.store_beside(second, at.vector(k), second_out);
    }
  }

  // Of an elementwise loss: writes what is asked for and returns the sum of the losses.
  template <class At, int n> MLEFAST_FN double write_elements(const At& at, const Held<T, n>& held) const {
    Value sum = 0;
#pragma unroll
    for (int k = 0; k < n; ++k) {
      Value gradient[lanes], losses[lanes];
#pragma unroll
      for (int j = 0; j < lanes; ++j) {
        const Element of = element<false, false>(at, held, k, j);
        losses[j] = Ops::keep(at.window.holds(at.vector(k), j), Loss::loss(of));
        sum += losses[j];
        if constexpr (Asked::writes) {
          Value result[2];
          Loss::emit(of, row, result);
          gradient[j] = result[0];
        }
      }
      if constexpr (Asked::writes) at.window.template store<true>(call.out + at.begin, at.vector(k), gradient);
      if (call.second) at.window.store_beside(call.second + at.begin, at.vector(k), losses);
    }
    return sum;
  }

 private:
  MLEFAST_FN int64 offset(int64 row) const {
    return Asked::across ? number / call.inner * row + number % call.inner : number * row;
  }

  template <bool asked, class At, int n>
  MLEFAST_FN void load_beside(const At& at, const Value* from, int64 stride, Value (&to)[n][lanes]) const {
    if constexpr (asked) {
      from += offset(stride) + at.begin;
#pragma unroll
      for (int k = 0; k < n; ++k) at.window.load_beside(from, at.vector(k), Ops::set(0), to[k]);
    }
  }

  // `summed`: the row's total is known. `stays`: what add_terms has left in `held` stands there.
  template <bool summed, bool stays, class At, int n>
  MLEFAST_FN Element element(const At& at, const Held<T, n>& held, int k, int j) const {
    const bool inside = at.window.holds(at.vector(k), j);
    const int i = at.window.first(at.vector(k)) + j;
    const auto zero = Ops::set(0), one = Ops::set(1);
    Element of{};
    of.x = held.x[k][j];
    of.target = Asked::probabilities ? held.target[k][j] : zero;
    if constexpr (Asked::smooths)
      of.target = Ops::keep(inside, Ops::set(call.options.keep) * of.target + Ops::set(call.options.spread));
    of.weight = of.positive = one;
    if constexpr (Asked::factors) {
      const int64 c = Loss::elementwise ? i % static_cast<int>(call.period) : at.begin + i;
      if (call.weight) of.weight = inside ? call.weight[c] : zero;
      if (call.positive) of.positive = inside ? call.positive[c] : zero;
    }
    of.mass = of.target * of.weight;
    if constexpr (Asked::index) of.mass += Ops::keep(i == at.find(label), hot);
    of.v = Asked::vector ? held.v[k][j] : one;
    of.u = Asked::units ? held.u[k][j] : one;
    if constexpr (Loss::softmax) {
      of.slope = Ops::set(call.options.inverse_temperature);
      of.bend = of.gap = zero;
      if constexpr (summed && stays && exponentials_do) {
        // Of a class that is so close to the winner that its exponential is 1, too, 1 - p is what it is of that.
        of.e = of.x, of.wins = Ops::equal(of.e, one);
      } else {
        auto z = of.x;
        of.wins = (!Asked::capped || inside) && Ops::equal(of.x, x_max);
        if constexpr (Asked::capped) {
          const auto capped = rules::cap<Ops>(of.x, call.options.softcap);
          z = capped.value, of.bend = capped.bend * of.slope, of.slope = capped.slope * of.slope;
        }
        of.gap = (capped_max - z) * Ops::set(call.options.inverse_temperature);
        of.e = Ops::exp(zero - of.gap);
        if constexpr (Asked::capped)
          of.e = Ops::keep(inside, of.e);  // the cap of -inf is a number, and a row of them one of equals
      }
      if constexpr (summed) of.p = of.e * inverse_total;
    }
    return of;
  }

  const TermCall<T>& call;
  int64 number, label;  // the target's class, or -1
  Value hot, weight;    // what the loss puts on it, and the factor of the whole row
  Value x_max, capped_max, inverse_total;
  rules::Row<Ops> row;
};

}  // namespace mlefast
