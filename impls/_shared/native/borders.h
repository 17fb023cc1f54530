// A convolution with a kernel per displacement: the windows that leave the image as far along every
// axis share one, the interior has that in the middle of the stack.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "border_boxes.h"
#include "eager.h"
#include "narrow.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline Tensor of_box(Tensor all, const Box& box, int64_t lacking) {
  for (int64_t axis = lacking; axis < 3; ++axis)
    all = all.narrow(axis - lacking + 2, box.first[axis], box.count[axis]);
  return all;
}

// A box and what its windows read.
struct Piece {
  Box box;
  std::vector<Read> reads;
};

// All sizes of a call.
struct BorderSizes {
  const Border border;
  const int64_t samples, groups, own, channels, taps, inner, pixels, places;
  std::vector<Piece> pieces;  // but the middle

  explicit BorderSizes(const BorderCall& call)
      : border(call.border()),
        samples(call.x.size(0)),
        groups(call.padded.groups),
        own(call.filters()),
        channels(call.x.size(1) / groups),
        taps(border.p.taps()),
        inner(channels * taps),
        pixels(border.p.pixels()),
        places(border.p.outputs()) {
    border.boxes([&](const Box& box) {
      if (box.kernel != border.middle()) pieces.push_back({box, border.reads(box)});
    });
  }

  int64_t kernel(const Box& box, int64_t group) const {
    return (box.kernel * groups + group) * own * inner;
  }
  // So few that one multiplies them where they are.
  bool few() const { return own * channels <= 4; }
  // Pieces, filters or channels that are worth a thread.
  int64_t grain_of_pieces() const { return grain_of(samples * groups * own * inner); }
  int64_t grain_of_planes() const { return grain_of((places - border.inside().outputs()) * inner); }
};

// Call f(column, channel of the group, tap, pixel) for all that a piece reads of channels
// [low, high).
template <class F>
void each_read(const Piece& piece, const BorderSizes& s, int64_t group, int64_t low, int64_t high,
               F f) {
  for (int64_t n = 0; n < s.samples; ++n)
    for (const Read& read : piece.reads)
      for (int64_t q = 0; q < read.count; ++q) {
        const int64_t column = n * piece.box.outputs() + read.column + q * read.column_step;
        const int64_t pixel = read.pixel + q * read.pixel_step;
        const int64_t plane = (n * s.groups + group) * s.channels;
        for (int64_t c = low; c < high; ++c)
          f(column, c, read.tap, (plane + c) * s.pixels + pixel);
      }
}

template <class T>
void multiply_piece(T* y, const Piece& piece, const BorderSizes& s, const T* x, const T* stack,
                    const T* bias, const at::TensorOptions& options) {
  const int64_t count = piece.box.outputs(), used = s.samples * count;
  const int64_t padded = used == 1 ? 1 : padded_columns(used);
  // One output reads all of its kernel, one after the other; more have the taps alone that read.
  std::vector<int64_t> kept, place(s.taps, -1);
  for (const Read& read : piece.reads) place[read.tap] = 0;
  for (int64_t tap = 0; tap < s.taps; ++tap)
    if (used == 1 || place[tap] == 0) {
      place[tap] = static_cast<int64_t>(kept.size());
      kept.push_back(tap);
    }
  const auto some = static_cast<int64_t>(kept.size()), rows = s.channels * some;
  std::vector<int64_t> steps;
  for (int64_t c = 0; c < s.channels; ++c)
    for (const int64_t tap : kept) steps.push_back(c * s.taps + tap);
  std::vector<T> columns(rows * padded), product(s.own * padded);
  for (int64_t group = 0; group < s.groups; ++group) {
    each_read(piece, s, group, 0, s.channels, [&](int64_t column, int64_t c, int64_t tap,
                                                  int64_t pixel) {
      columns[(c * some + place[tap]) * padded + column] = x[pixel];
    });
    const T* filters = stack + s.kernel(piece.box, group);
    if (used == 1) {
      for (int64_t f = 0; f < s.own; ++f)
        product[f] = static_cast<T>(product_sum(filters + f * s.inner, columns.data(), s.inner));
    } else if (used < kManyColumns) {
      const auto step = [&](int64_t k) { return steps[k]; };
      multiply_narrow(product.data(), padded, filters, s.inner, step, columns.data(), padded, s.own,
                      rows, padded);
    } else {
      std::vector<T> dense(s.own * rows);
      for (int64_t f = 0; f < s.own; ++f)
        for (int64_t k = 0; k < rows; ++k) dense[f * rows + k] = filters[f * s.inner + steps[k]];
      multiply_either(product.data(), padded, dense.data(), rows, 1, columns.data(), padded, s.own,
                      rows, used, used, options);
    }
    for (int64_t n = 0; n < s.samples; ++n)
      for (int64_t f = 0; f < s.own; ++f) {
        const int64_t filter = group * s.own + f;
        T* plane = y + (n * s.groups * s.own + filter) * s.places;
        const T* line = product.data() + f * padded + n * count;
        const T added = bias ? bias[filter] : T(0);
        s.border.outputs(piece.box, [&](int64_t q, int64_t at) { plane[at] = line[q] + added; });
      }
  }
}

// Filter f of all, plane by plane: for so few channels that nothing is worth gathering.
template <class T, class F>
void each_line(const BorderSizes& s, int64_t filter, F f) {
  const int64_t group = filter / s.own, own = filter % s.own;
  for (const Piece& piece : s.pieces) {
    const int64_t kernel = s.kernel(piece.box, group) + own * s.inner;
    for (const Read& read : piece.reads)
      for (int64_t c = 0; c < s.channels; ++c)
        f(read, kernel + c * s.taps + read.tap, group * s.channels + c);
  }
}

template <class T>
void add_border(const BorderCall& call, Tensor& y) {
  const BorderSizes s(call);
  const auto* bias = call.bias ? call.bias->const_data_ptr<T>() : nullptr;
  const auto *x = call.x.const_data_ptr<T>(), *stack = call.weight.const_data_ptr<T>();
  auto* out = y.mutable_data_ptr<T>();
  if (!s.few()) {
    const auto many = static_cast<int64_t>(s.pieces.size());
    at::parallel_for(0, many, s.grain_of_pieces(), [&](int64_t low, int64_t high) {
      for (int64_t i = low; i < high; ++i)
        multiply_piece(out, s.pieces[i], s, x, stack, bias, y.options());
    });
    return;
  }
  const int64_t filters = s.groups * s.own;
  at::parallel_for(0, s.samples * filters, s.grain_of_planes(), [&](int64_t low, int64_t high) {
    for (int64_t i = low; i < high; ++i) {
      const int64_t n = i / filters, filter = i % filters;
      T* plane = out + i * s.places;
      for (const Piece& piece : s.pieces)
        s.border.outputs(piece.box, [&](int64_t, int64_t at) {
          plane[at] = bias ? bias[filter] : T(0);
        });
      each_line<T>(s, filter, [&](const Read& read, int64_t entry, int64_t channel) {
        const T* given = x + (n * call.x.size(1) + channel) * s.pixels + read.pixel;
        const T factor = stack[entry];
        for (int64_t q = 0; q < read.count; ++q)
          plane[read.output + q * read.output_step] += factor * given[q * read.pixel_step];
      });
    }
  });
}

inline Tensor computed(const BorderCall& call) {
  const Border border = call.border();
  const Tensor stack = call.stack(), middle = stack.select(0, border.middle());
  const Box inside = border.inside();
  Tensor y;
  if (call.copied || inside.outputs() == 0) {
    std::vector<int64_t> shape{call.x.size(0), stack.size(1)};
    shape.insert(shape.end(), border.p.out.begin() + border.lacking, border.p.out.end());
    y = at::empty(shape, call.x.options());
    if (inside.outputs())
      of_box(y, inside, border.lacking).copy_(convolve(call.x, middle, call.bias, call.valid()));
  } else {
    y = convolve(call.x, middle, call.bias, call.padded).contiguous();
  }
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "borders", [&] { add_border<scalar_t>(call, y); });
  return y;
}

// Gradients of a piece: that of its kernel, and what goes to each of the pixels that its windows
// read, (columns, groups, channels * taps).
template <class T>
void piece_gradients(std::vector<T>& to_pixels, T* dstack, const Piece& piece, const BorderSizes& s,
                     const T* x, const T* stack, const T* dy, const at::TensorOptions& options) {
  const int64_t count = piece.box.outputs(), used = s.samples * count;
  std::vector<T> part(s.own * used), windows(dstack ? used * s.inner : 0);
  const int64_t line = s.groups * s.inner;
  if (stack) to_pixels.resize(used * line);
  for (int64_t group = 0; group < s.groups; ++group) {
    for (int64_t n = 0; n < s.samples; ++n)
      for (int64_t f = 0; f < s.own; ++f) {
        const T* plane = dy + ((n * s.groups + group) * s.own + f) * s.places;
        T* own = part.data() + f * used + n * count;
        s.border.outputs(piece.box, [&](int64_t q, int64_t at) { own[q] = plane[at]; });
      }
    const int64_t kernel = s.kernel(piece.box, group);
    if (dstack) {
      each_read(piece, s, group, 0, s.channels, [&](int64_t column, int64_t c, int64_t tap,
                                                  int64_t pixel) {
        windows[column * s.inner + c * s.taps + tap] = x[pixel];
      });
      multiply_either(dstack + kernel, s.inner, part.data(), used, 1, windows.data(), s.inner,
                      s.own, used, s.inner, used, options);
    }
    if (stack && used < kManyColumns)
      multiply_long(to_pixels.data() + group * s.inner, line, part.data(), 1, used, stack + kernel,
                    s.inner, used, s.own, s.inner);
    else if (stack)
      multiply_either(to_pixels.data() + group * s.inner, line, part.data(), 1, used,
                      stack + kernel, s.inner, used, s.own, s.inner, used, options);
  }
}

template <class T>
void border_gradients(const BorderCall& call, const Tensor& dy, const Tensor& dx,
                      const Tensor& dstack) {
  const BorderSizes s(call);
  const auto *x = call.x.const_data_ptr<T>(), *stack = call.weight.const_data_ptr<T>();
  const auto* given = dy.const_data_ptr<T>();
  auto* to_x = dx.defined() ? dx.mutable_data_ptr<T>() : nullptr;
  auto* to_stack = dstack.defined() ? dstack.mutable_data_ptr<T>() : nullptr;
  const int64_t grain = s.grain_of_planes();
  if (s.few()) {
    const int64_t filters = s.groups * s.own;
    for (const Piece& piece : s.pieces)
      if (to_stack)
        std::fill_n(to_stack + s.kernel(piece.box, 0), filters * s.inner, T(0));
    const auto each = [&](int64_t group, int64_t filter, auto f) {
      for (int64_t n = 0; n < s.samples; ++n)
        each_line<T>(s, group * s.own + filter,
                     [&](const Read& read, int64_t entry, int64_t channel) {
                       f(given + (n * filters + group * s.own + filter) * s.places + read.output,
                         (n * call.x.size(1) + channel) * s.pixels + read.pixel, read, entry);
                     });
    };
    at::parallel_for(0, s.groups, grain, [&](int64_t low, int64_t high) {
      for (int64_t group = low; group < high; ++group)
        for (int64_t filter = 0; filter < s.own; ++filter)
          each(group, filter, [&](const T* of_y, int64_t pixel, const Read& r, int64_t entry) {
            T total = 0;
            for (int64_t q = 0; q < r.count; ++q) {
              const T value = of_y[q * r.output_step];
              if (to_x) to_x[pixel + q * r.pixel_step] += stack[entry] * value;
              total += value * x[pixel + q * r.pixel_step];
            }
            if (to_stack) to_stack[entry] += total;
          });
    });
    return;
  }
  const auto many = static_cast<int64_t>(s.pieces.size());
  std::vector<std::vector<T>> to_pixels(many);
  at::parallel_for(0, many, s.grain_of_pieces(), [&](int64_t low, int64_t high) {
    for (int64_t i = low; i < high; ++i)
      piece_gradients(to_pixels[i], to_stack, s.pieces[i], s, x, to_x ? stack : nullptr, given,
                      dy.options());
  });
  if (!to_x) return;
  at::parallel_for(0, s.channels, grain, [&](int64_t low, int64_t high) {
    for (int64_t i = 0; i < many; ++i)
      for (int64_t group = 0; group < s.groups; ++group) {
        const T* from = to_pixels[i].data() + group * s.inner;
        each_read(s.pieces[i], s, group, low, high,
                  [&](int64_t column, int64_t c, int64_t tap, int64_t pixel) {
                    to_x[pixel] += from[column * s.groups * s.inner + c * s.taps + tap];
                  });
      }
  });
}

inline Gradients gradients_of(const BorderCall& call, const Tensor& dy, bool of_x, bool of_weight,
                              bool of_bias) {
  const Border border = call.border();
  const Box inside = border.inside();
  const Tensor stack = call.stack();
  Gradients found;
  if (inside.outputs()) {
    const auto& strides = call.padded.stride;
    const bool apart = *std::max_element(strides.begin(), strides.end()) == 1;
    Tensor own = of_box(dy, inside, border.lacking);
    if (!apart) {  // with a stride the interior alone reads other pixels than the image's first
      Tensor whole = at::zeros(dy.sizes(), dy.options());
      of_box(whole, inside, border.lacking).copy_(own);
      own = whole;
    }
    const Geometry g = apart ? call.valid() : call.padded;
    found = convolve_backward(own.contiguous(), call.x, stack.select(0, border.middle()), g, of_x,
                              of_weight, false,
                              of_x ? g.backward_by_onednn : g.forward_by_onednn);
  }
  Tensor dstack, dx;
  if (of_weight) {
    dstack = at::empty(stack.sizes(), stack.options());
    border.unused([&](int64_t kernel) { dstack.select(0, kernel).zero_(); });
    if (found.weight.defined()) dstack.select(0, border.middle()).copy_(found.weight);
  }
  if (of_x)
    dx = found.x.defined() ? found.x.contiguous() : at::zeros(call.x.sizes(), call.x.options());
  AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "borders",
                             [&] { border_gradients<scalar_t>(call, dy, dx, dstack); });
  return {dx, of_weight ? dstack.view(call.weight.sizes()) : dstack,
          of_bias ? sum_of_all_but_filters(dy) : Tensor()};
}

// The same by the library's operations, box by box: for derivatives of derivatives.
inline Gradients recorded_gradients(const BorderCall& call, const Tensor& dy, bool of_x,
                                    bool of_weight, bool of_bias) {
  variable_list inputs, outputs, given;
  if (of_x) inputs.push_back(call.x);
  if (of_weight) inputs.push_back(call.weight);
  Gradients found;
  if (!inputs.empty()) {
    const bool kept = c10::GradMode::is_enabled();
    at::AutoGradMode recording(true);
    const Border border = call.border();
    std::vector<int64_t> ring;
    for (auto width = call.padded.padding.rbegin(); width != call.padded.padding.rend(); ++width)
      ring.insert(ring.end(), 2, *width);
    const Tensor wide = at::constant_pad_nd(call.x, ring), stack = call.stack();
    border.boxes([&](const Box& box) {
      Tensor region = wide;
      for (int64_t axis = border.lacking; axis < 3; ++axis) {
        const int64_t s = border.p.stride[axis];
        region = region.narrow(
            axis - border.lacking + 2, box.first[axis] * s,
            (box.count[axis] - 1) * s + border.p.dilation[axis] * (border.p.kernel[axis] - 1) + 1);
      }
      outputs.push_back(convolve(region, stack.select(0, box.kernel), std::nullopt, call.valid()));
      given.push_back(of_box(dy, box, border.lacking));
    });
    const auto all = torch::autograd::grad(outputs, inputs, given, std::nullopt, kept, true);
    if (of_x) found.x = all.front();
    if (of_weight) found.weight = all.back();
  }
  if (of_bias) found.bias = sum_of_all_but_filters(dy);
  return found;
}

struct Borders : torch::autograd::Function<Borders> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, const BorderCall& call) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["geometry"] = call.padded.packed();
    ctx->saved_data["runs"] = call.runs;
    ctx->saved_data["bias"] = bias.has_value();
    return computed(call);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    const BorderCall call{saved[0], saved[1], std::nullopt,
                          ctx->saved_data["runs"].toIntVector(),
                          Geometry::unpacked(ctx->saved_data["geometry"].toIntVector()), false};
    const bool of_x = ctx->needs_input_grad(0), of_weight = ctx->needs_input_grad(1);
    const bool of_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2);
    const auto found =
        is_recorded(dys[0]) ? recorded_gradients(call, dys[0], of_x, of_weight, of_bias)
                            : gradients_of(call, dys[0].contiguous(), of_x, of_weight, of_bias);
    return {found.x, found.weight, found.bias, Tensor()};
  }
};

inline Tensor border_kernels(Tensor x, Tensor weight, std::optional<Tensor> bias,
                             at::IntArrayRef runs, at::IntArrayRef stride, at::IntArrayRef padding,
                             at::IntArrayRef dilation, int64_t groups, bool copied,
                             bool by_onednn, bool bias_apart) {
  x = plain(x), weight = plain(weight), bias = plain(bias);
  const Geometry padded{stride.vec(), padding.vec(), dilation.vec(), groups, by_onednn,
                        by_onednn && x.size(1) >= kFewChannels, bias_apart};
  const BorderCall call{x, weight, bias, runs.vec(), padded, copied};
  if (!needs_gradient({x, weight, bias ? *bias : Tensor()})) return computed(call);
  return Borders::apply(x, weight, bias, call);
}

}  // namespace convharness
