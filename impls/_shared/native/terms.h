// Sources of fewer axes than the output: what they add to it, as products of matrices, and the sums
// that go over the output once for all of them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "narrow.h"
#include "planes.h"

namespace convharness {

// Neighbouring outputs along an axis that a source lacks, to all of which it adds the same.
struct Alike {
  int64_t first, count;
};

// One axis of the output beside a source: spanned, with windows; or lacked, with classes of outputs
// and the taps that each of them sees (bit u for tap u), one class that sees one tap if it is not
// tiled along that axis.
struct Along {
  bool spanned = false;
  int64_t size = 1, taps = 1, stride = 1, padding = 0, dilation = 1;
  int64_t outputs = 1;  // or classes
  std::vector<int64_t> seen{1};
  std::vector<Alike> alike{{0, 1}};

  // Where tap u of output v reads along the axis; -1 where that is nowhere.
  int64_t at(int64_t u, int64_t v) const {
    if (!spanned) return seen[v] >> u & 1 ? 0 : -1;
    const int64_t place = v * stride - padding + u * dilation;
    return place >= 0 && place < size ? place : -1;
  }
};

struct SourceShape {
  std::array<Along, 3> axes;  // missing ones in front
  int64_t samples, channels;

  int64_t taps() const { return axes[0].taps * axes[1].taps * axes[2].taps; }
  int64_t inner() const { return channels * taps(); }
  int64_t places() const { return axes[0].outputs * axes[1].outputs * axes[2].outputs; }
  int64_t used() const { return samples * places(); }
  int64_t columns() const { return padded_columns(used()); }
  int64_t pixels() const { return axes[0].size * axes[1].size * axes[2].size; }

  // Call f(column, pixel, its step, how many) for the entries of a row of columns that read pixels.
  template <class F>
  void reads(int64_t sample, int64_t tap, F f) const {
    const int64_t u2 = tap % axes[2].taps, u1 = tap / axes[2].taps % axes[1].taps;
    const int64_t u0 = tap / (axes[2].taps * axes[1].taps);
    const Along& last = axes[2];
    int64_t from = 0, to = last.outputs;
    if (last.spanned) {
      while (from < to && last.at(u2, from) < 0) ++from;
      while (from < to && last.at(u2, to - 1) < 0) --to;
    }
    for (int64_t v0 = 0; v0 < axes[0].outputs; ++v0) {
      const int64_t p0 = axes[0].at(u0, v0);
      for (int64_t v1 = 0; v1 < axes[1].outputs; ++v1) {
        const int64_t p1 = axes[1].at(u1, v1);
        if (p0 < 0 || p1 < 0) continue;
        const int64_t row = sample * places() + (v0 * axes[1].outputs + v1) * last.outputs;
        const int64_t line = (p0 * axes[1].size + p1) * last.size;
        if (last.spanned) {
          if (from < to) f(row + from, line + last.at(u2, from), last.stride, to - from);
        } else {
          for (int64_t v2 = 0; v2 < last.outputs; ++v2)
            if (last.at(u2, v2) >= 0) f(row + v2, line, 1, 1);
        }
      }
    }
  }
};

// What the taps read, (channels * taps, columns), 0 where that is nothing.
template <class T>
Tensor source_columns(const Tensor& x, const SourceShape& s) {
  Tensor found = at::zeros({s.inner(), s.columns()}, x.options());
  const auto* in = x.const_data_ptr<T>();
  auto* out = found.mutable_data_ptr<T>();
  at::parallel_for(0, s.channels, grain_of(s.taps() * s.used()), [&](int64_t low, int64_t high) {
    for (int64_t row = low * s.taps(); row < high * s.taps(); ++row)
      for (int64_t n = 0; n < s.samples; ++n) {
        const T* plane = in + (n * s.channels + row / s.taps()) * s.pixels();
        T* line = out + row * s.columns();
        s.reads(n, row % s.taps(), [&](int64_t column, int64_t pixel, int64_t step, int64_t count) {
          for (int64_t q = 0; q < count; ++q) line[column + q] = plane[pixel + q * step];
        });
      }
  });
  return found;
}

// The adjoint, of the shape of x.
template <class T>
Tensor source_gradient(const Tensor& columns, at::IntArrayRef shape, const SourceShape& s) {
  Tensor found = at::zeros(shape, columns.options());
  const auto* in = columns.const_data_ptr<T>();
  auto* out = found.mutable_data_ptr<T>();
  at::parallel_for(0, s.channels, grain_of(s.taps() * s.used()), [&](int64_t low, int64_t high) {
    for (int64_t row = low * s.taps(); row < high * s.taps(); ++row)
      for (int64_t n = 0; n < s.samples; ++n) {
        T* plane = out + (n * s.channels + row / s.taps()) * s.pixels();
        const T* line = in + row * s.columns();
        s.reads(n, row % s.taps(), [&](int64_t column, int64_t pixel, int64_t step, int64_t count) {
          for (int64_t q = 0; q < count; ++q) plane[pixel + q * step] += line[column + q];
        });
      }
  });
  return found;
}

// The filters (filters, channels * taps) of a source where they lie in a weight.
inline Tensor filters_of(const Tensor& weight, int64_t first_channel, const SourceShape& s) {
  const int64_t line = weight.numel() / weight.size(0);
  return weight.as_strided({weight.size(0), s.inner()}, {line, 1},
                           weight.storage_offset() + first_channel * s.taps());
}

// The term of a source, (filters, columns).
template <class T>
Tensor source_term(const Tensor& x, const Tensor& filters, const SourceShape& s) {
  const Tensor columns = source_columns<T>(x, s);
  Tensor y = at::empty({filters.size(0), s.columns()}, x.options());
  multiply_any<T>(y, filters, columns, s.used());
  return y;
}

// Where the entries of a term (filters, columns) are, beside an entry of the output.
template <class T>
struct Beside {
  T* values;
  int64_t filter, sample;
  std::array<std::vector<int64_t>, 2> outer;  // offset by the output's first two indices

  Beside(const Tensor& term, const SourceShape& s, const std::array<int64_t, 3>& size)
      : values(term.mutable_data_ptr<T>()), filter(s.columns()), sample(s.places()) {
    const std::array<int64_t, 2> step{s.axes[1].outputs * s.axes[2].outputs, s.axes[2].outputs};
    for (int axis = 0; axis < 2; ++axis) {
      const Along& a = s.axes[axis];
      for (int64_t i = 0, one = 0; i < size[axis]; ++i) {
        while (!a.spanned && i >= a.alike[one].first + a.alike[one].count) ++one;
        outer[axis].push_back((a.spanned ? i : one) * step[axis]);
      }
    }
  }

  T* at(int64_t n, int64_t f, int64_t i, int64_t j) const {
    return values + f * filter + n * sample + outer[0][i] + outer[1][j];
  }
};

// All terms beside an output, by whether they have an entry for each of a row or one per run of it.
template <class T>
struct Terms {
  std::array<int64_t, 3> size;
  std::vector<Beside<T>> rows, parts;
  std::vector<Alike> runs;

  explicit Terms(const std::array<int64_t, 3>& size) : size(size), runs{{0, size[2]}} {}

  void add(const Tensor& term, const SourceShape& s) {
    const bool spanned = s.axes[2].spanned;
    (spanned ? rows : parts).emplace_back(term, s, size);
    if (!spanned) runs = s.axes[2].alike;
  }
};

// y += the sum of all terms and the bias, in one pass.
template <class T>
void join(T* y, const Terms<T>& terms, const T* bias, int64_t samples, int64_t filters) {
  const auto& size = terms.size;
  const int64_t places = size[0] * size[1] * size[2];
  at::parallel_for(0, samples * filters, grain_of(places), [&](int64_t from, int64_t to) {
    std::vector<const T*> parts(terms.parts.size());
    for (int64_t plane = from; plane < to; ++plane) {
      const int64_t n = plane / filters, f = plane % filters;
      const T constant = bias ? bias[f] : T(0);
      for (int64_t i = 0; i < size[0]; ++i)
        for (int64_t j = 0; j < size[1]; ++j) {
          T* row = y + plane * places + (i * size[1] + j) * size[2];
          for (size_t t = 0; t < parts.size(); ++t) parts[t] = terms.parts[t].at(n, f, i, j);
          const T* beside = terms.rows.empty() ? nullptr : terms.rows[0].at(n, f, i, j);
          for (size_t r = 0; r < terms.runs.size(); ++r) {
            T total = constant;
            for (const T* part : parts) total += part[r];
            const auto [first, count] = terms.runs[r];
            if (count == 1)  // most runs, at the border
              row[first] += total + (beside ? beside[first] : T(0));
            else if (beside)
              add_with(row + first, beside + first, total, count);
            else
              add_constant(row + first, total, count);
          }
          for (size_t t = 1; t < terms.rows.size(); ++t)
            add(row, terms.rows[t].at(n, f, i, j), size[2]);
        }
    }
  });
}

// The sums of dy over the outputs to which each entry of a term is added, and those of the bias.
template <class T>
void sum_apart(const T* dy, const Terms<T>& terms, T* bias, int64_t samples, int64_t filters) {
  const auto& size = terms.size;
  const int64_t places = size[0] * size[1] * size[2];
  at::parallel_for(0, filters, grain_of(samples * places), [&](int64_t from, int64_t to) {
    std::vector<T> sums(terms.runs.size());
    for (int64_t f = from; f < to; ++f) {
      double all = 0;
      for (int64_t n = 0; n < samples; ++n)
        for (int64_t i = 0; i < size[0]; ++i)
          for (int64_t j = 0; j < size[1]; ++j) {
            const T* row = dy + (n * filters + f) * places + (i * size[1] + j) * size[2];
            for (size_t r = 0; r < sums.size(); ++r) {
              sums[r] = sum(row + terms.runs[r].first, terms.runs[r].count);
              all += double(sums[r]);
            }
            for (const auto& term : terms.rows) add(term.at(n, f, i, j), row, size[2]);
            for (const auto& term : terms.parts)
              add(term.at(n, f, i, j), sums.data(), static_cast<int64_t>(sums.size()));
          }
      if (bias) bias[f] = static_cast<T>(all);
    }
  });
}

}  // namespace convharness
