// Products of matrices with so few columns that starting the library's takes longer.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace convharness {

constexpr int64_t kColumns = 8, kRows = 8;  // at a time, in registers

template <class T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(kColumns * sizeof(T)), aligned(sizeof(T))));
};

// y (rows, columns) = a (rows, inner) b (inner, columns), columns a multiple of kColumns.
// Element (i, k) of a is at a[i * row + k * step].
template <class T>
void multiply_narrow(T* y, const T* a, const T* b, int64_t rows, int64_t inner, int64_t columns,
                     int64_t row, int64_t step) {
  using Vector = typename Lanes<T>::Vector;
  const auto block = [&](int64_t i0, int64_t j, auto count) {
    Vector sums[kRows] = {};
    for (int64_t k = 0; k < inner; ++k) {
      const Vector values = *reinterpret_cast<const Vector*>(b + k * columns + j);
      const T* factors = a + i0 * row + k * step;
      for (int64_t i = 0; i < count; ++i) sums[i] += factors[i * row] * values;
    }
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(y + (i0 + i) * columns + j, &sums[i], sizeof(Vector));
  };
  for (int64_t j = 0; j < columns; j += kColumns) {
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows) block(i, j, std::integral_constant<int64_t, kRows>());
    if (i < rows) block(i, j, rows - i);
  }
}

// One axis of windows over a batch of signals (N, C, size): what `taps` taps read at every output.
struct Windows {
  int64_t samples, channels, size, outputs, taps, stride, padding, dilation;

  int64_t rows() const { return channels * taps; }
  int64_t used() const { return samples * outputs; }
  int64_t columns() const { return (used() + kColumns - 1) / kColumns * kColumns; }

  // Call f(row, column, first entry of the signal, its step, how many) for every run inside.
  template <class F>
  void runs(F f) const {
    for (int64_t n = 0; n < samples; ++n)
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t u = 0; u < taps; ++u) {
          const int64_t shift = u * dilation - padding;
          const int64_t first = shift >= 0 ? 0 : (stride - 1 - shift) / stride;
          const int64_t end = shift >= size ? 0 : (size - 1 - shift) / stride + 1;
          const int64_t last = end < outputs ? end : outputs;
          if (first < last)
            f(c * taps + u, n * outputs + first, (n * channels + c) * size + first * stride + shift,
              last - first);
        }
  }
};

// The windows side by side, (channels * taps, columns), 0 outside of the signal.
template <class T>
std::vector<T> gathered(const T* x, const Windows& w) {
  std::vector<T> found(w.rows() * w.columns(), T(0));
  w.runs([&](int64_t row, int64_t column, int64_t entry, int64_t count) {
    T* to = found.data() + row * w.columns() + column;
    for (int64_t q = 0; q < count; ++q) to[q] = x[entry + q * w.stride];
  });
  return found;
}

// The adjoint of `gathered`, added to x.
template <class T>
void scatter(T* x, const T* found, const Windows& w) {
  w.runs([&](int64_t row, int64_t column, int64_t entry, int64_t count) {
    const T* from = found + row * w.columns() + column;
    for (int64_t q = 0; q < count; ++q) x[entry + q * w.stride] += from[q];
  });
}

}  // namespace convharness
