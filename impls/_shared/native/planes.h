// Passes over planes: the entries of one channel of one sample.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace convharness {

constexpr int64_t kLanes = 16;     // partial sums, so that adding up is a vector instruction
constexpr int64_t kBlock = 2048;   // entries that the first level of a cache holds
constexpr int64_t kGrain = 32768;  // operations that are worth a thread

// How many of something that takes so many operations each are worth a thread.
inline int64_t grain_of(int64_t operations) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, operations));
}

// out = x * m, exactly 0 where m = 0, whatever stands in x there; out may be x.
template <class T>
inline void select(T* out, const T* x, const T* m, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const T product = x[i] * m[i];
    out[i] = m[i] == T(0) ? T(0) : product;
  }
}

template <class T>
inline void add(T* __restrict total, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += x[i];
}

template <class T>
inline void add_constant(T* total, T constant, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += constant;
}

template <class T>
inline void add_with(T* __restrict total, const T* __restrict x, T constant, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += x[i] + constant;
}

template <class T>
inline T sum(const T* x, int64_t n) {
  std::array<T, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane];
  T total = 0;
  for (; i < n; ++i) total += x[i];
  if (n < kLanes) return total;
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  return total + sums[0];
}

template <class T>
inline void add_product(T* __restrict total, const T* __restrict x, const T* __restrict m,
                        int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += x[i] * m[i];
}

template <class T>
inline void add_scaled(T* __restrict total, const T* __restrict x, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += factor * x[i];
}

// y = y * scale + offset * share
template <class T>
inline void rescale(T* __restrict y, const T* __restrict scale, const T* __restrict share, T offset,
                    int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = y[i] * scale[i] + offset * share[i];
}

template <class T>
inline void multiply(T* __restrict out, const T* __restrict x, const T* __restrict scale,
                     int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale[i];
}

template <class T>
inline void multiply_by(T* __restrict out, const T* __restrict x, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

template <class T>
inline void multiply_into(T* __restrict out, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] *= x[i];
}

// The sum of x * share.
template <class T>
inline double product_sum(const T* __restrict x, const T* __restrict share, int64_t n) {
  std::array<T, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * share[i + lane];
  double total = 0;
  for (; i < n; ++i) total += double(x[i]) * double(share[i]);
  for (const T sum : sums) total += double(sum);
  return total;
}

}  // namespace convharness
