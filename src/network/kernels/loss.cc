// The loss and its gradient.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "operator.h"

// logits [B, 1], labels [B, 1] -> mean sigmoid cross entropy, a scalar.
OPERATOR(CrossEntropy) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1);
  double sum = 0;
  for (int64_t b = 0; b < shapes[0][0]; ++b)
    sum += std::max(logits[b], 0.f) - logits[b] * labels[b] + std::log1p(std::exp(-std::fabs(logits[b])));
  *arguments.At(2) = static_cast<float>(sum / shapes[0][0]);
  return 0;
}

// logits, labels, gradient of the above, a scalar -> gradient of the logits [B, 1].
OPERATOR(CrossEntropyGrad) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1), scale = *arguments.At(2) / shapes[0][0];
  for (int64_t b = 0; b < shapes[0][0]; ++b) arguments.At(3)[b] = (1 / (1 + std::exp(-logits[b])) - labels[b]) * scale;
  return 0;
}
