// Convolution of several sources: y = sum_i conv(x_i, w_i) over the axes of x_i + b.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "convolution.h"
#include "eager.h"
#include "narrow.h"
#include "planes.h"

namespace convharness {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kFewProducts = 1 << 20;  // multiply-adds that are done before the library starts
constexpr int64_t kFewColumns = 64;

// What is the same for all sources, and which axes each of them spans: bit a for axis a.
struct Plan {
  Geometry image;
  std::vector<int64_t> spans;

  int64_t rank() const { return static_cast<int64_t>(image.stride.size()); }

  // The geometry along the axes of source i.
  Geometry of(size_t i) const {
    if (i == 0) return image;
    Geometry own{{}, {}, {}, 1, false, false, false};
    for (int64_t axis = 0; axis < rank(); ++axis)
      if (spans[i] >> axis & 1) {
        own.stride.push_back(image.stride[axis]);
        own.padding.push_back(image.padding[axis]);
        own.dilation.push_back(image.dilation[axis]);
      }
    return own;
  }

  std::vector<int64_t> packed() const {
    auto all = image.packed();
    all.insert(all.end(), spans.begin(), spans.end());
    return all;
  }

  static Plan unpacked(const std::vector<int64_t>& all, size_t sources) {
    const auto end = all.end() - static_cast<std::ptrdiff_t>(sources);
    return {Geometry::unpacked({all.begin(), end}), {end, all.end()}};
  }
};

// A term of the sum beside an output of three axes, missing ones in front with one entry.
struct Term {
  Tensor values;
  std::array<int64_t, 2> step{0, 0};  // between the output's outer entries; 0 where it lacks them
  bool along = false;                 // whether it has the last axis
  int64_t entries = 1;                // of a plane

  Term(Tensor all, int64_t span, int64_t rank, const std::array<int64_t, 3>& size)
      : values(std::move(all)) {
    for (int64_t axis = 2; axis >= 0; --axis) {
      const int64_t own = axis - (3 - rank);
      if (own < 0 || !(span >> own & 1)) continue;
      if (axis == 2)
        along = true;
      else
        step[axis] = entries;
      entries *= size[axis];
    }
  }
};

inline std::array<int64_t, 3> lifted(at::IntArrayRef size) {
  std::array<int64_t, 3> all{1, 1, 1};
  for (size_t i = 0; i < size.size(); ++i) all[3 - size.size() + i] = size[i];
  return all;
}

// Where the entries of a term are, beside an entry of the output.
template <class T>
struct Beside {
  T* values;
  std::array<int64_t, 2> step;
  bool along;
  int64_t entries;

  T* at(int64_t plane, int64_t i, int64_t j) const {
    return values + plane * entries + i * step[0] + j * step[1];
  }
};

template <class T>
std::vector<Beside<T>> beside(const std::vector<Term>& terms) {
  std::vector<Beside<T>> found;
  for (const auto& term : terms)
    found.push_back({term.values.mutable_data_ptr<T>(), term.step, term.along, term.entries});
  return found;
}

// y += the sum of all terms and the bias, in one pass.
template <class T>
void join(T* y, const std::vector<Beside<T>>& terms, const T* bias, int64_t samples,
          int64_t filters, const std::array<int64_t, 3>& size) {
  const int64_t places = size[0] * size[1] * size[2];
  at::parallel_for(0, samples * filters, grain_of(places), [&](int64_t from, int64_t to) {
    for (int64_t plane = from; plane < to; ++plane)
      for (int64_t i = 0; i < size[0]; ++i)
        for (int64_t j = 0; j < size[1]; ++j) {
          T constant = bias ? bias[plane % filters] : T(0);
          T* row = y + plane * places + (i * size[1] + j) * size[2];
          for (const auto& term : terms)
            if (!term.along) constant += *term.at(plane, i, j);
          for (int64_t k = 0; k < size[2]; ++k) row[k] += constant;
          for (const auto& term : terms)
            if (term.along) add(row, term.at(plane, i, j), size[2]);
        }
  });
}

// The sums of dy over the axes that each term lacks, added to its entries, and those of the bias.
template <class T>
void sum_apart(const T* dy, const std::vector<Beside<T>>& terms, T* bias, int64_t samples,
               int64_t filters, const std::array<int64_t, 3>& size) {
  const int64_t places = size[0] * size[1] * size[2];
  at::parallel_for(0, filters, grain_of(samples * places), [&](int64_t from, int64_t to) {
    for (int64_t filter = from; filter < to; ++filter) {
      double all = 0;
      for (int64_t n = 0; n < samples; ++n) {
        const int64_t plane = n * filters + filter;
        for (int64_t i = 0; i < size[0]; ++i)
          for (int64_t j = 0; j < size[1]; ++j) {
            const T* row = dy + plane * places + (i * size[1] + j) * size[2];
            const T total = sum(row, size[2]);
            all += double(total);
            for (const auto& term : terms) {
              T* values = term.at(plane, i, j);
              if (term.along)
                add(values, row, size[2]);
              else
                *values += total;
            }
          }
      }
      if (bias) bias[filter] = static_cast<T>(all);
    }
  });
}

inline bool is_narrow(const Tensor& x, const Tensor& weight, int64_t outputs) {
  if (x.dim() > 3 || outputs > kFewColumns) return false;
  return outputs <= kColumns || weight.numel() * outputs <= kFewProducts;
}

// A source of one axis or none as windows.
inline Windows windows_of(const Tensor& x, const Tensor& weight, const Geometry& g) {
  if (x.dim() == 2) return {x.size(0), x.size(1), 1, 1, 1, 1, 0, 1};
  const int64_t size = x.size(2), taps = weight.size(2);
  const int64_t stride = g.stride[0], padding = g.padding[0], dilation = g.dilation[0];
  const int64_t outputs = (size + 2 * padding - dilation * (taps - 1) - 1) / stride + 1;
  return {x.size(0), x.size(1), size, outputs, taps, stride, padding, dilation};
}

// (N, F, outputs) as (F, columns) and back: `copy` gets both entries and how many.
template <class Copy>
void between(const Windows& w, int64_t filters, Copy copy) {
  for (int64_t n = 0; n < w.samples; ++n)
    for (int64_t f = 0; f < filters; ++f)
      copy((n * filters + f) * w.outputs, f * w.columns() + n * w.outputs, w.outputs);
}

inline Tensor term_of(const Tensor& x, const Tensor& weight, const Geometry& g) {
  if (x.dim() < 4) {
    const Windows w = windows_of(x, weight, g);
    if (is_narrow(x, weight, w.used())) {
      const int64_t filters = weight.size(0);
      Tensor y = at::empty({w.samples, filters, w.outputs}, x.options());
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sources", [&] {
        const auto columns = gathered(x.const_data_ptr<scalar_t>(), w);
        std::vector<scalar_t> product(filters * w.columns());
        multiply_narrow(product.data(), weight.const_data_ptr<scalar_t>(), columns.data(), filters,
                        w.rows(), w.columns(), w.rows(), 1);
        auto* out = y.mutable_data_ptr<scalar_t>();
        between(w, filters, [&](int64_t term, int64_t column, int64_t n) {
          std::copy_n(product.data() + column, n, out + term);
        });
      });
      return y;
    }
  }
  return x.dim() == 2 ? at::linear(x, weight) : convolve(x, weight, std::nullopt, g).contiguous();
}

template <class T>
std::vector<T> transposed(const std::vector<T>& given, int64_t rows, int64_t columns,
                          int64_t padded) {
  std::vector<T> found(columns * padded, T(0));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) found[j * padded + i] = given[i * columns + j];
  return found;
}

inline Gradients library_gradients(const Tensor& dy, const Tensor& x, const Tensor& weight,
                                   const Geometry& g, bool of_x, bool of_weight,
                                   bool by_onednn) {
  if (x.dim() > 2)
    return convolve_backward(dy, x, weight, g, of_x, of_weight, false, by_onednn);
  return {of_x ? at::matmul(dy, weight) : Tensor(), of_weight ? at::matmul(dy.t(), x) : Tensor(),
          Tensor()};
}

inline Gradients gradients_of(const Tensor& dy, const Tensor& x, const Tensor& weight,
                              const Geometry& g, bool of_x, bool of_weight) {
  if (x.dim() < 4) {
    const Windows w = windows_of(x, weight, g);
    if (is_narrow(x, weight, w.used())) {
      const int64_t filters = weight.size(0), columns = w.columns(), rows = w.rows();
      Gradients found;
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sources", [&] {
        std::vector<scalar_t> given(filters * columns, scalar_t(0));
        const auto* in = dy.const_data_ptr<scalar_t>();
        between(w, filters, [&](int64_t term, int64_t column, int64_t n) {
          std::copy_n(in + term, n, given.data() + column);
        });
        if (of_x) {
          std::vector<scalar_t> product(rows * columns);
          multiply_narrow(product.data(), weight.const_data_ptr<scalar_t>(), given.data(), rows,
                          filters, columns, 1, rows);
          found.x = at::zeros(x.sizes(), x.options());
          scatter(found.x.mutable_data_ptr<scalar_t>(), product.data(), w);
        }
        if (of_weight) {
          const int64_t padded = (rows + kColumns - 1) / kColumns * kColumns;
          const auto turned =
              transposed(gathered(x.const_data_ptr<scalar_t>(), w), rows, columns, padded);
          std::vector<scalar_t> product(filters * padded);
          multiply_narrow(product.data(), given.data(), turned.data(), filters, columns, padded,
                          columns, 1);
          found.weight = at::empty(weight.sizes(), weight.options());
          auto* out = found.weight.mutable_data_ptr<scalar_t>();
          for (int64_t f = 0; f < filters; ++f)
            std::copy_n(product.data() + f * padded, rows, out + f * rows);
        }
      });
      return found;
    }
  }
  return library_gradients(dy, x, weight, g, of_x, of_weight, false);
}

inline Tensor compute(at::TensorList x, at::TensorList weight, const std::optional<Tensor>& bias,
               const Plan& plan) {
  const bool alone = x.size() == 1;
  Tensor y = convolve(x[0], weight[0], alone ? bias : std::nullopt, plan.image);
  if (alone) return y;
  y = y.contiguous();
  const auto size = lifted(y.sizes().slice(2));
  std::vector<Term> terms;
  for (size_t i = 1; i < x.size(); ++i)
    terms.emplace_back(term_of(x[i], weight[i], plan.of(i)), plan.spans[i], plan.rank(), size);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "sources", [&] {
    const auto* added = bias ? bias->const_data_ptr<scalar_t>() : nullptr;
    join(y.mutable_data_ptr<scalar_t>(), beside<scalar_t>(terms), added, y.size(0), y.size(1),
         size);
  });
  return y;
}

// Of which arguments a gradient is asked for.
struct Asked {
  std::vector<bool> x, weight;
  bool bias;

  bool any(size_t i) const { return x[i] || weight[i]; }
};

using AllGradients = std::tuple<std::vector<Gradients>, Tensor>;  // of each source, of the bias

// By the library's operations: for derivatives of derivatives.
inline AllGradients recorded(const Tensor& dy, const variable_list& saved, const Plan& plan,
                             const Asked& asked) {
  const size_t count = asked.x.size();
  std::vector<Gradients> found(count);
  for (size_t i = 0; i < count; ++i) {
    Tensor own = dy;
    for (int64_t axis = plan.rank() - 1; axis >= 0; --axis)
      if (!(plan.spans[i] >> axis & 1)) own = own.sum(axis + 2);
    found[i] = library_gradients(own, saved[i], saved[count + i], plan.of(i), asked.x[i],
                                 asked.weight[i], false);
  }
  std::vector<int64_t> others{0};
  for (int64_t axis = 2; axis < dy.dim(); ++axis) others.push_back(axis);
  return {found, asked.bias ? dy.sum(others) : Tensor()};
}

inline AllGradients gradients(const Tensor& dy, const variable_list& saved, const Plan& plan,
                              const Asked& asked) {
  const size_t count = asked.x.size();
  const auto size = lifted(dy.sizes().slice(2));
  std::vector<Term> terms;
  for (size_t i = 1; i < count; ++i) {
    if (!asked.any(i)) continue;
    std::vector<int64_t> shape{dy.size(0), dy.size(1)};
    for (int64_t axis = 0; axis < plan.rank(); ++axis)
      if (plan.spans[i] >> axis & 1) shape.push_back(dy.size(axis + 2));
    terms.emplace_back(at::zeros(shape, dy.options()), plan.spans[i], plan.rank(), size);
  }
  const Tensor db = asked.bias ? at::empty({dy.size(1)}, dy.options()) : Tensor();
  if (asked.bias || !terms.empty())
    AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "sources", [&] {
      sum_apart(dy.const_data_ptr<scalar_t>(), beside<scalar_t>(terms),
                asked.bias ? db.mutable_data_ptr<scalar_t>() : nullptr, dy.size(0), dy.size(1),
                size);
    });
  std::vector<Gradients> found(count);
  const auto& image = plan.image;
  found[0] =
      library_gradients(dy, saved[0], saved[count], image, asked.x[0], asked.weight[0],
                        asked.x[0] ? image.backward_by_onednn : image.forward_by_onednn);
  auto term = terms.begin();
  for (size_t i = 1; i < count; ++i)
    if (asked.any(i))
      found[i] = gradients_of((term++)->values, saved[i], saved[count + i], plan.of(i), asked.x[i],
                              asked.weight[i]);
  return {found, db};
}

struct Sources : torch::autograd::Function<Sources> {
  static Tensor forward(AutogradContext* ctx, at::TensorList x, at::TensorList weight,
                        const std::optional<Tensor>& bias, const Plan& plan) {
    variable_list saved(x.begin(), x.end());
    saved.insert(saved.end(), weight.begin(), weight.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["plan"] = plan.packed();
    ctx->saved_data["bias"] = bias.has_value();
    return compute(x, weight, bias, plan);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dys) {
    const auto saved = ctx->get_saved_variables();
    const size_t count = saved.size() / 2;
    Asked asked{std::vector<bool>(count), std::vector<bool>(count), false};
    for (size_t i = 0; i < count; ++i) {
      asked.x[i] = ctx->needs_input_grad(i);
      asked.weight[i] = ctx->needs_input_grad(count + i);
    }
    asked.bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2 * count);
    const Plan plan = Plan::unpacked(ctx->saved_data["plan"].toIntVector(), count);
    const auto [own, db] = is_recorded(dys[0]) ? recorded(dys[0], saved, plan, asked)
                                               : gradients(dys[0].contiguous(), saved, plan, asked);
    variable_list found(2 * count + 2);
    for (size_t i = 0; i < count; ++i) {
      found[i] = own[i].x;
      found[count + i] = own[i].weight;
    }
    found[2 * count] = db;
    return found;
  }
};

inline Tensor sources(at::TensorList given, at::TensorList taps, std::optional<Tensor> bias,
                      at::IntArrayRef spans, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, bool by_onednn, bool bias_apart) {
  variable_list x, weight;
  bias = plain(bias);
  bool recorded = needs_gradient({bias ? *bias : Tensor()});
  for (size_t i = 0; i < given.size(); ++i) {
    x.push_back(plain(given[i]));
    weight.push_back(plain(taps[i]));
    recorded = recorded || needs_gradient({x[i], weight[i]});
  }
  const Plan plan{{stride.vec(), padding.vec(), dilation.vec(), 1, by_onednn,
                   by_onednn && x[0].size(1) >= kFewChannels, bias_apart},
                  spans.vec()};
  if (!recorded) return compute(x, weight, bias, plan);
  return Sources::apply(at::TensorList(x), at::TensorList(weight), bias, plan);
}

}  // namespace convharness
