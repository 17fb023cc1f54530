// The operations of `torch.ops.convharness`.
#include <torch/library.h>

#include "borders.h"
#include "extension.h"
#include "masked.h"
#include "partial.h"
#include "sources.h"
#include "takes.h"
#include "windows.h"

TORCH_LIBRARY(convharness, library) {
  library.def("takes(Tensor?[] tensors) -> bool", &convharness::takes);
  library.def(
      "partial(Tensor x, Tensor weight, Tensor? bias, Tensor mask, int[] stride, int[] padding, "
      "int[] dilation, int groups, bool by_onednn) -> (Tensor, Tensor)",
      &convharness::partial);
  library.def(
      "masked(Tensor x, Tensor weight, Tensor? bias, Tensor mask, int[] stride, int[] padding, "
      "int[] dilation, int groups, bool by_onednn, bool bias_apart) -> (Tensor, Tensor)",
      &convharness::masked);
  library.def(
      "extended_convolution(Tensor x, Tensor weight, Tensor? bias, int[] plan, int[] stride, "
      "int[] dilation, int groups, bool by_onednn, bool bias_apart) -> Tensor",
      &convharness::extended_convolution);
  library.def(
      "sources(Tensor[] x, Tensor[] weight, Tensor? bias, int[] spans, int[] tiles, "
      "int[] stride, int[] padding, int[] dilation, bool by_onednn, bool bias_apart) -> Tensor",
      &convharness::sources);
  library.def(
      "windows(Tensor x, Tensor weight, Tensor? bias, Tensor? mask, int[] kept, int[] stride, "
      "int[] padding, int[] dilation, int groups, int rows) -> Tensor",
      &convharness::windows);
  library.def(
      "border_kernels(Tensor x, Tensor weight, Tensor? bias, int[] runs, int[] stride, "
      "int[] padding, int[] dilation, int groups, bool copied, bool by_onednn, bool bias_apart) "
      "-> Tensor",
      &convharness::border_kernels);
}
