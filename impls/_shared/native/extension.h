// The convolution of an image that is continued by polynomials: y = conv(P x, w) + b.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "convolution.h"
#include "eager.h"
#include "planes.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// How one axis is continued: `steps * dilation` samples on both sides, each the sum of the nearest
// `nearest` of its lattice phase, weighed by integers.
struct Axis {
  int64_t at = 0, steps = 0, dilation = 1, nearest = 1;
  std::vector<int64_t> before, behind;  // (steps, nearest)

  int64_t ring() const { return steps * dilation; }

  // Where side 0 or 1 begins in the continued axis, and where the samples begin that it reads.
  int64_t ring_start(int side, int64_t size) const { return side == 0 ? 0 : ring() + size; }
  int64_t near_start(int side, int64_t size) const {
    return side == 0 ? ring() : ring() + size - nearest * dilation;
  }
  const std::vector<int64_t>& rows(int side) const { return side == 0 ? before : behind; }
};

// From the list in which Python hands them over: per axis its four numbers and the weights.
inline std::vector<Axis> axes_of(at::IntArrayRef plan) {
  std::vector<Axis> axes;
  for (auto entry = plan.begin(); entry < plan.end();) {
    Axis axis;
    axis.at = *entry++, axis.steps = *entry++, axis.dilation = *entry++, axis.nearest = *entry++;
    const int64_t weights = axis.steps * axis.nearest;
    axis.before.assign(entry, entry + weights);
    axis.behind.assign(entry + weights, entry + 2 * weights);
    entry += 2 * weights;
    axes.push_back(std::move(axis));
  }
  return axes;
}

// Planes of up to three axes, the missing ones in front with one entry.
struct Block {
  std::array<int64_t, 3> size{1, 1, 1}, full{1, 1, 1}, ring{0, 0, 0}, step{0, 0, 0};
  int64_t planes = 1, lacking = 0;
  std::vector<Axis> axes;

  Block(at::IntArrayRef planes_and_size, const std::vector<Axis>& plan) : axes(plan) {
    planes = planes_and_size[0] * planes_and_size[1];
    lacking = 5 - static_cast<int64_t>(planes_and_size.size());
    for (size_t i = 2; i < planes_and_size.size(); ++i) size[i - 2 + lacking] = planes_and_size[i];
    for (auto& axis : axes) {
      axis.at += lacking;
      ring[axis.at] = axis.ring();
    }
    for (int i = 0; i < 3; ++i) full[i] = size[i] + 2 * ring[i];
    step = {full[1] * full[2], full[2], 1};
  }

  int64_t entries() const { return size[0] * size[1] * size[2]; }
  int64_t all() const { return full[0] * full[1] * full[2]; }

  std::vector<int64_t> shape(at::IntArrayRef given) const {
    std::vector<int64_t> found(given.begin(), given.begin() + 2);
    found.insert(found.end(), full.begin() + lacking, full.end());
    return found;
  }

  // Copy between an image and the inside of a continued one: copy(inside, image, entries).
  template <class T, class Copy>
  void inside(T* buffer, Copy copy) const {
    for (int64_t i = 0; i < size[0]; ++i)
      for (int64_t j = 0; j < size[1]; ++j)
        copy(buffer + (i + ring[0]) * step[0] + (j + ring[1]) * step[1] + ring[2],
             (i * size[1] + j) * size[2], size[2]);
  }

  // Call f(start, run) for every line across an axis: all of the axes before it, the inside of
  // those behind it; the entries of a run lie side by side.
  template <class F>
  void across(const Axis& axis, F f) const {
    std::array<int64_t, 3> first{0, 0, 0}, count = full;
    for (int64_t i = axis.at; i < 3; ++i) {
      first[i] = i == axis.at ? 0 : ring[i];
      count[i] = i == axis.at ? 1 : size[i];
    }
    const int64_t run = count[2];
    for (int64_t i = 0; i < count[0]; ++i)
      for (int64_t j = 0; j < count[1]; ++j)
        f((first[0] + i) * step[0] + (first[1] + j) * step[1] + first[2], run);
  }
};

// ring = sum of weights * near, or with `Fold` near += sum of weights * ring.
template <bool Fold, class T>
void weigh(T* buffer, const Block& b, const Axis& axis) {
  const int64_t step = b.step[axis.at], size = b.size[axis.at];
  b.across(axis, [&](int64_t start, int64_t run) {
    for (int side = 0; side < 2; ++side) {
      T* ring = buffer + start + axis.ring_start(side, size) * step;
      T* near = buffer + start + axis.near_start(side, size) * step;
      const auto& rows = axis.rows(side);
      for (int64_t j = 0; j < axis.steps; ++j)
        for (int64_t phase = 0; phase < axis.dilation; ++phase) {
          T* out = ring + (j * axis.dilation + phase) * step;
          if (!Fold) std::fill(out, out + run, T(0));
          for (int64_t t = 0; t < axis.nearest; ++t) {
            T* in = near + (t * axis.dilation + phase) * step;
            const T weight = static_cast<T>(rows[j * axis.nearest + t]);
            T* to = Fold ? in : out;
            const T* from = Fold ? out : in;
            for (int64_t i = 0; i < run; ++i) to[i] += weight * from[i];
          }
        }
    }
  });
}

inline Tensor extended(const Tensor& x, const std::vector<Axis>& axes) {
  const Block b(x.sizes(), axes);
  Tensor buffer = at::empty(b.shape(x.sizes()), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "extended", [&] {
    const auto* image = x.const_data_ptr<scalar_t>();
    auto* out = buffer.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, b.planes, grain_of(b.all()), [&](int64_t from, int64_t to) {
      for (int64_t plane = from; plane < to; ++plane) {
        const auto* in = image + plane * b.entries();
        auto* own = out + plane * b.all();
        b.inside(own, [&](auto* inside, int64_t entry, int64_t n) {
          std::copy(in + entry, in + entry + n, inside);
        });
        for (const auto& axis : b.axes) weigh<false>(own, b, axis);
      }
    });
  });
  return buffer;
}

// P^T g, of which the entries of g are spent.
inline Tensor folded(const Tensor& gradient, at::IntArrayRef shape, const std::vector<Axis>& axes) {
  const Block b(shape, axes);
  Tensor dx = at::empty(shape, gradient.options());
  AT_DISPATCH_FLOATING_TYPES(dx.scalar_type(), "folded", [&] {
    auto* buffer = gradient.mutable_data_ptr<scalar_t>();
    auto* out = dx.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, b.planes, grain_of(b.all()), [&](int64_t from, int64_t to) {
      for (int64_t plane = from; plane < to; ++plane) {
        auto* own = buffer + plane * b.all();
        for (auto axis = b.axes.rbegin(); axis != b.axes.rend(); ++axis) weigh<true>(own, b, *axis);
        b.inside(own, [&](auto* inside, int64_t entry, int64_t n) {
          std::copy(inside, inside + n, out + plane * b.entries() + entry);
        });
      }
    });
  });
  return dx;
}

// P along one axis of so many samples, as a matrix.
inline Tensor matrix_of(const Axis& axis, int64_t size, const at::TensorOptions& options) {
  Tensor matrix = at::zeros({size + 2 * axis.ring(), size}, options.dtype(at::kDouble));
  auto entries = matrix.accessor<double, 2>();
  for (int64_t i = 0; i < size; ++i) entries[axis.ring() + i][i] = 1;
  for (int side = 0; side < 2; ++side)
    for (int64_t j = 0; j < axis.steps; ++j)
      for (int64_t phase = 0; phase < axis.dilation; ++phase)
        for (int64_t t = 0; t < axis.nearest; ++t)
          entries[axis.ring_start(side, size) + j * axis.dilation + phase]
                 [axis.near_start(side, size) - axis.ring() + t * axis.dilation + phase] +=
              static_cast<double>(axis.rows(side)[j * axis.nearest + t]);
  return matrix.to(options.dtype());
}

// P x or P^T x by products of matrices: for derivatives of derivatives.
inline Tensor by_matrices(Tensor x, at::IntArrayRef shape, const std::vector<Axis>& axes,
                          bool adjoint) {
  for (const auto& axis : axes) {
    Tensor matrix = matrix_of(axis, shape[axis.at + 2], x.options());
    if (adjoint) matrix = matrix.t();
    x = at::matmul(x.movedim(axis.at + 2, -1), matrix.t()).movedim(-1, axis.at + 2);
  }
  return x;
}

struct Extended : torch::autograd::Function<Extended> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const std::vector<int64_t>& plan,
                        const Geometry& g) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["plan"] = plan;
    ctx->saved_data["geometry"] = g.packed();
    ctx->saved_data["bias"] = bias.has_value();
    return convolve(extended(x, axes_of(plan)), weight, bias, g);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], dy = dys[0].contiguous();
    const Geometry g = Geometry::unpacked(ctx->saved_data["geometry"].toIntVector());
    const auto axes = axes_of(ctx->saved_data["plan"].toIntVector());
    const bool of_x = ctx->needs_input_grad(0), of_weight = ctx->needs_input_grad(1);
    const bool of_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    const bool recorded = is_recorded(dy);
    const Tensor wide = recorded ? by_matrices(x, x.sizes(), axes, false) : extended(x, axes);
    auto found = convolve_backward(
        dy, wide, weight, g, of_x, of_weight, of_bias,
        !recorded && (of_x ? g.backward_by_onednn : g.forward_by_onednn));
    if (of_x)
      found.x = recorded ? by_matrices(found.x, x.sizes(), axes, true)
                         : folded(found.x.contiguous(), x.sizes(), axes);
    return {found.x, found.weight, found.bias, Tensor(), Tensor()};
  }
};

inline Tensor extended_convolution(Tensor x, Tensor weight, std::optional<Tensor> bias,
                                   at::IntArrayRef plan, at::IntArrayRef stride,
                                   at::IntArrayRef dilation, int64_t groups, bool by_onednn,
                                   bool bias_apart) {
  x = plain(x), weight = plain(weight), bias = plain(bias);
  const std::vector<int64_t> none(stride.size(), 0);
  const Geometry g{stride.vec(), none, dilation.vec(), groups, by_onednn,
                   by_onednn && x.size(1) >= kFewChannels, bias_apart};
  if (!needs_gradient({x, weight, bias ? *bias : Tensor()}))
    return convolve(extended(x, axes_of(plan)), weight, bias, g);
  return Extended::apply(x, weight, bias, plan.vec(), g);
}

}  // namespace convharness
