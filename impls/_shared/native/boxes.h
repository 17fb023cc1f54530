// Sums over windows, one axis at a time.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <vector>

#include "convolution.h"
#include "planes.h"

namespace convharness {

// y[o, q, i] = sum_u x[o, q * stride - padding + u * dilation, i], 0 where that leaves the axis.
template <class T>
void box_along(T* y, const T* x, int64_t outer, int64_t size, int64_t out_size, int64_t inner,
               int64_t taps, int64_t stride, int64_t padding, int64_t dilation) {
  const auto one = [&](T* out, const T* in) {
    std::fill(out, out + out_size * inner, T(0));
    for (int64_t u = 0; u < taps; ++u) {
      const int64_t shift = u * dilation - padding;
      const int64_t first = shift >= 0 ? 0 : (stride - 1 - shift) / stride;
      const int64_t end = shift >= size ? 0 : (size - 1 - shift) / stride + 1;
      const int64_t last = std::min(out_size, end);
      if (first >= last) continue;
      if (stride == 1) {
        add(out + first * inner, in + (first + shift) * inner, (last - first) * inner);
      } else {
        for (int64_t q = first; q < last; ++q)
          add(out + q * inner, in + (q * stride + shift) * inner, inner);
      }
    }
  };
  at::parallel_for(0, outer, grain_of(out_size * inner * taps), [&](int64_t from, int64_t to) {
    for (int64_t o = from; o < to; ++o) one(y + o * out_size * inner, x + o * size * inner);
  });
}

// y[c, q] = sum_u x[c, q * stride - padding + u * dilation], planes of `size` to `out_size`.
template <class T>
std::vector<T> box_sums(const T* x, int64_t planes, at::IntArrayRef size, at::IntArrayRef kernel,
                        const Geometry& g, at::IntArrayRef out_size) {
  std::vector<T> now, next;
  int64_t outer = planes, inner = 1;
  for (const int64_t s : size) inner *= s;
  for (size_t axis = 0; axis < size.size(); ++axis) {
    if (size[axis]) inner /= size[axis];
    next.resize(outer * out_size[axis] * inner);
    box_along(next.data(), axis ? now.data() : x, outer, size[axis], out_size[axis], inner,
              kernel[axis], g.stride[axis], g.padding[axis], g.dilation[axis]);
    std::swap(now, next);
    outer *= out_size[axis];
  }
  return now;
}

}  // namespace convharness
