// Which outputs share a kernel of a stack of border kernels, and what their windows read.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "convolution.h"
#include "gathered.h"

namespace convharness {

// Neighbouring outputs along one axis that share a displacement.
struct Run {
  int64_t index, first, count;
};

// The outputs of one kernel of the stack, a box.
struct Box {
  int64_t kernel;
  std::array<int64_t, 3> first, count;

  int64_t outputs() const { return count[0] * count[1] * count[2]; }
};

// A line of outputs of a box, of which a tap reads pixels of the image: where it begins and how far
// its entries are apart among the outputs of the box, of the image, and among the pixels.
struct Read {
  int64_t tap, column, column_step, output, output_step, pixel, pixel_step, count;
};

struct Border {
  Places p;
  std::array<std::vector<Run>, 3> runs;
  int64_t lacking;

  Border(at::IntArrayRef size, at::IntArrayRef kernel, const Geometry& g, at::IntArrayRef flat)
      : p(size, kernel, g), lacking(3 - static_cast<int64_t>(size.size())) {
    for (int64_t axis = 0; axis < lacking; ++axis) runs[axis] = {{0, 0, 1}};
    auto entry = flat.begin();
    for (int64_t axis = lacking; axis < 3; ++axis)
      for (int64_t left = *entry++; left > 0; --left, entry += 3)
        runs[axis].push_back({entry[0], entry[1], entry[2]});
  }

  int64_t middle() const { return p.taps() / 2; }

  template <class F>
  void boxes(F f) const {
    for (const auto& a : runs[0])
      for (const auto& b : runs[1])
        for (const auto& c : runs[2])
          f(Box{(a.index * p.kernel[1] + b.index) * p.kernel[2] + c.index,
                {a.first, b.first, c.first},
                {a.count, b.count, c.count}});
  }

  // Call f(kernel) for each that no output has.
  template <class F>
  void unused(F f) const {
    std::vector<bool> used(p.taps());
    boxes([&](const Box& box) { used[box.kernel] = true; });
    for (int64_t kernel = 0; kernel < p.taps(); ++kernel)
      if (!used[kernel]) f(kernel);
  }

  // The outputs of the middle kernel, none where every window leaves the image.
  Box inside() const {
    Box found{middle(), {0, 0, 0}, {0, 0, 0}};
    boxes([&](const Box& box) { found = box.kernel == middle() ? box : found; });
    return found;
  }

  // Call f(output of the box, output of the image) for all outputs of a box.
  template <class F>
  void outputs(const Box& box, F f) const {
    int64_t own = 0;
    for (int64_t i = 0; i < box.count[0]; ++i)
      for (int64_t j = 0; j < box.count[1]; ++j) {
        const int64_t row = ((box.first[0] + i) * p.out[1] + box.first[1] + j) * p.out[2];
        for (int64_t k = 0; k < box.count[2]; ++k) f(own++, row + box.first[2] + k);
      }
  }

  // What the windows of a box read inside of the image.
  std::vector<Read> reads(const Box& box) const {
    std::vector<Read> found;
    for (int64_t tap = 0; tap < p.taps(); ++tap) add_reads(found, box, tap);
    return found;
  }

 private:
  void add_reads(std::vector<Read>& found, const Box& box, int64_t tap) const {
    const std::array<int64_t, 3> u{tap / (p.kernel[2] * p.kernel[1]),
                                   tap / p.kernel[2] % p.kernel[1], tap % p.kernel[2]};
    const std::array<int64_t, 3> pixel{p.size[1] * p.size[2], p.size[2], 1};
    const std::array<int64_t, 3> output{p.out[1] * p.out[2], p.out[2], 1};
    const std::array<int64_t, 3> column{box.count[1] * box.count[2], box.count[2], 1};
    std::array<int64_t, 3> start, from, to;
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t s = p.stride[axis];
      start[axis] = box.first[axis] * s - p.padding[axis] + u[axis] * p.dilation[axis];
      from[axis] = start[axis] >= 0 ? 0 : (s - 1 - start[axis]) / s;
      const int64_t left = p.size[axis] - start[axis], end = left <= 0 ? 0 : (left - 1) / s + 1;
      to[axis] = std::min(box.count[axis], end);
      if (from[axis] >= to[axis]) return;
    }
    // Lines are as long as they can be.
    const int along = static_cast<int>(
        std::max_element(box.count.rbegin(), box.count.rend()).base() - box.count.begin() - 1);
    const int a = along == 0 ? 1 : 0, b = along == 2 ? 1 : 2;
    const auto read = [&](int axis, int64_t i) { return start[axis] + i * p.stride[axis]; };
    for (int64_t i = from[a]; i < to[a]; ++i)
      for (int64_t j = from[b]; j < to[b]; ++j) {
        const int64_t k = from[along];
        found.push_back(
            {tap, i * column[a] + j * column[b] + k * column[along], column[along],
             (box.first[a] + i) * output[a] + (box.first[b] + j) * output[b] +
                 (box.first[along] + k) * output[along],
             output[along],
             read(a, i) * pixel[a] + read(b, j) * pixel[b] + read(along, k) * pixel[along],
             p.stride[along] * pixel[along], to[along] - k});
      }
  }
};

struct BorderCall {
  Tensor x, weight;
  std::optional<Tensor> bias;
  std::vector<int64_t> runs;
  Geometry padded;
  bool copied;  // whether the interior alone is convolved, then copied to where it belongs

  at::IntArrayRef size() const { return x.sizes().slice(2); }
  at::IntArrayRef kernel() const { return weight.sizes().slice(weight.dim() - x.dim() + 2); }
  Border border() const { return {size(), kernel(), padded, runs}; }
  Geometry valid() const {
    Geometry g = padded;
    g.padding = g.no_padding();
    return g;
  }
  // The stack as (kernels, C_out, C_in/groups, *K).
  Tensor stack() const {
    std::vector<int64_t> shape{-1};
    const auto sizes = weight.sizes().slice(x.dim() - 2);
    shape.insert(shape.end(), sizes.begin(), sizes.end());
    return weight.view(shape);
  }
  int64_t filters() const { return weight.size(x.dim() - 2) / padded.groups; }
  int64_t inner() const { return weight.size(x.dim() - 1) * c10::multiply_integers(kernel()); }
};

}  // namespace convharness
