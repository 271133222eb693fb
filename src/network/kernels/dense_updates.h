// Updates of whole parameters by an optimizer's rule, of which rules.cc has the list, and loops over their values.

#ifndef DLRM_KERNELS_DENSE_UPDATES_H_
#define DLRM_KERNELS_DENSE_UPDATES_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "operator.h"
#include "pool.h"

namespace {

constexpr int64_t kPieceValues = 1 << 14;  // of a parameter that one thread updates at a time

// Calls part(p, first value, values) for pieces of the parameters begin <= p < end, at the same time.
template <typename Part>
void ForPieces(const Arguments &arguments, int begin, int end, const Part &part) {
  std::vector<std::pair<int, int64_t>> pieces;  // parameter and first value
  for (int p = begin; p < end; ++p)
    for (int64_t first = 0; first < arguments.Size(p); first += kPieceValues) pieces.emplace_back(p, first);
  Pool::Get().For(pieces.size(), 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const auto [p, first] = pieces[i];
      part(p, first, std::min(kPieceValues, arguments.Size(p) - first));
    }
  });
}

// Inputs: rate, rate of the decay, constants, all values, all gradients, first states of all, second states of all.
// Output: [1]. Matrices lose a share of their values, apart from their gradients.
template <typename Rule>
int UpdateDense(const Arguments &arguments, int count) {
  const Rule rule(*arguments.At(0), arguments.At(2));
  const float lost = *arguments.At(1) * rule.weight_decay;
  const int parameters = (count - 4) / (2 + Rule::kStates);
  ForPieces(arguments, 3, 3 + parameters, [&](int p, int64_t first, int64_t values) {
    float *states[Rule::kStates + 1];
    for (int s = 0; s < Rule::kStates; ++s) states[s] = arguments.At(p + (2 + s) * parameters) + first;
    float *__restrict w = arguments.At(p) + first;
    if (lost != 0 && arguments.dims[p] == 2)
      for (int64_t k = 0; k < values; ++k) w[k] -= lost * w[k];
    rule(w, arguments.At(p + parameters) + first, values, states);
  });
  *arguments.At(count - 1) = 0;
  return 0;
}

}  // namespace

#endif  // DLRM_KERNELS_DENSE_UPDATES_H_
