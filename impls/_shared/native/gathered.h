// What windows read, side by side as columns, and back: a block of rows of outputs at a time.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "convolution.h"
#include "planes.h"

namespace convharness {

// Windows over planes of up to three axes, missing ones in front with one entry.
struct Places {
  std::array<int64_t, 3> size{1, 1, 1}, kernel{1, 1, 1}, out{1, 1, 1};
  std::array<int64_t, 3> stride{1, 1, 1}, padding{0, 0, 0}, dilation{1, 1, 1};

  Places(at::IntArrayRef sizes, at::IntArrayRef kernels, const Geometry& g) {
    const size_t lacking = 3 - sizes.size();
    for (size_t i = 0; i < sizes.size(); ++i) {
      const size_t at = i + lacking;
      size[at] = sizes[i], kernel[at] = kernels[i];
      stride[at] = g.stride[i], padding[at] = g.padding[i], dilation[at] = g.dilation[i];
      out[at] = (size[at] + 2 * padding[at] - dilation[at] * (kernel[at] - 1) - 1) / stride[at] + 1;
    }
  }

  int64_t rows() const { return out[0] * out[1]; }
  int64_t width() const { return out[2]; }
  int64_t outputs() const { return rows() * width(); }
  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }

  // Which outputs of a row see a pixel by the last index of a tap: [from, to).
  struct Seen {
    int64_t u0, u1, shift, from, to;
  };

  Seen seen(int64_t tap) const {
    const int64_t u2 = tap % kernel[2], u1 = tap / kernel[2] % kernel[1];
    const int64_t shift = u2 * dilation[2] - padding[2], s = stride[2];
    const int64_t from = std::min(out[2], shift >= 0 ? 0 : (s - 1 - shift) / s);
    const int64_t end = shift >= size[2] ? 0 : (size[2] - 1 - shift) / s + 1;
    return {tap / (kernel[2] * kernel[1]), u1, shift, from,
            std::max(from, std::min(out[2], end))};
  }

  // Whether successive rows of outputs read successive rows of pixels, as long as they are.
  bool is_even() const { return stride[1] == 1 && stride[2] == 1 && out[2] == size[2]; }

  // Call f(first, low, high, last, entry) for rows of outputs: of the rows [first, last) those in
  // [low, high) read successive rows of pixels, the first of which has the number `entry`.
  template <class F>
  void rows_of(const Seen& u, int64_t top, int64_t bottom, F f) const {
    for (int64_t first = top, last; first < bottom; first = last) {
      const int64_t q0 = first / out[1], begin = q0 * out[1];
      last = is_even() ? std::min(bottom, begin + out[1]) : first + 1;
      const int64_t i0 = q0 * stride[0] - padding[0] + u.u0 * dilation[0];
      const int64_t above = padding[1] - u.u1 * dilation[1];
      int64_t low = first, high = last;
      if (is_even()) {
        low = std::clamp(begin + above, first, last);
        high = std::clamp(begin + above + size[1], low, last);
      }
      const int64_t i1 = (low - begin) * stride[1] - above;
      if (i0 < 0 || i0 >= size[0] || i1 < 0 || i1 >= size[1]) high = low;
      f(first, low, high, last, i0 * size[1] + i1);
    }
  }
};

// The mask of every window (samples, channels, taps, outputs), one or all of the first two.
template <class T>
struct WindowMask {
  const T* values = nullptr;
  int64_t samples = 1, channels = 1;

  const T* at(int64_t n, int64_t channel, int64_t tap, const Places& p) const {
    const int64_t plane = (samples == 1 ? 0 : n) * channels + (channels == 1 ? 0 : channel);
    return values ? values + (plane * p.taps() + tap) * p.outputs() : nullptr;
  }
};

// What a block is: rows [top, bottom) of the outputs of a group of a sample.
struct RowBlock {
  int64_t sample, group, top, bottom;
};

// Call f(out, in, mask, n) wherever entries of a line of columns read pixels side by side, those
// that read none are 0 in the columns; `step` apart where windows are.
template <class T, class Pixel, class F>
void along_line(T* columns, Pixel* plane, const T* mask, int64_t tap, const RowBlock& b,
                const Places& p, F f) {
  const auto u = p.seen(tap);
  const int64_t width = p.width();
  p.rows_of(u, b.top, b.bottom, [&](int64_t first, int64_t low, int64_t high, int64_t last,
                                    int64_t row_of_pixels) {
    T* own = columns + (first - b.top) * width;
    std::fill(own, own + (low - first) * width, T(0));
    std::fill(own + (high - first) * width, own + (last - first) * width, T(0));
    if (high == low) return;
    own += (low - first) * width;
    const int64_t entry = row_of_pixels * p.size[2] + u.shift, n = (high - low) * width;
    // what lies beside a row is the next one's: it is read and put to 0, but not beyond the plane
    const bool even = p.is_even();
    const int64_t from = even ? std::max<int64_t>(0, -entry) : u.from;
    const int64_t to = even ? std::min(n, p.pixels() - entry) : u.to;
    const auto blank = [&] {
      if (u.from > 0 || u.to < width)
        for (int64_t row = 0; row < n; row += width) {
          for (int64_t q = 0; q < u.from; ++q) own[row + q] = 0;
          for (int64_t q = u.to; q < width; ++q) own[row + q] = 0;
        }
    };
    f(own + from, plane + entry + from * p.stride[2], mask ? mask + low * width + from : nullptr,
      std::max<int64_t>(0, to - from), blank);
  });
}

// columns (channels * kept taps, outputs of the block) = m * what the taps read.
template <class T>
void gather(T* columns, const T* x, const WindowMask<T>& mask, at::IntArrayRef kept,
            const RowBlock& b, int64_t channels, const Places& p) {
  const int64_t taps = kept.size(), step = p.stride[2];
  const int64_t count = (b.bottom - b.top) * p.width();
  at::parallel_for(0, channels * taps, grain_of(count), [&](int64_t low, int64_t high) {
    for (int64_t line = low; line < high; ++line) {
      const int64_t channel = b.group * channels + line / taps, tap = kept[line % taps];
      along_line(columns + line * count, x + channel * p.pixels(),
                 mask.at(b.sample, channel, tap, p), tap, b, p,
                 [&](T* out, const T* in, const T* m, int64_t n, auto blank) {
                   if (step == 1 && m)
                     multiply(out, in, m, n);
                   else if (step == 1)
                     std::copy(in, in + n, out);
                   else
                     for (int64_t q = 0; q < n; ++q)
                       out[q] = m ? in[q * step] * m[q] : in[q * step];
                   blank();
                 });
    }
  });
}

// The adjoint: dx += m * columns, where they were read; the columns are spent.
template <class T>
void scatter(T* dx, T* columns, const WindowMask<T>& mask, at::IntArrayRef kept,
             const RowBlock& b, int64_t channels, const Places& p) {
  const int64_t taps = kept.size(), step = p.stride[2];
  const int64_t count = (b.bottom - b.top) * p.width();
  at::parallel_for(0, channels, grain_of(count * taps), [&](int64_t low, int64_t high) {
    for (int64_t line = low * taps; line < high * taps; ++line) {
      const int64_t channel = b.group * channels + line / taps, tap = kept[line % taps];
      along_line(columns + line * count, dx + channel * p.pixels(),
                 mask.at(b.sample, channel, tap, p), tap, b, p,
                 [&](T* given, T* into, const T* m, int64_t n, auto blank) {
                   blank();
                   if (step == 1 && m)
                     add_product(into, given, m, n);
                   else if (step == 1)
                     add(into, given, n);
                   else
                     for (int64_t q = 0; q < n; ++q)
                       into[q * step] += m ? given[q] * m[q] : given[q];
                 });
    }
  });
}

}  // namespace convharness
