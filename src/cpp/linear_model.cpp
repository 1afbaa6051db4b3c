#include "linear_model.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "driver.hpp"
#include "term_driver.hpp"
#include "threads.hpp"

namespace mlefast {
namespace {

constexpr int64_t most_block = 64;               // samples
constexpr int64_t block_bytes = 256 * 1024;      // of features: half of a small second-level cache
constexpr int64_t part_multiply_adds = 1 << 21;  // about 50 us: below, waking a thread does not pay

template <class U, class... T> constexpr int index_of(rules::List<T...>) {
  constexpr bool is[] = {std::is_same_v<T, U>...};
  int i = 0;
  while (!is[i]) ++i;
  return i;
}

template <class T> class LinearDriver {
  const LinearModel<T>& model;
  const TrainingKernels<T>& kernels;
  const int64_t block;  // samples
  const int64_t parts;  // by sizes and the machine, never by how many threads a call may use

 public:
  // `products`: how many there are of the samples and all outputs.
  LinearDriver(const InstructionSet& set, const LinearModel<T>& m, int products)
      : model(m),
        kernels(set.training->kernels<T>()),
        block(std::clamp(block_bytes / (m.features * int64_t(sizeof(T)) + 1) / 4 * 4, int64_t(4), most_block)),
        parts(count_parts(products)) {}

  // work(part, first sample, n, run) for each block of each part, run being a kernel's but for z and coef_gradient.
  template <class Work> void over_blocks(const Team& team, const Work& work) const {
    const int64_t blocks = (model.samples + block - 1) / block;
    team.for_each(parts, [&](int64_t part, int) {
      const int64_t end = std::min(model.samples, blocks * (part + 1) / parts * block);
      const T* rows[most_block];
      for (int64_t first = blocks * part / parts * block; first < end; first += block) {
        LinearRun<T> run{std::min(block, end - first),
                         model.features,
                         model.outputs,
                         rows,
                         model.coef,
                         model.intercept,
                         nullptr,
                         0,
                         nullptr};
        for (int64_t s = 0; s < run.samples; ++s) rows[s] = model.x + (first + s) * model.features;
        work(part, first, run);
      }
    });
  }

  void logits(T* z) const {
    over_blocks(Team(parts), [&](int64_t, int64_t first, LinearRun<T> run) {
      run.z = z + first * model.outputs, run.z_row = model.outputs;
      kernels.logits(run);
    });
  }

  // errors(first sample, run) leaves a block's errors of the outputs in run.z and returns the sum of its losses.
  template <class Errors> double gradient(const Errors& errors) const {
    const int64_t outputs = model.outputs, size = outputs * model.features;
    // The first part adds to the result itself, the others to copies that are added in order.
    std::vector<T> copies(static_cast<size_t>((parts - 1) * size));
    const auto gradient_of = [&](int64_t part) {
      return part == 0 ? model.coef_gradient : copies.data() + (part - 1) * size;
    };
    std::vector<double> sums(static_cast<size_t>(parts * outputs)), losses(static_cast<size_t>(parts));
    std::fill_n(model.coef_gradient, size, T(0));
    const Team team(parts);
    over_blocks(team, [&](int64_t part, int64_t first, LinearRun<T> run) {
      losses[size_t(part)] += errors(first, run);
      run.coef_gradient = gradient_of(part);
      kernels.add_gradient(run);
      for (int64_t s = 0; model.intercept_gradient && s < run.samples; ++s)
        for (int64_t k = 0; k < outputs; ++k) sums[size_t(part * outputs + k)] += double(run.z[s * run.z_row + k]);
    });
    const int64_t each = (size + parts - 1) / parts;
    if (parts > 1)
      team.for_each(parts, [&](int64_t piece, int) {
        const int64_t end = std::min(size, (piece + 1) * each);
        for (int64_t part = 1; part < parts; ++part)
          for (int64_t i = piece * each; i < end; ++i) model.coef_gradient[i] += gradient_of(part)[i];
      });
    double loss = 0;
    for (const double of_part : losses) loss += of_part;
    for (int64_t k = 0; model.intercept_gradient && k < outputs; ++k) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[size_t(part * outputs + k)];
      model.intercept_gradient[k] = static_cast<T>(sum);
    }
    return loss;
  }

  // The same; errors(first sample, n, z) turns logits (n, classes) into errors.
  template <class Errors> double gradient_of_logits(const Errors& errors) const {
    const int64_t classes = model.classes(), zeros = classes - model.outputs;
    return gradient([&](int64_t first, LinearRun<T>& run) {
      thread_local std::vector<T> memory;
      memory.resize(static_cast<size_t>(block * classes));
      for (int64_t s = 0; s < zeros * run.samples; ++s) memory[size_t(s * classes)] = 0;
      run.z = memory.data() + zeros, run.z_row = classes;
      kernels.logits(run);
      return errors(first, run.samples, memory.data());
    });
  }

 private:
  int64_t count_parts(int products) const {
    const double work = double(products) * double(model.samples) * double(model.features) * double(model.outputs);
    const auto worth = static_cast<int64_t>(std::min(work / part_multiply_adds, double(processors())));
    return std::clamp<int64_t>(worth, 1, std::max<int64_t>(1, model.samples / block));
  }
};

}  // namespace

template <class T> double linear_loss(const InstructionSet& set, const LinearModel<T>& model, const int64_t* target) {
  constexpr int task = index_of<rules::CrossEntropyGrad>(rules::Tasks{});
  const int64_t classes = model.classes();
  return LinearDriver<T>(set, model, 2).gradient_of_logits([&](int64_t first, int64_t n, T* z) {
    T value[most_block];
    Call<T> call{};
    call.x = call.out = z;
    call.classes = classes, call.x_class = call.out_class = 1;
    call.axes.add({n, classes, classes});
    call.target = target + first, call.target_bytes = 8, call.target_signed = true;
    call.ignore_index = std::numeric_limits<int64_t>::min();  // none
    call.upstream = model.weight ? model.weight + first : nullptr;
    call.scale = model.scale;
    call.value = value;
    run_task(set, task, call);
    double sum = 0;
    for (int64_t s = 0; s < n; ++s) sum += double(value[s]) * (model.weight ? double(model.weight[first + s]) : 1.0);
    return sum;
  });
}

template <class T>
void linear_curvature(const InstructionSet& set, const LinearModel<T>& model, const T* probabilities) {
  constexpr int loss = index_of<rules::SoftmaxProduct>(rules::Losses{});
  const int64_t classes = model.classes();
  LinearDriver<T>(set, model, 2).gradient_of_logits([&](int64_t first, int64_t n, T* z) {
    TermCall<T> call{};
    call.x = probabilities + first * classes, call.v = call.out = z;  // read to a row's end before it is written
    call.classes = classes, call.x_class = 1;
    call.axes.add({n, classes, classes});
    run_terms(set, loss, call);
    for (int64_t s = 0; s < n; ++s) {
      const T factor = static_cast<T>(model.scale * (model.weight ? double(model.weight[first + s]) : 1.0));
      for (int64_t k = 0; k < classes; ++k) z[s * classes + k] *= factor;
    }
    return 0.0;
  });
}

template <class T> void linear_logits(const InstructionSet& set, const LinearModel<T>& model, T* z) {
  LinearDriver<T>(set, model, 1).logits(z);
}

template <class T> void linear_gradient(const InstructionSet& set, const LinearModel<T>& model, T* z) {
  LinearDriver<T>(set, model, 1).gradient([&](int64_t first, LinearRun<T>& run) {
    run.z = z + first * model.outputs, run.z_row = model.outputs;
    return 0.0;
  });
}

template double linear_loss(const InstructionSet&, const LinearModel<float>&, const int64_t*);
template double linear_loss(const InstructionSet&, const LinearModel<double>&, const int64_t*);
template void linear_curvature(const InstructionSet&, const LinearModel<float>&, const float*);
template void linear_curvature(const InstructionSet&, const LinearModel<double>&, const double*);
template void linear_logits(const InstructionSet&, const LinearModel<float>&, float*);
template void linear_logits(const InstructionSet&, const LinearModel<double>&, double*);
template void linear_gradient(const InstructionSet&, const LinearModel<float>&, float*);
template void linear_gradient(const InstructionSet&, const LinearModel<double>&, double*);

}  // namespace mlefast
