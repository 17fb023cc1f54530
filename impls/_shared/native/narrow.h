// Products of matrices with so few columns that starting the library's takes longer.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace convharness {

using at::Tensor;

constexpr int64_t kColumns = 8, kRows = 8;  // at a time, in registers
constexpr int64_t kManyColumns = 64;        // so many are multiplied sooner by the library

template <class T>
struct Lanes {
  typedef T Vector
      __attribute__((vector_size(kColumns * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// A whole register by one instruction, part of one byte by byte.
template <class T, class Width>
typename Lanes<T>::Vector loaded(const T* from, Width width) {
  using Vector = typename Lanes<T>::Vector;
  if constexpr (!std::is_same_v<Width, int64_t>) {
    return *reinterpret_cast<const Vector*>(from);
  } else {
    Vector values{};
    std::memcpy(&values, from, width * sizeof(T));
    return values;
  }
}

template <class T, class Width>
void store(T* to, const typename Lanes<T>::Vector& values, Width width) {
  if constexpr (!std::is_same_v<Width, int64_t>)
    *reinterpret_cast<typename Lanes<T>::Vector*>(to) = values;
  else
    std::memcpy(to, &values, width * sizeof(T));
}

// Call f(first, how many) for what fills a register of so many columns, the last ones maybe twice.
template <class F>
void each_register(int64_t columns, F f) {
  if (columns < kColumns) return f(0, columns);
  constexpr std::integral_constant<int64_t, kColumns> whole;
  int64_t j = 0;
  for (; j + kColumns <= columns; j += kColumns) f(j, whole);
  if (j < columns) f(columns - kColumns, whole);
}

// So many columns as whole registers hold.
inline int64_t padded_columns(int64_t count) {
  return (count + kColumns - 1) / kColumns * kColumns;
}

// y (rows, columns) = a (rows, inner) b (inner, columns). Row i of y is at y + i * y_line, that of b
// at b + k * b_line; element (i, k) of a is at a[i * row + step(k)].
template <class T, class Step>
void multiply_narrow(T* y, int64_t y_line, const T* a, int64_t row, Step step, const T* b,
                     int64_t b_line, int64_t rows, int64_t inner, int64_t columns) {
  using Vector = typename Lanes<T>::Vector;
  const auto block = [&](int64_t i0, int64_t j, auto count, auto width) {
    Vector sums[kRows] = {};
    for (int64_t k = 0; k < inner; ++k) {
      const Vector values = loaded(b + k * b_line + j, width);
      const T* factors = a + i0 * row + step(k);
      for (int64_t i = 0; i < count; ++i) sums[i] += factors[i * row] * values;
    }
    for (int64_t i = 0; i < count; ++i)
      store(y + (i0 + i) * y_line + j, sums[i], width);
  };
  const auto across = [&](int64_t i, auto count) {
    each_register(columns, [&](int64_t j, auto width) { block(i, j, count, width); });
  };
  int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) across(i, std::integral_constant<int64_t, kRows>());
  if (i < rows) across(i, rows - i);
}

// y += a b where y has few rows and b many: every line of b is read once, from its begin to its end.
template <class T>
void multiply_long(T* y, int64_t y_line, const T* a, int64_t row, int64_t step, const T* b,
                   int64_t b_line, int64_t rows, int64_t inner, int64_t columns) {
  using Vector = typename Lanes<T>::Vector;
  const auto block = [&](int64_t k0, int64_t j, auto count, auto width) {
    Vector lines[kRows];
    for (int64_t k = 0; k < count; ++k) lines[k] = loaded(b + (k0 + k) * b_line + j, width);
    for (int64_t i = 0; i < rows; ++i) {
      Vector sum = loaded(y + i * y_line + j, width);
      const T* factors = a + i * row + k0 * step;
      for (int64_t k = 0; k < count; ++k) sum += factors[k * step] * lines[k];
      store(y + i * y_line + j, sum, width);
    }
  };
  const auto across = [&](int64_t k, auto count) {
    int64_t j = 0;
    for (; j + kColumns <= columns; j += kColumns)
      block(k, j, count, std::integral_constant<int64_t, kColumns>());
    if (j < columns) block(k, j, count, columns - j);
  };
  int64_t k = 0;
  for (; k + kRows <= inner; k += kRows) across(k, std::integral_constant<int64_t, kRows>());
  if (k < inner) across(k, inner - k);
}

// A view of memory as a matrix.
template <class T>
Tensor matrix_at(const T* values, int64_t rows, int64_t columns, int64_t row, int64_t column,
                 const at::TensorOptions& options) {
  return at::from_blob(const_cast<T*>(values), {rows, columns}, {row, column}, options);
}

// The same, element (i, k) of a at a[i * row + k * step]; by the library where `used`, the shortest
// side, is not narrow.
template <class T>
void multiply_either(T* y, int64_t y_line, const T* a, int64_t row, int64_t step, const T* b,
                     int64_t b_line, int64_t rows, int64_t inner, int64_t columns, int64_t used,
                     const at::TensorOptions& options) {
  if (used < kManyColumns) {
    const auto steps = [&](int64_t k) { return k * step; };
    return multiply_narrow(y, y_line, a, row, steps, b, b_line, rows, inner, columns);
  }
  Tensor product = matrix_at(y, rows, columns, y_line, 1, options);
  at::mm_out(product, matrix_at(a, rows, inner, row, step, options),
             matrix_at(b, inner, columns, b_line, 1, options));
}

// y = a b, of which y and b have lines side by side.
template <class T>
void multiply_any(Tensor y, const Tensor& a, const Tensor& b, int64_t used) {
  multiply_either(y.mutable_data_ptr<T>(), y.stride(0), a.const_data_ptr<T>(), a.stride(0),
                  a.stride(1), b.const_data_ptr<T>(), b.stride(0), a.size(0), a.size(1), b.size(1),
                  used, y.options());
}

// y (inner, columns) = a^T b, of filters a (rows, inner) and b (rows, columns).
template <class T>
Tensor multiply_by_filters(const Tensor& a, const Tensor& b, int64_t used) {
  if (used >= kManyColumns) return at::mm(a.t(), b);
  Tensor turned = at::zeros({b.size(1), a.size(1)}, b.options());
  multiply_long(turned.mutable_data_ptr<T>(), turned.stride(0), b.const_data_ptr<T>(), b.stride(1),
                b.stride(0), a.const_data_ptr<T>(), a.stride(0), used, a.size(0), a.size(1));
  return turned.t().contiguous();
}

// target (rows, inner), its lines anywhere, = a (rows, columns) b^T (columns, inner).
template <class T>
void multiply_transposed(Tensor target, const Tensor& a, const Tensor& b, int64_t used) {
  if (used >= kManyColumns)
    at::mm_out(target, a, b.t());
  else
    multiply_any<T>(target, a, b.t().contiguous(), used);
}

}  // namespace convharness
