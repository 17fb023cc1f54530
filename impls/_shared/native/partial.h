// Partial convolution: y = conv(x * m, w) * win / coverage * m' + b * m', m' = min(coverage, 1).
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "boxes.h"
#include "convolution.h"
#include "eager.h"
#include "planes.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// How a mask lies beside a signal (N, groups * channels, *S): one sample or N, one channel or all.
struct Cover {
  int64_t samples, groups, channels, positions, mask_samples;
  bool shared;

  Cover(const Tensor& x, const Tensor& mask, int64_t groups_of_weight)
      : samples(x.size(0)),
        groups(mask.size(1) == 1 ? 1 : groups_of_weight),
        channels(x.size(1) / groups),
        positions(x.numel() / (x.size(0) * x.size(1))),
        mask_samples(mask.size(0)),
        shared(mask.size(1) == 1) {}

  int64_t mask_plane(int64_t n, int64_t group, int64_t channel) const {
    const int64_t sample = mask_samples == 1 ? 0 : n;
    return shared ? sample : (sample * groups + group) * channels + channel;
  }

  // Where of the shares (mask_samples, groups, *S_out) those of a filter of a sample are.
  int64_t share_plane(int64_t n, int64_t filter, int64_t filters) const {
    return (mask_samples == 1 ? 0 : n) * groups + filter / (filters / groups);
  }
};

// out = x * m, of which out may be x; the sum of m over the channels of a group where asked for.
template <class T>
void select_and_count(T* out, T* count, const T* x, const T* mask, const Cover& c) {
  const int64_t blocks = (c.positions + kBlock - 1) / kBlock, grain = grain_of(kBlock * c.channels);
  at::parallel_for(0, c.samples * c.groups * blocks, grain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t start = i % blocks * kBlock, plane = i / blocks;
      const int64_t size = std::min(kBlock, c.positions - start);
      const bool counts = count && plane < c.mask_samples * c.groups;
      T* total = counts ? count + plane * c.positions + start : nullptr;
      if (counts) std::fill(total, total + size, T(0));
      for (int64_t channel = 0; channel < c.channels; ++channel) {
        const T* m = mask + c.mask_plane(plane / c.groups, plane % c.groups, channel) * c.positions;
        const int64_t entry = (plane * c.channels + channel) * c.positions + start;
        select(out + entry, x + entry, m + start, size);
        if (counts) add(total, m + start, size);
      }
    }
  });
}

inline Tensor selected(const Tensor& x, const Tensor& mask, int64_t groups) {
  Tensor out = at::empty(x.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "partial", [&] {
    select_and_count<scalar_t>(out.mutable_data_ptr<scalar_t>(), nullptr,
                               x.const_data_ptr<scalar_t>(), mask.const_data_ptr<scalar_t>(),
                               Cover(x, mask, groups));
  });
  return out;
}

struct Result {
  Tensor y, updated, scale;  // scale = win / coverage * m'
};

// Both of a coverage, which may be where the scale is to be.
template <class T>
void share(T* scale, T* updated, const T* coverage, int64_t count, T win) {
  at::parallel_for(0, count, kGrain, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const T c = coverage[i], ratio = win / std::max(c, T(1));
      updated[i] = std::min(c, T(1));
      scale[i] = c > T(0) ? ratio : T(0);
    }
  });
}

inline Result compute(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
               const Tensor& mask, const Geometry& g) {
  const Cover cover(x, mask, g.groups);
  const auto size = x.sizes().slice(2), kernel = weight.sizes().slice(2);
  Tensor product = at::empty(x.sizes(), x.options());
  Result result;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "partial", [&] {
    const auto* m = mask.const_data_ptr<scalar_t>();
    const int64_t planes = cover.mask_samples * cover.groups;
    const bool counts = !cover.shared && cover.channels > 1;  // else the mask is its own count
    std::vector<scalar_t> count(counts ? planes * cover.positions : 0);
    select_and_count(product.mutable_data_ptr<scalar_t>(), counts ? count.data() : nullptr,
                     x.const_data_ptr<scalar_t>(), m, cover);
    Tensor y = result.y = convolve(product, weight, std::nullopt, g).contiguous();
    const auto out_size = y.sizes().slice(2);
    const int64_t window = c10::multiply_integers(kernel) * (cover.shared ? 1 : cover.channels);
    std::vector<int64_t> shape{cover.mask_samples, cover.groups};
    shape.insert(shape.end(), out_size.begin(), out_size.end());
    result.updated = at::empty(shape, x.options());
    auto* updated = result.updated.mutable_data_ptr<scalar_t>();
    const auto finish = [&](const scalar_t* coverage) {
      share(result.scale.mutable_data_ptr<scalar_t>(), updated, coverage, result.updated.numel(),
            static_cast<scalar_t>(window));
    };
    if (cover.groups > 1 && !counts) {
      std::vector<int64_t> taps{cover.groups, 1};
      taps.insert(taps.end(), kernel.begin(), kernel.end());
      result.scale = convolve(mask, at::ones(taps, x.options()), std::nullopt, g);
      finish(result.scale.const_data_ptr<scalar_t>());
    } else {
      result.scale = at::empty(shape, x.options());
      finish(box_sums(counts ? count.data() : m, planes, size, kernel, g, out_size).data());
    }
    const auto* scale = result.scale.const_data_ptr<scalar_t>();
    auto* out = y.mutable_data_ptr<scalar_t>();
    const auto* offsets = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
    const int64_t filters = y.size(1), places = result.scale.numel() / planes;
    at::parallel_for(0, y.size(0) * filters, grain_of(places), [&](int64_t from, int64_t to) {
      for (int64_t plane = from; plane < to; ++plane) {
        const int64_t at = cover.share_plane(plane / filters, plane % filters, filters) * places;
        rescale(out + plane * places, scale + at, updated + at,
                offsets ? offsets[plane % filters] : scalar_t(0), places);
      }
    });
  });
  return result;
}

// dy * scale, and the sum of dy * m' over all but the filters where it is asked for.
inline std::tuple<Tensor, Tensor> of_product_and_bias(const Tensor& dy, const Tensor& scale,
                                               const Tensor& updated, const Cover& cover,
                                               bool of_bias) {
  Tensor scaled = at::empty(dy.sizes(), dy.options()), db;
  const int64_t samples = dy.size(0), filters = dy.size(1);
  const int64_t places = dy.numel() / (samples * filters);
  if (of_bias) db = at::empty({filters}, dy.options());
  AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "partial", [&] {
    auto* out = scaled.mutable_data_ptr<scalar_t>();
    auto* sums = of_bias ? db.mutable_data_ptr<scalar_t>() : nullptr;
    const auto* given = dy.const_data_ptr<scalar_t>();
    const auto* scales = scale.const_data_ptr<scalar_t>();
    const auto* shares = of_bias ? updated.const_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, filters, grain_of(samples * places), [&](int64_t from, int64_t to) {
      for (int64_t filter = from; filter < to; ++filter) {
        double sum = 0;
        for (int64_t n = 0; n < samples; ++n) {
          const int64_t of_share = cover.share_plane(n, filter, filters) * places;
          for (int64_t start = 0; start < places; start += kBlock) {
            const int64_t size = std::min(kBlock, places - start);
            const int64_t entry = (n * filters + filter) * places + start;
            multiply(out + entry, given + entry, scales + of_share + start, size);
            if (of_bias) sum += product_sum(given + entry, shares + of_share + start, size);
          }
        }
        if (of_bias) sums[filter] = static_cast<scalar_t>(sum);
      }
    });
  });
  return {scaled, db};
}

// One entry per filter in place of one per group.
inline Tensor per_filter(const Tensor& share, int64_t filters) {
  const int64_t groups = share.size(1);
  return groups == 1 || groups == filters ? share : share.repeat_interleave(filters / groups, 1);
}

struct Partial : torch::autograd::Function<Partial> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const std::optional<Tensor>& bias, const Tensor& mask,
                               const Geometry& g) {
    const Result result = compute(x, weight, bias, mask, g);
    const bool kept = bias && bias->requires_grad();
    ctx->save_for_backward({x, weight, mask, result.scale, kept ? result.updated : Tensor()});
    ctx->saved_data["geometry"] = g.packed();
    ctx->saved_data["bias"] = bias.has_value();
    ctx->mark_non_differentiable({result.updated});
    return {result.y, result.updated};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &mask = saved[2], &scale = saved[3];
    const Geometry g = Geometry::unpacked(ctx->saved_data["geometry"].toIntVector());
    const bool of_x = ctx->needs_input_grad(0), of_weight = ctx->needs_input_grad(1);
    const bool of_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    Tensor dx, db, dy = dys[0];
    if (is_recorded(dy)) {  // a derivative of this derivative will be asked for
      if (of_bias) db = sum_of_all_but_filters(dy * per_filter(saved[4], dy.size(1)));
      dy = dy * per_filter(scale, dy.size(1));
      const auto only_present = [&](const Tensor& all) {
        return at::where(mask == 0, at::zeros({}, all.options()), all) * mask;
      };
      const auto found =
          convolve_backward(dy, only_present(x), weight, g, of_x, of_weight, false, false);
      dx = of_x ? only_present(found.x) : dx;
      return {dx, found.weight, db, Tensor(), Tensor()};
    }
    const Cover cover(x, mask, g.groups);
    std::tie(dy, db) = of_product_and_bias(dy.contiguous(), scale, saved[4], cover, of_bias);
    const auto found =
        convolve_backward(dy, of_weight ? selected(x, mask, g.groups) : x, weight, g, of_x,
                          of_weight, false, of_x ? g.backward_by_onednn : g.forward_by_onednn);
    if (of_x) {
      dx = found.x.contiguous();
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "partial", [&] {
        auto* entries = dx.mutable_data_ptr<scalar_t>();
        select_and_count<scalar_t>(entries, nullptr, entries, mask.const_data_ptr<scalar_t>(),
                                   cover);
      });
    }
    return {dx, found.weight, db, Tensor(), Tensor()};
  }
};

inline std::tuple<Tensor, Tensor> partial(Tensor x, Tensor weight, std::optional<Tensor> bias,
                                          Tensor mask, at::IntArrayRef stride,
                                          at::IntArrayRef padding, at::IntArrayRef dilation,
                                          int64_t groups, bool by_onednn) {
  x = plain(x), weight = plain(weight), bias = plain(bias), mask = plain(mask);
  const Geometry g{stride.vec(), padding.vec(), dilation.vec(), groups, by_onednn,
                   by_onednn && x.size(1) >= kFewChannels, false};
  if (!needs_gradient({x, weight, bias ? *bias : Tensor()})) {
    const Result result = compute(x, weight, bias, mask, g);
    return {result.y, result.updated};
  }
  auto results = Partial::apply(x, weight, bias, mask, g);
  return {results[0], results[1]};
}

}  // namespace convharness
