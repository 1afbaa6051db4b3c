// The kernels of a step of training, for every instruction set, against plain loops in long double or double; arrays
// end where their heap blocks end and start at odd addresses, for sanitizers.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "training.hpp"

using namespace mlefast;

namespace {

Long normal_cdf(Long z) { return erfcl(-z / sqrtl(2)) / 2; }
Long density(Long z) { return expl(-z * z / 2) * 0.3989422804014326779399460599343818684759L; }

struct Expected {
  Long value, slope;
  Long slope_scale;  // what the slope's error is relative to
};

Expected expected(const std::string& name, Long z) {
  if (name == "relu") return {z > 0 ? z : 0, Long(z > 0), 1};
  if (name == "tanh") {
    const Long e = expl(-2 * std::abs(z)), slope = 4 * e / ((1 + e) * (1 + e));
    return {tanhl(z), slope, slope};
  }
  if (name == "gelu") {
    if (std::isinf(z)) return {z > 0 ? z : 0, Long(z > 0), 1};
    const Long slope = normal_cdf(z) + z * density(z);
    return {z * normal_cdf(z), slope, std::max(normal_cdf(z), std::abs(z) * density(z))};
  }
  return {z, 1, 1};
}

template <class T> double ulps(Long got, Long want, Long scale) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0;
  const Long unit = std::max(scale * std::numeric_limits<T>::epsilon(), Long(std::numeric_limits<T>::denorm_min()) * 2);
  const double error = static_cast<double>(std::abs(got - want) / unit);
  return error == error ? error : INFINITY;
}

template <class... Function> std::vector<std::string> names_of(rules::List<Function...>) { return {Function::name...}; }
const std::vector<std::string> names = names_of(rules::Activations{});

template <class T> void check_activations(const InstructionSet& set, int64_t rows, int64_t columns) {
  const int64_t size = rows * columns;
  auto z = normals(size, 3, 1), bias = normals(columns, 0.5, 2);
  std::mt19937 random(3);
  std::vector<double> uniform(static_cast<size_t>(size));
  for (auto& u : uniform) u = static_cast<double>(random() >> 8) / (1 << 24);
  for (size_t f = 0; f < names.size(); ++f)
    for (const bool drops : {false, true})
      for (const bool sloped : {false, true}) {
        Array<T> values(z), offset(bias), slope(z), chance(uniform);
        const T rate = T(0.25), scale = T(1 / 0.75);
        activate<T>(set, int(f),
                    {rows, columns, values.data(), offset.data(), sloped ? slope.data() : nullptr,
                     drops ? chance.data() : nullptr, rate, scale});
        double worst = 0, worst_slope = 0;
        for (int64_t i = 0; i < size; ++i) {
          const T sum = T(z[size_t(i)]) + offset[i % columns];
          const auto want = expected(names[f], sum);
          const Long factor = drops ? (chance[i] < rate ? 0 : Long(scale)) : 1;
          worst = std::max(worst, ulps<T>(values[i], want.value * factor, std::abs(want.value) * factor));
          if (sloped)
            worst_slope = std::max(worst_slope, ulps<T>(slope[i], want.slope * factor, want.slope_scale * factor));
          else
            worst_slope = std::max(worst_slope, double(slope[i] != T(z[size_t(i)])));
        }
        INFO(names[f], ", ", rows, " x ", columns, ", dropout ", drops, ", slope ", sloped);
        // Of a rounded product half a unit more; a unit is up to two epsilons.
        const bool gelu = names[f] == "gelu";
        CHECK(worst <= (gelu ? 7.5 : 2.5));
        CHECK(worst_slope <= (!sloped ? 0 : gelu ? 7.5 : 4.5));
      }
}

template <class T> void check_sums(const InstructionSet& set, int64_t rows, int64_t columns) {
  const int64_t size = rows * columns;
  const auto e = normals(size, 2, 4), s = normals(size, 1, 5);
  for (const bool sloped : {false, true}) {
    Array<T> error(e), slope(s), sums(normals(columns, 1, 6));
    backpropagate<T>(set, {rows, columns, 0, columns, error.data(), sloped ? slope.data() : nullptr, sums.data()});
    int64_t wrong = 0;
    double worst = 0;
    for (int64_t c = 0; c < columns; ++c) {
      Long sum = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const auto i = size_t(r * columns + c);
        const T product = sloped ? T(T(e[i]) * T(s[i])) : T(e[i]);
        wrong += error[int64_t(i)] != product;
        sum += product;
      }
      worst = std::max(worst, ulps<T>(sums[c], sum, std::abs(sum)));
    }
    INFO(rows, " x ", columns, ", slope ", sloped);
    CHECK(wrong == 0);
    CHECK(worst <= 1);
  }
}

struct Penalty {
  double l2, l1, decay;
};

double shrunk(double p, double threshold) { return std::copysign(std::max(std::abs(p) - threshold, 0.0), p); }

template <class T>
void check_steps(const InstructionSet& set, int64_t n, int64_t n_weights, bool nesterov, Penalty with) {
  const double rate = 0.125, mu = 0.75;
  Array<T> p(normals(n, 1, 7)), g(normals(n, 1, 8)), v(normals(n, 0.1, 9)), a(normals(n, 1, 7)), m(normals(n, 0.1, 10)),
      q(normals(n, 0.1, 11));
  for (int64_t i = 0; i < n; ++i) q[i] = std::abs(q[i]);
  Array<T> p0 = Array<T>(normals(n, 1, 7)), v0(normals(n, 0.1, 9)), m0(normals(n, 0.1, 10)), q0(normals(n, 0.1, 11)),
           g0(normals(n, 1, 8));
  step<T>(set,
          MomentumRun<T>{
              n, p.data(), g.data(), v.data(), {T(rate), T(mu), T(with.l2), T(rate * with.l1 / (1 - mu)), nesterov}},
          n_weights);
  step<T>(set,
          AdaptiveRun<T>{n,
                         a.data(),
                         g.data(),
                         m.data(),
                         q.data(),
                         {T(rate), T(0.25), T(0.125), T(1.5), T(0.0625), T(with.decay), T(with.l2), T(rate * with.l1)}},
          n_weights);
  const double tolerance = 8 * double(std::numeric_limits<T>::epsilon());
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    const bool weight = i < n_weights;
    const double w = double(p0[i]), slope = double(g0[i]) + (weight ? with.l2 * w : 0);
    const double velocity = mu * double(v0[i]) - rate * slope;
    const double moved = w + (nesterov ? mu * velocity - rate * slope : velocity);
    const double mean = double(m0[i]) + 0.25 * (slope - double(m0[i]));
    const double square0 = std::abs(double(q0[i])), square = square0 + 0.125 * (slope * slope - square0);
    const double size = 1.5 * std::sqrt(square) + 0.0625;
    const double adapted = (weight ? with.decay : 1) * w - rate * mean / size;
    const auto compare = [&](T got, double want) { worst = std::max(worst, std::abs(double(got) - want)); };
    compare(v[i], velocity), compare(p[i], weight ? shrunk(moved, rate * with.l1 / (1 - mu)) : moved);
    compare(m[i], mean), compare(q[i], square),
        compare(a[i], weight ? shrunk(adapted, rate * with.l1 / size) : adapted);
  }
  INFO(n, " parameters, ", n_weights, " weights, nesterov ", nesterov, ", l2 ", with.l2, ", l1 ", with.l1);
  CHECK(worst <= tolerance);
  CHECK(g.same_bits(g0));
}

template <class T> void check_all(const InstructionSet& set) {
  for (int64_t columns = 1; columns <= 70; ++columns) check_activations<T>(set, 3, columns);
  for (const int64_t rows : {0, 1, 2, 128}) check_activations<T>(set, rows, 10);
  for (int64_t columns = 1; columns <= 70; ++columns) check_sums<T>(set, columns % 7, columns);
  for (const int64_t rows : {0, 1, 2, 1000}) check_sums<T>(set, rows, 11);
  for (int64_t n = 1; n <= 70; ++n)
    for (const Penalty with : {Penalty{0, 0, 1}, Penalty{0.5, 0.25, 0.875}})
      for (const bool nesterov : {false, true}) check_steps<T>(set, n, (n * 5) % (n + 1), nesterov, with);
  check_steps<T>(set, 3000, 2999, true, {0.5, 0.25, 0.875});
}

// Large enough for every thread to get a part.
template <class T> void check_threads(const InstructionSet& set) {
  const int64_t rows = 1031, columns = 1021, size = rows * columns, n = 5 * step_grain + 77;
  const auto z = normals(size, 2, 1), bias = normals(columns, 1, 2), p = normals(n, 1, 3), g = normals(n, 1, 4);
  std::vector<Array<T>> all;
  for (const int threads : {1, 2, 4}) {
    const Threads limit(threads);
    Array<T> values(z), offset(bias), slope(z), sums(bias), parameters(p), gradient(g), velocity(g), other(p), mean(g),
        square(std::vector<double>(static_cast<size_t>(n), 0.5));
    activate<T>(set, 3, {rows, columns, values.data(), offset.data(), slope.data(), nullptr, 0, 1});
    Array<T> error(z);
    backpropagate<T>(set, {rows, columns, 0, columns, error.data(), slope.data(), sums.data()});
    step<T>(
        set,
        MomentumRun<T>{n, parameters.data(), gradient.data(), velocity.data(), {T(0.1), T(0.9), T(0.1), T(0.1), true}},
        n / 3);
    step<T>(set,
            AdaptiveRun<T>{n,
                           other.data(),
                           gradient.data(),
                           mean.data(),
                           square.data(),
                           {T(0.1), T(0.1), T(0.01), T(1), T(1e-3), T(0.9), T(0.1), T(0.1)}},
            n / 3);
    Array<T>* made[] = {&values, &slope, &error, &sums, &parameters, &velocity, &other, &mean, &square};
    for (size_t i = 0; i < std::size(made); ++i) {
      if (threads == 1)
        all.push_back(std::move(*made[i]));
      else
        CHECK(all[i].same_bits(*made[i]));
    }
  }
}

}  // namespace

TEST_CASE("training: every instruction set and type, sizes around the lanes") {
  for (const auto* set : usable_sets()) {
    MESSAGE("instruction set: ", std::string(set->name));
    check_all<float>(*set);
    check_all<double>(*set);
  }
}

TEST_CASE("training: the same bits with any number of threads") {
  for (const auto* set : usable_sets()) {
    check_threads<float>(*set);
    check_threads<double>(*set);
  }
}

template <class T> void check_limits(const InstructionSet& set) {
  constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  constexpr T tiny = std::numeric_limits<T>::denorm_min(), large = std::numeric_limits<T>::max();
  const std::vector<double> z = {inf, -inf, nan, 0, -0.0, tiny, -tiny, double(large), -double(large)};
  for (size_t f = 0; f < names.size(); ++f)
    for (const int64_t repeats : {1, 9}) {  // alone and in every lane
      std::vector<double> many;
      for (int64_t r = 0; r < repeats; ++r) many.insert(many.end(), z.begin(), z.end());
      const auto n = static_cast<int64_t>(many.size());
      Array<T> values(many), bias(std::vector<double>(many.size(), 0.0)), slope(many);
      activate<T>(set, int(f), {1, n, values.data(), bias.data(), slope.data(), nullptr, 0, 1});
      for (int64_t i = 0; i < n; ++i) {
        INFO(names[f], " of ", many[size_t(i)]);
        const T x = T(many[size_t(i)]);
        if (std::isnan(x)) {
          CHECK(std::isnan(values[i]));
          continue;
        }
        const auto want = expected(names[f], x);
        CHECK(ulps<T>(values[i], want.value, std::abs(want.value)) <= 1);
        CHECK(ulps<T>(slope[i], want.slope, 1) <= 1);
      }
    }
  // What decays dies out, and NaN and infinity are not hidden.
  const T smallest = std::numeric_limits<T>::min();
  for (const int64_t n : {4, 70}) {
    std::vector<double> zero(static_cast<size_t>(n), 0.0), velocity(zero), p(zero);
    for (size_t i = 0; i < velocity.size(); ++i) velocity[i] = i % 4 == 0 ? double(smallest) : i % 4 == 1 ? nan : 1;
    for (size_t i = 0; i < p.size(); ++i) p[i] = i % 4 == 3 ? -inf : 1;
    Array<T> parameters(p), gradient(zero), moving(velocity), other(p), mean(velocity), square(velocity);
    step<T>(set,
            MomentumRun<T>{n, parameters.data(), gradient.data(), moving.data(), {T(0.1), T(0.5), 0, T(0.25), false}},
            n);
    step<T>(set,
            AdaptiveRun<T>{n,
                           other.data(),
                           gradient.data(),
                           mean.data(),
                           square.data(),
                           {T(0.1), T(0.5), T(0.5), T(1), T(1), 1, 0, T(0.25)}},
            n);
    for (int64_t i = 0; i < n; ++i) {
      INFO("entry ", i);
      if (i % 4 == 0) CHECK((moving[i] == 0 && mean[i] == 0 && square[i] == 0));
      if (i % 4 == 1) CHECK((std::isnan(moving[i]) && std::isnan(mean[i]) && std::isnan(square[i])));
      if (i % 4 == 1) CHECK((std::isnan(parameters[i]) && std::isnan(other[i])));
      if (i % 4 == 3) CHECK((parameters[i] == -inf && other[i] == -inf));
    }
  }
  // Sums that cancel, and those of infinities.
  Array<T> error({1e30, inf, nan, -inf, 1, 1, 1, 1, -1e30, 1, 1, inf}), sums({7, 7, 7, 7});
  backpropagate<T>(set, {3, 4, 0, 4, error.data(), nullptr, sums.data()});
  CHECK(sums[1] == inf);
  CHECK((std::isnan(sums[2]) && std::isnan(sums[3])));
  if (sizeof(T) == 8) CHECK(sums[0] == 1);  // with the rounding errors
}

TEST_CASE("training: NaN, infinities and denormal numbers") {
  for (const auto* set : usable_sets()) {
    check_limits<float>(*set);
    check_limits<double>(*set);
  }
}

TEST_CASE("training: rows are taken as they are, and no index outside") {
  const int64_t rows = 7, columns = 33;
  Array<float> x(normals(rows * columns, 1, 1)), out(std::vector<double>(static_cast<size_t>(3 * columns), 5.0));
  const auto take = [&](std::vector<int64_t> index) {
    return take_rows(reinterpret_cast<const char*>(x.data()), rows, columns * 4, index.data(),
                     static_cast<int64_t>(index.size()), reinterpret_cast<char*>(out.data()));
  };
  CHECK(take({0, 7, 1}) == 1);
  CHECK(take({0, 1, -1}) == 2);
  CHECK(out[0] == 5);
  CHECK(take({6, 0, 6}) == -1);
  for (int64_t c = 0; c < columns; ++c)
    CHECK((out[c] == x[6 * columns + c] && out[columns + c] == x[c] && out[2 * columns + c] == x[6 * columns + c]));
  CHECK(take({}) == -1);
}
