// Depthwise convolution, plane by plane in the nearest caches: every channel c has its own filters,
// y[n, f, q] = sum_u w[f, u] x[n, c, q * s - p + u * d] + b[f].
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "narrow.h"
#include "planes.h"

namespace convharness {

// A channel beside its output, and its copy with the ring of zeros that windows read. Along the
// last axis the copy holds one phase of the stride after the other, so that neighbouring outputs
// read neighbouring entries. Axes that lack stand in front. Of the taps, in raster order, those that
// are `kept` count, or all.
class Plane {
 public:
  Plane(at::IntArrayRef image, at::IntArrayRef kernel, at::IntArrayRef strides,
        at::IntArrayRef paddings, at::IntArrayRef dilations, std::vector<int64_t> kept_taps = {})
      : kept(std::move(kept_taps)) {
    const size_t lacking = 3 - image.size();
    for (size_t axis = 0; axis < image.size(); ++axis) {
      const size_t a = axis + lacking;
      size[a] = image[axis], taps[a] = kernel[axis];
      stride[a] = strides[axis], padding[a] = paddings[axis];
      dilation[a] = dilations[axis];
      const int64_t reach = dilation[a] * (taps[a] - 1);
      out[a] = (size[a] + 2 * padding[a] - reach - 1) / stride[a] + 1;
      needs[a] = (out[a] - 1) * stride[a] + reach + 1;
      is_valid = is_valid && size[a] + 2 * padding[a] > reach;
    }
    line = dilation[2] * (taps[2] - 1) / stride[2] + padded_columns(out[2]);
    if (kept.empty()) {
      kept.resize(taps[0] * taps[1] * taps[2]);
      std::iota(kept.begin(), kept.end(), 0);
    }
    for (const int64_t u : kept)
      reads.push_back(at(u / taps[2] / taps[1] * dilation[0], u / taps[2] % taps[1] * dilation[1],
                         u % taps[2] * dilation[2]));
    each_register(out[2], [&](int64_t first, auto) { registers.push_back(first); });
  }

  // That of which the signal is the output: the signal's gradient is a convolution of dy by the
  // weight from its end to its begin. None with a stride, or where windows begin behind the image.
  std::optional<Plane> mirrored() const {
    std::array<int64_t, 3> ring{};
    for (int a = 0; a < 3; ++a) {
      ring[a] = dilation[a] * (taps[a] - 1) - padding[a];
      if (stride[a] != 1 || ring[a] < 0) return std::nullopt;
    }
    const int64_t last = taps[0] * taps[1] * taps[2] - 1;
    std::vector<int64_t> turned;
    for (auto u = kept.rbegin(); u != kept.rend(); ++u) turned.push_back(last - *u);
    return Plane(out, taps, stride, ring, dilation, turned);
  }

  std::array<int64_t, 3> size{1, 1, 1}, out{1, 1, 1};
  bool is_valid = true;  // there is an output

  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  int64_t outputs() const { return out[0] * out[1] * out[2]; }
  int64_t count() const { return static_cast<int64_t>(reads.size()); }
  int64_t entries() const { return needs[0] * needs[1] * stride[2] * line; }

  // Copy a channel into a copy whose ring is 0.
  template <class T>
  void copy(T* padded, const T* x) const {
    each_pixel([&](int64_t pixel, int64_t entry) { padded[entry] = x[pixel]; });
  }

  // The adjoint; 0 where no window reads.
  template <class T>
  void copy_back(T* x, const T* padded) const {
    std::fill(x, x + pixels(), T(0));
    each_pixel([&](int64_t pixel, int64_t entry) { x[pixel] = padded[entry]; });
  }

  template <class T>
  void convolve(T* y, const T* padded, const T* w, T bias) const {
    each_row([&](int64_t row, int64_t entry) {
      const int64_t all = static_cast<int64_t>(registers.size());
      int64_t k = 0;
      for (; k + 4 <= all; k += 4) fill_registers<4>(y + row, padded + entry, w, bias, k);
      for (; k < all; ++k) fill_registers<1>(y + row, padded + entry, w, bias, k);
    });
  }

  // Add to the copy of the signal's gradient.
  template <class T>
  void scatter(T* padded, const T* dy, const T* w) const {
    each_row([&](int64_t row, int64_t entry) {
      for (int64_t t = 0; t < count(); ++t)
        add_scaled(padded + entry + reads[t], dy + row, w[t], out[2]);
    });
  }

  // Add to the weight's gradient. No register reads what is not its row's: 0 times it may be no 0.
  template <class T>
  void correlate(T* dw, const T* dy, const T* padded) const {
    using Vector = typename Lanes<T>::Vector;
    const int64_t whole = out[2] / kColumns * kColumns;
    for (int64_t t = 0; t < count(); ++t) {
      Vector sums{};
      T rest = 0;
      each_row([&](int64_t row, int64_t entry) {
        const T *given = dy + row, *seen = padded + entry + reads[t];
        int64_t j = 0;
        for (; j < whole; j += kColumns)
          sums += loaded(given + j, kWhole) * loaded(seen + j, kWhole);
        for (; j < out[2]; ++j) rest += given[j] * seen[j];
      });
      for (int64_t lane = 0; lane < kColumns; ++lane) rest += sums[lane];
      dw[t] += rest;
    }
  }

 private:
  static constexpr std::integral_constant<int64_t, kColumns> kWhole{};

  std::array<int64_t, 3> taps{1, 1, 1}, stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};
  std::array<int64_t, 3> needs{1, 1, 1};  // entries of the padded image that windows reach
  int64_t line = 1;                       // entries of a phase, whole registers of them
  std::vector<int64_t> kept, reads;       // of every kept tap, beside the entry of an output
  std::vector<int64_t> registers;         // first outputs of a row, the last ones maybe twice

  int64_t at(int64_t i0, int64_t i1, int64_t i2) const {
    return (i0 * needs[1] + i1) * stride[2] * line + i2 % stride[2] * line + i2 / stride[2];
  }

  template <class F>
  void each_row(F f) const {
    for (int64_t v0 = 0; v0 < out[0]; ++v0)
      for (int64_t v1 = 0; v1 < out[1]; ++v1)
        f((v0 * out[1] + v1) * out[2], at(v0 * stride[0], v1 * stride[1], 0));
  }

  template <class F>
  void each_pixel(F f) const {
    const auto end = [&](int axis) { return std::min(size[axis], needs[axis] - padding[axis]); };
    for (int64_t i0 = 0; i0 < end(0); ++i0)
      for (int64_t i1 = 0; i1 < end(1); ++i1) {
        const int64_t pixel = (i0 * size[1] + i1) * size[2];
        const int64_t entry = at(i0 + padding[0], i1 + padding[1], 0);
        if (stride[2] == 1) {
          for (int64_t i = 0; i < end(2); ++i) f(pixel + i, entry + padding[2] + i);
        } else {
          for (int64_t i = 0; i < end(2); ++i)
            f(pixel + i, entry + at(0, 0, i + padding[2]));
        }
      }
  }

  template <int N, class T>
  void fill_registers(T* row, const T* seen, const T* w, T bias, int64_t k) const {
    using Vector = typename Lanes<T>::Vector;
    Vector sums[N];
    for (int n = 0; n < N; ++n) sums[n] = Vector{} + bias;
    for (int64_t t = 0; t < count(); ++t)
      for (int n = 0; n < N; ++n)
        sums[n] += w[t] * loaded(seen + reads[t] + registers[k + n], kWhole);
    for (int n = 0; n < N; ++n) {
      if (out[2] < kColumns)
        store(row, sums[n], out[2]);
      else
        store(row + registers[k + n], sums[n], kWhole);
    }
  }
};

inline at::Tensor depthwise(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const Plane& plane) {
  const int64_t filters = weight.size(0), own = filters / x.size(1);
  auto shape = x.sizes().vec();
  shape[1] = filters;
  std::copy(plane.out.end() - (x.dim() - 2), plane.out.end(), shape.begin() + 2);
  at::Tensor y = at::empty(shape, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "depthwise", [&] {
    const auto* in = x.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    const auto* b = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
    auto* out = y.mutable_data_ptr<scalar_t>();
    const int64_t grain = grain_of(plane.outputs() * plane.count());
    at::parallel_for(0, x.size(0) * filters, grain, [&](int64_t from, int64_t to) {
      std::vector<scalar_t> padded(plane.entries());
      for (int64_t i = from; i < to; ++i) {
        const int64_t f = i % filters;
        if (i == from || f % own == 0)
          plane.copy(padded.data(), in + i / own * plane.pixels());
        plane.convolve(out + i * plane.outputs(), padded.data(), w + f * plane.count(),
                       b ? b[f] : scalar_t(0));
      }
    });
  });
  return y;
}

// The gradients of signal and weight, undefined where none is asked for.
inline std::array<at::Tensor, 2> depthwise_gradients(const at::Tensor& dy, const at::Tensor& x,
                                                     const at::Tensor& weight, const Plane& plane,
                                                     bool of_x, bool of_weight) {
  const int64_t channels = x.size(1), filters = weight.size(0), own = filters / channels;
  at::Tensor dx = of_x ? at::empty(x.sizes(), x.options()) : at::Tensor();
  at::Tensor dw = of_weight ? at::zeros(weight.sizes(), x.options()) : at::Tensor();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "depthwise", [&] {
    const auto *in = x.const_data_ptr<scalar_t>(), *given = dy.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    auto* to_x = of_x ? dx.mutable_data_ptr<scalar_t>() : nullptr;
    auto* to_w = of_weight ? dw.mutable_data_ptr<scalar_t>() : nullptr;
    const int64_t grain = grain_of(x.size(0) * own * plane.outputs() * plane.count());
    const auto mirror = own == 1 && of_x ? plane.mirrored() : std::nullopt;
    at::parallel_for(0, channels, grain, [&](int64_t from, int64_t to) {
      std::vector<scalar_t> padded(of_weight ? plane.entries() : 0), turned(plane.count());
      std::vector<scalar_t> sums(mirror ? mirror->entries() : plane.entries());
      for (int64_t c = from; c < to; ++c)
        for (int64_t n = 0; n < x.size(0); ++n) {
          const int64_t image = (n * channels + c) * plane.pixels();
          if (of_weight) plane.copy(padded.data(), in + image);
          if (mirror) {
            const auto* own_dy = given + (n * channels + c) * plane.outputs();
            const auto* own_w = w + c * plane.count();
            std::reverse_copy(own_w, own_w + plane.count(), turned.begin());
            mirror->copy(sums.data(), own_dy);
            mirror->convolve(to_x + image, sums.data(), turned.data(), scalar_t(0));
            if (of_weight) plane.correlate(to_w + c * plane.count(), own_dy, padded.data());
            continue;
          }
          if (of_x) std::fill(sums.begin(), sums.end(), scalar_t(0));
          for (int64_t f = c * own; f < (c + 1) * own; ++f) {
            const auto* own_dy = given + (n * filters + f) * plane.outputs();
            if (of_weight) plane.correlate(to_w + f * plane.count(), own_dy, padded.data());
            if (of_x) plane.scatter(sums.data(), own_dy, w + f * plane.count());
          }
          if (of_x) plane.copy_back(to_x + image, sums.data());
        }
    });
  });
  return {dx, dw};
}

}  // namespace convharness
