// Whether the operations can read tensors.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "eager.h"

namespace convharness {

inline bool takes(const c10::List<std::optional<at::Tensor>>& tensors) {
  std::optional<at::ScalarType> dtype;
  for (const std::optional<at::Tensor> t : tensors) {
    if (!t || !t->defined()) continue;
    if (!t->is_cpu() || t->layout() != at::kStrided || is_wrapped(*t)) return false;
    if (!dtype) dtype = t->scalar_type();
    if (t->scalar_type() != *dtype || t->numel() == 0) return false;
  }
  return dtype == at::kFloat || dtype == at::kDouble;
}

}  // namespace convharness
