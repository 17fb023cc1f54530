// The library's convolution, forward and backward; impls/_shared/onednn.py says when by oneDNN. A
// depthwise one is computed here.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/mkldnn_convolution.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "depthwise.h"
#include "eager.h"

namespace convharness {

using at::Tensor;

// Where the windows of a convolution lie, whether oneDNN is asked in the library's place, and
// whether the bias is added after it.
struct Geometry {
  std::vector<int64_t> stride, padding, dilation;
  int64_t groups;
  bool forward_by_onednn, backward_by_onednn, bias_apart;

  std::vector<int64_t> no_padding() const { return std::vector<int64_t>(stride.size(), 0); }

  // As autograd keeps it: one list of integers.
  std::vector<int64_t> packed() const {
    std::vector<int64_t> all{groups, forward_by_onednn, backward_by_onednn, bias_apart};
    for (const auto* values : {&stride, &padding, &dilation})
      all.insert(all.end(), values->begin(), values->end());
    return all;
  }

  static Geometry unpacked(const std::vector<int64_t>& all) {
    const auto rank = static_cast<std::ptrdiff_t>(all.size() - 4) / 3;
    const auto part = [&](std::ptrdiff_t i) {
      const auto from = all.begin() + 4 + i * rank;
      return std::vector<int64_t>(from, from + rank);
    };
    return {part(0), part(1), part(2), all[0], all[1] != 0, all[2] != 0, all[3] != 0};
  }
};

constexpr int64_t kFewChannels = 4;  // fewer, and oneDNN gives the gradient of the signal later

// The planes of a depthwise convolution; none of another, or where the library is to refuse.
inline std::optional<Plane> planes_of(const Tensor& x, const Tensor& weight,
                                      const std::optional<Tensor>& bias, const Geometry& g,
                                      const std::vector<int64_t>& kept = {}) {
  const auto least = [](const std::vector<int64_t>& values) {
    return *std::min_element(values.begin(), values.end());
  };
  const bool fits = x.size(1) == g.groups && weight.size(1) == 1 && weight.dim() == x.dim() &&
                    weight.size(0) % g.groups == 0 && least(g.stride) > 0 &&
                    least(g.dilation) > 0 && least(g.padding) >= 0;
  if (g.groups == 1 || !fits) return std::nullopt;
  if (bias && (bias->dim() != 1 || bias->size(0) != weight.size(0))) return std::nullopt;
  const Plane plane(x.sizes().slice(2), weight.sizes().slice(2), g.stride, g.padding, g.dilation,
                    kept);
  return plane.is_valid ? std::optional(plane) : std::nullopt;
}

inline Tensor convolve(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       const Geometry& g) {
  if (!needs_gradient({x, weight}))  // only the library's is recorded
    if (const auto plane = planes_of(x, weight, bias, g))
      return depthwise(x.contiguous(), weight.contiguous(), bias, *plane);
  if (g.forward_by_onednn)
    return at::mkldnn_convolution(x, weight, bias, g.padding, g.stride, g.dilation, g.groups);
  if (!bias || !g.bias_apart)
    return at::convolution(x, weight, bias, g.stride, g.padding, g.dilation, false, g.no_padding(),
                           g.groups);
  std::vector<int64_t> column(x.dim() - 1, 1);
  column[0] = -1;
  return convolve(x, weight, std::nullopt, g).add_(bias->view(column));
}

// The gradient of a bias.
inline Tensor sum_of_all_but_filters(const Tensor& dy) {
  std::vector<int64_t> others{0};
  for (int64_t axis = 2; axis < dy.dim(); ++axis) others.push_back(axis);
  return dy.sum(others);
}

struct Gradients {
  Tensor x, weight, bias;  // undefined where none is asked for
};

inline Gradients convolve_backward(Tensor dy, Tensor x, const Tensor& weight, const Geometry& g,
                                   bool of_x, bool of_weight, bool of_bias, bool by_onednn) {
  if (!of_x && !of_weight && !of_bias) return {};
  if (!is_recorded(dy))
    if (const auto plane = planes_of(x, weight, std::nullopt, g)) {
      const auto [dx, dw] = depthwise_gradients(dy.contiguous(), x.contiguous(),
                                                weight.contiguous(), *plane, of_x, of_weight);
      return {dx, dw, of_bias ? sum_of_all_but_filters(dy) : Tensor()};
    }
  if (by_onednn) {  // tensors of oneDNN's own type are its own to convolve
    dy = dy.to_mkldnn();
    x = x.to_mkldnn();
  }
  const std::vector<int64_t> bias_size{weight.size(0)};
  auto [dx, dw, db] = at::convolution_backward(dy, x, weight, bias_size, g.stride, g.padding,
                                               g.dilation, false, g.no_padding(), g.groups,
                                               {of_x, of_weight, of_bias});
  if (by_onednn && of_x) dx = dx.to_dense();
  return {dx, dw, db};
}

}  // namespace convharness
