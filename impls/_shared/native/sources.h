// Convolution of an image and sources of fewer axes: y = sum_i conv(x_i, w_i) over the axes of x_i
// + b, or, with one weight for all, y = conv(concat_i tile(x_i), w) + b.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "convolution.h"
#include "eager.h"
#include "terms.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline std::array<int64_t, 3> lifted(at::IntArrayRef size) {
  std::array<int64_t, 3> all{1, 1, 1};
  for (size_t i = 0; i < size.size(); ++i) all[3 - size.size() + i] = size[i];
  return all;
}

struct SourceCall {
  variable_list x, weight;  // the image first; one weight for all of tiled sources
  std::optional<Tensor> bias;
  Geometry image;
  std::vector<int64_t> spans;  // bit a of a source that spans axis a
  // Of tiled sources per axis: how many classes of outputs there are, then of each its first output,
  // how many it has, and bit u for every tap u that it sees.
  std::vector<int64_t> tiles;

  bool tiled() const { return !tiles.empty(); }
  int64_t rank() const { return x[0].dim() - 2; }
  bool spanned(size_t i, int64_t axis) const { return spans[i] >> axis & 1; }
  int64_t first_channel(size_t i) const {
    int64_t first = 0;
    for (size_t k = 0; tiled() && k < i; ++k) first += x[k].size(1);
    return first;
  }
  const Tensor& weight_of(size_t i) const { return tiled() ? weight[0] : weight[i]; }
  Tensor image_weight() const {
    return tiled() ? weight[0].narrow(1, 0, x[0].size(1)).contiguous() : weight[0];
  }

  // What source i is beside outputs of such a size.
  SourceShape shape_of(size_t i, at::IntArrayRef out_size) const {
    SourceShape s{{}, x[i].size(0), x[i].size(1)};
    auto entry = tiles.begin();
    for (int64_t axis = 0, own = 2; axis < rank(); ++axis) {
      Along& a = s.axes[3 - rank() + axis];
      a.alike = {{0, out_size[axis]}};
      Along classes;
      if (tiled()) {
        classes.outputs = *entry++;
        classes.seen.clear(), classes.alike.clear();
        for (int64_t k = 0; k < classes.outputs; ++k, entry += 3) {
          classes.alike.push_back({entry[0], entry[1]});
          classes.seen.push_back(entry[2]);
        }
      }
      if (spanned(i, axis)) {
        a.spanned = true;
        a.size = x[i].size(own++);
        a.stride = image.stride[axis];
        a.padding = image.padding[axis];
        a.dilation = image.dilation[axis];
        a.outputs = out_size[axis];
        a.taps = weight[0].size(axis + 2);
      } else if (tiled()) {
        a = classes;
        a.taps = weight[0].size(axis + 2);
      }
    }
    return s;
  }
};

inline Tensor computed(const SourceCall& call) {
  const bool alone = call.x.size() == 1;
  Tensor y = convolve(call.x[0], call.image_weight(), alone ? call.bias : std::nullopt, call.image);
  if (alone) return y;
  y = y.contiguous();
  const auto size = lifted(y.sizes().slice(2));
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "sources", [&] {
    variable_list terms;
    Terms<scalar_t> beside(size);
    for (size_t i = 1; i < call.x.size(); ++i) {
      const SourceShape s = call.shape_of(i, y.sizes().slice(2));
      const Tensor filters = filters_of(call.weight_of(i), call.first_channel(i), s);
      terms.push_back(source_term<scalar_t>(call.x[i], filters, s));
      beside.add(terms.back(), s);
    }
    join(y.mutable_data_ptr<scalar_t>(), beside,
         call.bias ? call.bias->const_data_ptr<scalar_t>() : nullptr, y.size(0), y.size(1));
  });
  return y;
}

// Filters per output from which on the weight's gradient is that many times larger than what it is
// made of.
constexpr int64_t kFewOutputs = 4;

// Of which arguments a gradient is asked for.
struct Asked {
  std::vector<bool> x, weight;
  bool bias;
};

struct SourceGradients {
  variable_list x, weight;
  Tensor bias;
};

// By the library's operations, tiled sources as they are defined: for derivatives of derivatives.
inline SourceGradients recorded_gradients(const SourceCall& call, const Tensor& dy,
                                          const Asked& asked) {
  const size_t count = call.x.size();
  SourceGradients found{variable_list(count), variable_list(call.weight.size()), Tensor()};
  const auto of_axes = [&](Tensor own, size_t i) {
    for (int64_t axis = call.rank() - 1; axis >= 0; --axis)
      if (!call.spanned(i, axis)) own = own.sum(axis + 2);
    return own;
  };
  if (asked.bias) found.bias = sum_of_all_but_filters(dy);
  if (call.tiled()) {
    variable_list tiled;
    for (size_t i = 0; i < count; ++i) {
      Tensor own = call.x[i];
      for (int64_t axis = 0; axis < call.rank(); ++axis)
        if (!call.spanned(i, axis)) own = own.unsqueeze(axis + 2);
      auto shape = call.x[0].sizes().vec();
      shape[1] = own.size(1);
      tiled.push_back(own.expand(shape));
    }
    const auto all =
        convolve_backward(dy, at::cat(tiled, 1), call.weight[0], call.image,
                          std::count(asked.x.begin(), asked.x.end(), true) > 0, asked.weight[0],
                          false, false);
    found.weight[0] = all.weight;
    for (size_t i = 0; i < count; ++i)
      if (asked.x[i])
        found.x[i] = of_axes(all.x.narrow(1, call.first_channel(i), call.x[i].size(1)), i);
    return found;
  }
  for (size_t i = 0; i < count; ++i) {
    const Tensor own = of_axes(dy, i);
    if (call.x[i].dim() == 2) {
      if (asked.x[i]) found.x[i] = at::matmul(own, call.weight[i]);
      if (asked.weight[i]) found.weight[i] = at::matmul(own.t(), call.x[i]);
      continue;
    }
    Geometry g{{}, {}, {}, 1, false, false, false};
    for (int64_t axis = 0; axis < call.rank(); ++axis)
      if (call.spanned(i, axis)) {
        g.stride.push_back(call.image.stride[axis]);
        g.padding.push_back(call.image.padding[axis]);
        g.dilation.push_back(call.image.dilation[axis]);
      }
    const auto all = convolve_backward(own, call.x[i], call.weight[i], g, asked.x[i],
                                       asked.weight[i], false, false);
    found.x[i] = all.x, found.weight[i] = all.weight;
  }
  return found;
}

inline SourceGradients gradients_of(const SourceCall& call, const Tensor& dy, const Asked& asked) {
  const size_t count = call.x.size();
  SourceGradients found{variable_list(count), variable_list(call.weight.size()), Tensor()};
  const auto out_size = dy.sizes().slice(2);
  const auto size = lifted(out_size);
  const auto of_weight = [&](size_t i) { return asked.weight[call.tiled() ? 0 : i]; };
  // Few outputs beside many filters: the image, too, is multiplied, into the weight's part of it.
  const bool multiplied = call.tiled() && of_weight(0) &&
                          kFewOutputs * dy.size(0) * size[0] * size[1] * size[2] <= dy.size(1);
  auto image = convolve_backward(
      dy, call.x[0], call.image_weight(), call.image, asked.x[0], of_weight(0) && !multiplied,
      false, asked.x[0] ? call.image.backward_by_onednn : call.image.forward_by_onednn);
  found.x[0] = image.x;
  if (of_weight(0))
    found.weight[0] =
        call.tiled() ? at::empty(call.weight[0].sizes(), dy.options()) : std::move(image.weight);
  if (image.weight.defined())
    found.weight[0].narrow(1, 0, call.x[0].size(1)).copy_(std::exchange(image.weight, Tensor()));
  if (asked.bias) found.bias = at::empty({dy.size(1)}, dy.options());
  AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "sources", [&] {
    variable_list terms;
    std::vector<SourceShape> shapes;
    std::vector<size_t> places;
    Terms<scalar_t> beside(size);
    for (size_t i = multiplied ? 0 : 1; i < count; ++i) {
      if (!asked.x[i] && !of_weight(i)) continue;
      shapes.push_back(call.shape_of(i, out_size));
      terms.push_back(at::zeros({dy.size(1), shapes.back().columns()}, dy.options()));
      beside.add(terms.back(), shapes.back());
      places.push_back(i);
    }
    if (asked.bias || !terms.empty())
      sum_apart(dy.const_data_ptr<scalar_t>(), beside,
                asked.bias ? found.bias.mutable_data_ptr<scalar_t>() : nullptr, dy.size(0),
                dy.size(1));
    for (size_t k = 0; k < places.size(); ++k) {
      const size_t i = places[k];
      const SourceShape& s = shapes[k];
      if (i > 0 && asked.x[i]) {
        const Tensor filters = filters_of(call.weight_of(i), call.first_channel(i), s);
        const Tensor columns = multiply_by_filters<scalar_t>(filters, terms[k], s.used());
        found.x[i] = source_gradient<scalar_t>(columns, call.x[i].sizes(), s);
      }
      if (of_weight(i)) {
        Tensor& whole = found.weight[call.tiled() ? 0 : i];
        if (!call.tiled()) whole = at::empty(call.weight[i].sizes(), dy.options());
        multiply_transposed<scalar_t>(filters_of(whole, call.first_channel(i), s), terms[k],
                                      source_columns<scalar_t>(call.x[i], s), s.used());
      }
    }
  });
  return found;
}

struct Sources : torch::autograd::Function<Sources> {
  static Tensor forward(AutogradContext* ctx, at::TensorList x, at::TensorList weight,
                        const std::optional<Tensor>& bias, const SourceCall& call) {
    variable_list saved(x.begin(), x.end());
    saved.insert(saved.end(), weight.begin(), weight.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["geometry"] = call.image.packed();
    ctx->saved_data["spans"] = call.spans;
    ctx->saved_data["tiles"] = call.tiles;
    ctx->saved_data["bias"] = bias.has_value();
    return computed(call);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    auto spans = ctx->saved_data["spans"].toIntVector();
    const size_t count = spans.size(), all = saved.size();
    const auto middle = saved.begin() + static_cast<std::ptrdiff_t>(count);
    const SourceCall call{{saved.begin(), middle}, {middle, saved.end()}, std::nullopt,
                          Geometry::unpacked(ctx->saved_data["geometry"].toIntVector()), spans,
                          ctx->saved_data["tiles"].toIntVector()};
    Asked asked{{}, {}, ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(all)};
    for (size_t i = 0; i < all; ++i)
      (i < count ? asked.x : asked.weight).push_back(ctx->needs_input_grad(i));
    const auto own = is_recorded(dys[0]) ? recorded_gradients(call, dys[0], asked)
                                         : gradients_of(call, dys[0].contiguous(), asked);
    variable_list found = own.x;
    found.insert(found.end(), own.weight.begin(), own.weight.end());
    found.push_back(own.bias);
    found.push_back(Tensor());
    return found;
  }
};

inline Tensor sources(at::TensorList given, at::TensorList taps, std::optional<Tensor> bias,
                      at::IntArrayRef spans, at::IntArrayRef tiles, at::IntArrayRef stride,
                      at::IntArrayRef padding, at::IntArrayRef dilation, bool by_onednn,
                      bool bias_apart) {
  SourceCall call{{}, {}, plain(bias), {}, spans.vec(), tiles.vec()};
  for (const auto& x : given) call.x.push_back(plain(x));
  for (const auto& weight : taps) call.weight.push_back(plain(weight));
  call.image = {stride.vec(), padding.vec(), dilation.vec(), 1, by_onednn,
                by_onednn && call.x[0].size(1) >= kFewChannels, bias_apart};
  bool recorded = call.bias && needs_gradient({*call.bias});
  for (const auto& x : call.x) recorded = recorded || needs_gradient({x});
  for (const auto& weight : call.weight) recorded = recorded || needs_gradient({weight});
  if (!recorded) return computed(call);
  return Sources::apply(at::TensorList(call.x), at::TensorList(call.weight), call.bias, call);
}

}  // namespace convharness
