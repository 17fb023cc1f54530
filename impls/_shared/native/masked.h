// Masked convolution: y = (conv(x, w) + b) * m', m' = sum_c A m[centre] / sum_c A, A = sum_u |w|.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "convolution.h"
#include "eager.h"
#include "planes.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kFewMixed = 16;  // fewer are mixed sooner than a product of matrices starts
constexpr int64_t kMixed = 1 << 17;    // entries of m' that are mixed at a time

// A[o, c] = sum_u |w[o, c, u]| times a power of two per filter that keeps all sums in range, 1 for
// a filter of zeros, and its sums over c.
template <class T>
void importance(T* sums, T* totals, const T* weight, int64_t filters, int64_t channels,
                int64_t taps) {
  at::parallel_for(0, filters, grain_of(channels * taps), [&](int64_t from, int64_t to) {
    for (int64_t f = from; f < to; ++f) {
      const T* own = weight + f * channels * taps;
      T peak = 0;
      for (int64_t i = 0; i < channels * taps; ++i) peak = std::max(peak, std::abs(own[i]));
      int exponent = 0;
      std::frexp(peak, &exponent);
      const T scale = std::ldexp(T(1), -std::clamp(exponent, -125, 125));
      T total = 0;
      for (int64_t c = 0; c < channels; ++c) {
        T sum = 0;
        for (int64_t u = 0; u < taps; ++u) sum += std::abs(own[c * taps + u] * scale);
        sums[f * channels + c] = sum;
        total += sum;
      }
      if (total == T(0)) {
        std::fill(sums + f * channels, sums + (f + 1) * channels, T(1));
        total = static_cast<T>(channels);
      }
      totals[f] = total;
    }
  });
}

// m[centre(q)], the centre q * s - p + d * (K - 1) / 2 clamped into the image, one axis at a time.
inline Tensor at_centres(Tensor mask, at::IntArrayRef kernel, at::IntArrayRef out_size,
                         const Geometry& g) {
  for (size_t axis = 0; axis < kernel.size(); ++axis) {
    const int64_t size = mask.size(axis + 2), count = out_size[axis], s = g.stride[axis];
    const int64_t first = g.dilation[axis] * (kernel[axis] - 1) / 2 - g.padding[axis];
    if (first == 0 && s == 1 && count == size) continue;
    int64_t outer = 1, inner = 1;
    for (size_t i = 0; i < axis + 2; ++i) outer *= mask.size(i);
    for (int64_t i = axis + 3; i < mask.dim(); ++i) inner *= mask.size(i);
    auto shape = mask.sizes().vec();
    shape[axis + 2] = count;
    Tensor found = at::empty(shape, mask.options());
    AT_DISPATCH_FLOATING_TYPES(mask.scalar_type(), "masked", [&] {
      const auto* in = mask.const_data_ptr<scalar_t>();
      auto* out = found.mutable_data_ptr<scalar_t>();
      for (int64_t o = 0; o < outer; ++o)
        for (int64_t q = 0; q < count; ++q) {
          const int64_t at = std::clamp<int64_t>(first + q * s, 0, size - 1);
          std::copy_n(in + (o * size + at) * inner, inner, out + (o * count + q) * inner);
        }
    });
    mask = found;
  }
  return mask;
}

// m' of every filter: sum_c A m / sum_c A, at most 1.
template <class T>
void mix(const Tensor& shares, const Tensor& sampled, const Tensor& weight, int64_t groups) {
  T* updated = shares.mutable_data_ptr<T>();
  const int64_t samples = sampled.size(0), filters = weight.size(0), channels = weight.size(1);
  const int64_t own = filters / groups, taps = weight.numel() / (filters * channels);
  const int64_t places = sampled.numel() / (samples * sampled.size(1));
  if (channels == 1) {  // of one channel, the share is itself
    const T* m = sampled.const_data_ptr<T>();
    for (int64_t plane = 0; plane < samples * filters; ++plane)
      std::copy_n(m + (plane / filters * groups + plane % filters / own) * places, places,
                  updated + plane * places);
    return;
  }
  const Tensor sums = at::empty({filters, channels}, weight.options());
  const Tensor totals = at::empty({filters}, weight.options());
  importance(sums.mutable_data_ptr<T>(), totals.mutable_data_ptr<T>(), weight.const_data_ptr<T>(),
             filters, channels, taps);
  const T *a = sums.const_data_ptr<T>(), *all = totals.const_data_ptr<T>();
  const T* m = sampled.const_data_ptr<T>();
  const auto finish = [&](int64_t plane, int64_t start, int64_t n) {
    T* share = updated + plane * places + start;
    const T total = all[plane % filters];
    for (int64_t i = 0; i < n; ++i) share[i] = std::min(share[i] / total, T(1));
  };
  if (channels <= kFewMixed) {
    const int64_t blocks = (places + kBlock - 1) / kBlock;
    at::parallel_for(0, samples * filters * blocks, grain_of(kBlock * channels),
                     [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t plane = i / blocks, start = i % blocks * kBlock;
        const int64_t n = std::min(kBlock, places - start);
        const int64_t filter = plane % filters, sample = plane / filters;
        T* share = updated + plane * places + start;
        const T* read = m + ((sample * groups + filter / own) * channels) * places + start;
        multiply_by(share, read, a[filter * channels], n);
        for (int64_t c = 1; c < channels; ++c)
          add_scaled(share, read + c * places, a[filter * channels + c], n);
        finish(plane, start, n);
      }
    });
    return;
  }
  const int64_t step = std::max<int64_t>(64, kMixed / own);
  for (int64_t sample = 0; sample < samples; ++sample)
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t start = 0; start < places; start += step) {
        const int64_t n = std::min(step, places - start), plane = sample * filters + group * own;
        Tensor target = shares.as_strided({own, n}, {places, 1}, plane * places + start);
        at::mm_out(target, sums.narrow(0, group * own, own),
                   sampled.as_strided({channels, n}, {places, 1},
                                      (sample * groups + group) * channels * places + start));
        at::parallel_for(0, own, grain_of(n), [&](int64_t from, int64_t to) {
          for (int64_t f = from; f < to; ++f) finish(plane + f, start, n);
        });
      }
}

// m', of one channel where all share the mask.
inline Tensor share_at_centres(const Tensor& weight, const Tensor& mask, at::IntArrayRef out_size,
                               const Geometry& g) {
  const Tensor sampled = at_centres(mask, weight.sizes().slice(2), out_size, g);
  if (mask.size(1) == 1) return sampled.is_same(mask) ? mask.clone() : sampled;
  std::vector<int64_t> shape{mask.size(0), weight.size(0)};
  shape.insert(shape.end(), out_size.begin(), out_size.end());
  Tensor updated = at::empty(shape, mask.options());
  AT_DISPATCH_FLOATING_TYPES(mask.scalar_type(), "masked", [&] {
    mix<scalar_t>(updated, sampled, weight, g.groups);
  });
  return updated;
}

// Call f(plane of y, plane of m') for all planes.
template <class F>
void with_shares(const Tensor& y, const Tensor& updated, F f) {
  const int64_t filters = y.size(1), places = y.numel() / (y.size(0) * filters);
  const bool several = updated.size(0) > 1, shared = updated.size(1) == 1;
  at::parallel_for(0, y.size(0) * filters, grain_of(places), [&](int64_t from, int64_t to) {
    for (int64_t plane = from; plane < to; ++plane) {
      const int64_t sample = several ? plane / filters : 0;
      f(plane, shared ? sample : sample * filters + plane % filters, places);
    }
  });
}

inline std::tuple<Tensor, Tensor> masked_of(const Tensor& x, const Tensor& weight,
                                            const std::optional<Tensor>& bias, const Tensor& mask,
                                            const Geometry& g) {
  Tensor y = convolve(x, weight, bias, g).contiguous();
  const Tensor updated = share_at_centres(weight, mask, y.sizes().slice(2), g);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "masked", [&] {
    auto* out = y.mutable_data_ptr<scalar_t>();
    const auto* shares = updated.const_data_ptr<scalar_t>();
    with_shares(y, updated, [&](int64_t plane, int64_t share, int64_t n) {
      multiply_into(out + plane * n, shares + share * n, n);
    });
  });
  return {y, updated};
}

struct Masked : torch::autograd::Function<Masked> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const std::optional<Tensor>& bias, const Tensor& mask,
                               const Geometry& g) {
    const auto [y, updated] = masked_of(x, weight, bias, mask, g);
    ctx->save_for_backward({x, weight, updated});
    ctx->saved_data["geometry"] = g.packed();
    ctx->saved_data["bias"] = bias.has_value();
    ctx->mark_non_differentiable({updated});
    return {y, updated};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &updated = saved[2];
    const Geometry g = Geometry::unpacked(ctx->saved_data["geometry"].toIntVector());
    const bool of_x = ctx->needs_input_grad(0), of_weight = ctx->needs_input_grad(1);
    const bool of_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    const bool recorded = is_recorded(dys[0]);
    Tensor dy = dys[0];
    if (recorded) {
      dy = dy * updated;
    } else {
      const Tensor given = dy.contiguous();
      dy = at::empty(given.sizes(), given.options());
      AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "masked", [&] {
        auto* out = dy.mutable_data_ptr<scalar_t>();
        const auto* in = given.const_data_ptr<scalar_t>();
        const auto* shares = updated.const_data_ptr<scalar_t>();
        with_shares(dy, updated, [&](int64_t plane, int64_t share, int64_t n) {
          multiply(out + plane * n, in + plane * n, shares + share * n, n);
        });
      });
    }
    const auto found =
        convolve_backward(dy, x, weight, g, of_x, of_weight, of_bias,
                          !recorded && (of_x ? g.backward_by_onednn : g.forward_by_onednn));
    return {found.x, found.weight, found.bias, Tensor(), Tensor()};
  }
};

inline std::tuple<Tensor, Tensor> masked(Tensor x, Tensor weight, std::optional<Tensor> bias,
                                         Tensor mask, at::IntArrayRef stride,
                                         at::IntArrayRef padding, at::IntArrayRef dilation,
                                         int64_t groups, bool by_onednn, bool bias_apart) {
  x = plain(x), weight = plain(weight), bias = plain(bias), mask = plain(mask);
  const Geometry g{stride.vec(), padding.vec(), dilation.vec(), groups, by_onednn,
                   by_onednn && x.size(1) >= kFewChannels, bias_apart};
  if (!needs_gradient({x, weight, bias ? *bias : Tensor()}))
    return masked_of(x, weight, bias, mask, g);
  auto results = Masked::apply(x, weight, bias, mask, g);
  return {results[0], results[1]};
}

}  // namespace convharness
