// Convolutions as products of matrices with what some taps read, a block of outputs at a time:
// y[q] = sum_u w[u] m[u, q] x[q * s - p + u * d] + b, over kept taps or windows with a mask.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "convolution.h"
#include "eager.h"
#include "gathered.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kFewFilters = 4;  // fewer are added up sooner than a product of matrices starts

// A convolution over kept taps or masked windows; the filters (filters, channels * kept taps).
struct WindowCall {
  Tensor x, weight;
  std::optional<Tensor> bias, mask;
  std::vector<int64_t> kept;
  Geometry g;
  int64_t rows;  // of outputs at a time

  Places places() const { return {x.sizes().slice(2), weight.sizes().slice(2), g}; }
  int64_t channels() const { return weight.size(1); }
  int64_t filters() const { return weight.size(0) / g.groups; }
  int64_t inner() const { return channels() * static_cast<int64_t>(kept.size()); }
  bool all_taps() const {
    return static_cast<int64_t>(kept.size()) == c10::multiply_integers(weight.sizes().slice(2));
  }

  template <class F>
  void blocks(F f) const {
    const int64_t all = places().rows();
    for (int64_t sample = 0; sample < x.size(0); ++sample)
      for (int64_t group = 0; group < g.groups; ++group)
        for (int64_t top = 0; top < all; top += rows)
          f(RowBlock{sample, group, top, std::min(all, top + rows)});
  }

  // The planes of a depthwise convolution over kept taps.
  std::optional<Plane> planes() const {
    return mask ? std::nullopt : planes_of(x, weight, bias, g, kept);
  }

  template <class T>
  WindowMask<T> mask_of() const {
    if (!mask) return {};
    return {mask->const_data_ptr<T>(), mask->size(0), mask->size(1)};
  }

  // The kept taps of all filters side by side.
  Tensor chosen() const {
    if (all_taps()) return weight.view({weight.size(0), inner()});
    Tensor found = at::empty({weight.size(0), inner()}, weight.options());
    AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "windows", [&] {
      const auto* __restrict in = weight.const_data_ptr<scalar_t>();
      auto* __restrict out = found.mutable_data_ptr<scalar_t>();
      each_kept([&](int64_t of_kept, int64_t of_all) { out[of_kept] = in[of_all]; });
    });
    return found;
  }

  // The same back in a filter's own places, 0 elsewhere.
  Tensor spread(const Tensor& found) const {
    if (all_taps()) return found.view(weight.sizes());
    Tensor all = at::zeros(weight.sizes(), weight.options());
    AT_DISPATCH_FLOATING_TYPES(weight.scalar_type(), "windows", [&] {
      const auto* __restrict in = found.const_data_ptr<scalar_t>();
      auto* __restrict out = all.mutable_data_ptr<scalar_t>();
      each_kept([&](int64_t of_kept, int64_t of_all) { out[of_all] = in[of_kept]; });
    });
    return all;
  }

  // Call f(entry among the kept taps, entry of the weight).
  template <class F>
  void each_kept(F f) const {
    const int64_t lines = weight.size(0) * channels(), taps = kept.size();
    const int64_t all = weight.numel() / lines, *places = kept.data();
    for (int64_t line = 0; line < lines; ++line)
      for (int64_t i = 0; i < taps; ++i) f(line * taps + i, line * all + places[i]);
  }
};

// out (rows, count), lines `line` apart, = or += a (rows, inner) b (inner, count).
template <bool Adds>
void product(const Tensor& out, const Tensor& a, const Tensor& b) {
  if (Adds)
    Tensor(out).addmm_(a, b);
  else
    at::mm_out(const_cast<Tensor&>(out), a, b);
}

template <class T>
void compute_windows(const WindowCall& call, Tensor& y) {
  const Places p = call.places();
  const Tensor filters = call.chosen();
  const int64_t inner = call.inner(), own = call.filters(), outputs = p.outputs();
  Tensor memory = at::empty({inner * std::min(call.rows, p.rows()) * p.width()}, call.x.options());
  auto* columns = memory.mutable_data_ptr<T>();
  const auto* x = call.x.const_data_ptr<T>();
  auto* out = y.mutable_data_ptr<T>();
  const auto* bias = call.bias ? call.bias->const_data_ptr<T>() : nullptr;
  call.blocks([&](const RowBlock& b) {
    const int64_t count = (b.bottom - b.top) * p.width();
    gather(columns, x + b.sample * call.x.size(1) * p.pixels(), call.mask_of<T>(), call.kept, b,
           call.channels(), p);
    const int64_t first = (b.sample * y.size(1) + b.group * own) * outputs + b.top * p.width();
    if (own < kFewFilters) {
      const T* taps = filters.const_data_ptr<T>() + b.group * own * inner;
      for (int64_t f = 0; f < own; ++f) {
        T* row = out + first + f * outputs;
        std::fill(row, row + count, T(0));
        for (int64_t k = 0; k < inner; ++k)
          add_scaled(row, columns + k * count, taps[f * inner + k], count);
      }
    } else {
      product<false>(y.as_strided({own, count}, {outputs, 1}, first),
                     filters.narrow(0, b.group * own, own),
                     memory.as_strided({inner, count}, {count, 1}));
    }
    if (bias)
      for (int64_t f = 0; f < own; ++f) {
        T* row = out + first + f * outputs;
        for (int64_t i = 0; i < count; ++i) row[i] += bias[b.group * own + f];
      }
  });
}

template <class T>
Gradients window_gradients(const WindowCall& call, const Tensor& dy, bool of_x, bool of_weight) {
  const Places p = call.places();
  const int64_t inner = call.inner(), own = call.filters(), outputs = p.outputs();
  const Tensor filters = of_x ? call.chosen() : Tensor();
  Tensor memory = at::empty({inner * std::min(call.rows, p.rows()) * p.width()}, call.x.options());
  auto* columns = memory.mutable_data_ptr<T>();
  Tensor dx = of_x ? at::zeros(call.x.sizes(), call.x.options()) : Tensor();
  Tensor dw = of_weight ? at::zeros({call.weight.size(0), inner}, call.x.options()) : Tensor();
  const auto mask = call.mask_of<T>();
  call.blocks([&](const RowBlock& b) {
    const int64_t count = (b.bottom - b.top) * p.width();
    const int64_t image = b.sample * call.x.size(1) * p.pixels();
    const int64_t first = (b.sample * dy.size(1) + b.group * own) * outputs + b.top * p.width();
    const T* given = dy.const_data_ptr<T>() + first;
    const Tensor matrix = memory.as_strided({inner, count}, {count, 1});
    const Tensor of_block = dy.as_strided({own, count}, {outputs, 1}, first);
    if (of_weight) {
      gather(columns, call.x.const_data_ptr<T>() + image, mask, call.kept, b, call.channels(), p);
      if (own < kFewFilters) {
        T* taps = dw.mutable_data_ptr<T>() + b.group * own * inner;
        for (int64_t f = 0; f < own; ++f)
          for (int64_t k = 0; k < inner; ++k)
            taps[f * inner + k] += static_cast<T>(
                product_sum(given + f * outputs, columns + k * count, count));
      } else {
        product<true>(dw.narrow(0, b.group * own, own), of_block, matrix.t());
      }
    }
    if (of_x) {
      if (own < kFewFilters) {
        const T* taps = filters.const_data_ptr<T>() + b.group * own * inner;
        std::fill(columns, columns + inner * count, T(0));
        for (int64_t f = 0; f < own; ++f)
          for (int64_t k = 0; k < inner; ++k)
            add_scaled(columns + k * count, given + f * outputs, taps[f * inner + k], count);
      } else {
        product<false>(matrix, filters.narrow(0, b.group * own, own).t(), of_block);
      }
      scatter(dx.mutable_data_ptr<T>() + image, columns, mask, call.kept, b, call.channels(), p);
    }
  });
  return {dx, of_weight ? call.spread(dw) : dw, Tensor()};
}

// The same by the library's operations, tap by tap: for derivatives of derivatives.
inline Tensor by_taps(const Tensor& x, const Tensor& weight, const WindowCall& call) {
  const Places p = call.places();
  const int64_t rank = x.dim() - 2, lacking = 3 - rank, groups = call.g.groups;
  std::vector<int64_t> ring;
  for (int64_t axis = rank - 1; axis >= 0; --axis)
    ring.insert(ring.end(), 2, call.g.padding[axis]);
  const Tensor padded = at::constant_pad_nd(x, ring);
  const Tensor taps = weight.reshape({groups, call.filters(), call.channels(), p.taps()});
  std::vector<int64_t> shape{x.size(0), weight.size(0)};
  shape.insert(shape.end(), p.out.begin() + lacking, p.out.end());
  Tensor y;
  for (const int64_t tap : call.kept) {
    const std::array<int64_t, 3> u{tap / (p.kernel[2] * p.kernel[1]),
                                   tap / p.kernel[2] % p.kernel[1], tap % p.kernel[2]};
    Tensor read = padded;
    for (int64_t i = lacking; i < 3; ++i) {
      const int64_t first = u[i] * p.dilation[i];
      read = read.slice(i - lacking + 2, first, first + (p.out[i] - 1) * p.stride[i] + 1,
                        p.stride[i]);
    }
    read = read.reshape({x.size(0), x.size(1), p.outputs()});
    if (call.mask) {
      const auto& m = *call.mask;
      read = read * m.view({m.size(0), m.size(1), p.taps(), p.outputs()}).select(2, tap);
    }
    read = read.reshape({x.size(0), groups, call.channels(), p.outputs()});
    const Tensor term = at::matmul(taps.select(3, tap), read);
    y = y.defined() ? y + term : term;
  }
  return y.reshape(shape);
}

struct WindowProducts : torch::autograd::Function<WindowProducts> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const WindowCall& call);
  static variable_list backward(AutogradContext* ctx, const variable_list& dys);
};

inline Tensor computed(const WindowCall& call) {
  if (const auto planes = call.planes())
    return depthwise(call.x, call.chosen(), call.bias, *planes);
  const Places p = call.places();
  std::vector<int64_t> shape{call.x.size(0), call.weight.size(0)};
  shape.insert(shape.end(), p.out.begin() + (5 - call.x.dim()), p.out.end());
  Tensor y = at::empty(shape, call.x.options());
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "windows",
                             [&] { compute_windows<scalar_t>(call, y); });
  return y;
}

inline Tensor WindowProducts::forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                                const std::optional<Tensor>& bias, const WindowCall& call) {
  ctx->save_for_backward({x, weight, call.mask ? *call.mask : Tensor()});
  ctx->saved_data["geometry"] = call.g.packed();
  ctx->saved_data["kept"] = call.kept;
  ctx->saved_data["rows"] = call.rows;
  ctx->saved_data["bias"] = bias.has_value();
  return computed(call);
}

inline variable_list WindowProducts::backward(AutogradContext* ctx, const variable_list& dys) {
  const auto saved = ctx->get_saved_variables();
  WindowCall call{saved[0], saved[1], std::nullopt, std::nullopt,
                  ctx->saved_data["kept"].toIntVector(),
                  Geometry::unpacked(ctx->saved_data["geometry"].toIntVector()),
                  ctx->saved_data["rows"].toInt()};
  if (saved[2].defined()) call.mask = saved[2];
  const bool of_x = ctx->needs_input_grad(0), of_weight = ctx->needs_input_grad(1);
  const bool of_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
  Gradients found;
  Tensor dy = dys[0];
  if (is_recorded(dy)) {
    variable_list inputs;
    if (of_x) inputs.push_back(call.x);
    if (of_weight) inputs.push_back(call.weight);
    if (!inputs.empty()) {
      const bool kept = c10::GradMode::is_enabled();
      at::AutoGradMode recording(true);
      const auto all = torch::autograd::grad({by_taps(call.x, call.weight, call)}, inputs, {dy},
                                             std::nullopt, kept);
      if (of_x) found.x = all.front();
      if (of_weight) found.weight = all.back();
    }
  } else if (const auto planes = call.planes()) {
    const auto [dx, dw] = depthwise_gradients(dy.contiguous(), call.x, call.chosen(), *planes, of_x,
                                              of_weight);
    found = {dx, of_weight ? call.spread(dw) : dw, Tensor()};
  } else {
    dy = dy.contiguous();
    AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "windows", [&] {
      found = window_gradients<scalar_t>(call, dy, of_x, of_weight);
    });
  }
  if (of_bias) found.bias = sum_of_all_but_filters(dy);
  return {found.x, found.weight, found.bias, Tensor()};
}

inline Tensor windows(Tensor x, Tensor weight, std::optional<Tensor> bias,
                      std::optional<Tensor> mask, at::IntArrayRef kept, at::IntArrayRef stride,
                      at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
                      int64_t rows) {
  x = plain(x), weight = plain(weight), bias = plain(bias), mask = plain(mask);
  const Geometry g{stride.vec(), padding.vec(), dilation.vec(), groups, false, false, false};
  const WindowCall call{x, weight, bias, mask, kept.vec(), g, rows};
  if (!needs_gradient({x, weight, bias ? *bias : Tensor()})) return computed(call);
  return WindowProducts::apply(x, weight, bias, call);
}

}  // namespace convharness
