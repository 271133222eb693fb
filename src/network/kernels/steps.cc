// What goes from step to step beside the optimizers: the number of the step, with what depends on it, and the mean of
// parameters over steps.

#include <algorithm>
#include <cstdint>

#include "dense_updates.h"
#include "operator.h"

// steps done [1] int32, one more with each call, and series of factors [S] -> the number before [1] int32, and this
// step's factor of each series [1], or the last one.
OPERATOR(NextStep) {
  ARGUMENTS;
  const int series = count / 2 - 1;
  const int32_t step = (*arguments.At<int32_t>(0))++;
  *arguments.At<int32_t>(1 + series) = step;
  for (int s = 1; s <= series; ++s)
    *arguments.At(1 + series + s) = arguments.At(s)[std::min<int64_t>(step, shapes[s][0] - 1)];
  return 0;
}

// step [1] int32, first step that counts [1] int32, anything, all values, the means of all -> [1].
OPERATOR(AverageWeights) {
  ARGUMENTS;
  const int parameters = (count - 4) / 2, counted = *arguments.At<int32_t>(0) - *arguments.At<int32_t>(1) + 1;
  if (counted > 0) {
    const float share = 1.f / counted;
    ForPieces(arguments, 3, 3 + parameters, [&](int p, int64_t first, int64_t values) {
      const float *__restrict w = arguments.At(p) + first;
      float *__restrict mean = arguments.At(p + parameters) + first;
      for (int64_t k = 0; k < values; ++k) mean[k] += (w[k] - mean[k]) * share;
    });
  }
  *arguments.At(count - 1) = 0;
  return 0;
}
