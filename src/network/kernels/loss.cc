// The loss and its gradient.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "operator.h"

namespace {

// Cross entropy of a row.
inline float RowLoss(float logit, float label) {
  return std::max(logit, 0.f) - logit * label + std::log1p(std::exp(-std::fabs(logit)));
}

inline float Sigmoid(float logit) { return 1 / (1 + std::exp(-logit)); }

}  // namespace

// logits [B, 1], labels [B, 1] -> mean sigmoid cross entropy, a scalar.
OPERATOR(CrossEntropy) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1);
  double sum = 0;
  for (int64_t b = 0; b < shapes[0][0]; ++b) sum += RowLoss(logits[b], labels[b]);
  *arguments.At(2) = static_cast<float>(sum / shapes[0][0]);
  return 0;
}

// logits, labels, gradient of the above, a scalar -> gradient of the logits [B, 1].
OPERATOR(CrossEntropyGrad) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1), scale = *arguments.At(2) / shapes[0][0];
  for (int64_t b = 0; b < shapes[0][0]; ++b) arguments.At(3)[b] = (Sigmoid(logits[b]) - labels[b]) * scale;
  return 0;
}

// logits [B, 1], labels [B, 1], weights [B, 1] -> mean of weight times sigmoid cross entropy, a scalar.
OPERATOR(WeightedCrossEntropy) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1), *weights = arguments.At(2);
  double sum = 0;
  for (int64_t b = 0; b < shapes[0][0]; ++b) sum += weights[b] * RowLoss(logits[b], labels[b]);
  *arguments.At(3) = static_cast<float>(sum / shapes[0][0]);
  return 0;
}

// logits, labels, weights, gradient of the above, a scalar -> gradient of the logits [B, 1].
OPERATOR(WeightedCrossEntropyGrad) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1), *weights = arguments.At(2);
  const float scale = *arguments.At(3) / shapes[0][0];
  for (int64_t b = 0; b < shapes[0][0]; ++b)
    arguments.At(4)[b] = (Sigmoid(logits[b]) - labels[b]) * weights[b] * scale;
  return 0;
}
