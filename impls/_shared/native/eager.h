// What autograd and transforms ask of an operation.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/GradMode.h>

#include <initializer_list>
#include <optional>

namespace convharness {

inline bool needs_gradient(std::initializer_list<at::Tensor> inputs) {
  if (!c10::GradMode::is_enabled()) return false;
  for (const auto& input : inputs)
    if (input.defined() && input.requires_grad()) return true;
  return false;
}

// `t` with the strides of a contiguous tensor, of axes of one entry, too: by such strides the
// library tells layouts apart, and misreads some.
inline at::Tensor plain(const at::Tensor& t) {
  if (!t.is_contiguous()) return t.contiguous();
  int64_t step = 1;
  for (int64_t axis = t.dim() - 1; axis > 0; --axis) {
    if (t.stride(axis) != step) return t.flatten().view(t.sizes());
    step *= t.size(axis);
  }
  return t;
}

inline std::optional<at::Tensor> plain(const std::optional<at::Tensor>& t) {
  return t ? std::optional(plain(*t)) : t;
}

// Whether something stands between a tensor and its values: a transform, a subclass, a tangent, a
// sign or a conjugate yet to come.
inline bool is_wrapped(const at::Tensor& t) {
  constexpr c10::DispatchKeySet wrappers({
      c10::DispatchKey::Python, c10::DispatchKey::FuncTorchBatched,
      c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::Functionalize,
      c10::DispatchKey::Negative, c10::DispatchKey::Conjugate, c10::DispatchKey::ZeroTensor});
  return t.key_set().has_any(wrappers) || t._fw_grad(0).defined();
}

// Whether the gradient of a gradient is to be recorded, or a transform looks on.
inline bool is_recorded(const at::Tensor& dy) {
  return c10::GradMode::is_enabled() || is_wrapped(dy);
}

}  // namespace convharness
