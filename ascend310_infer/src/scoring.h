// The whole of a run: rows in, scores out.

#ifndef DLRM_INFER_SCORING_H_
#define DLRM_INFER_SCORING_H_

#include <chrono>

#include "options.h"

namespace dlrm {

using Clock = std::chrono::steady_clock;

// Scores all rows as the options say; `start` is when the program began. Throws Error for what a user can cause.
void Score(const Options &options, Clock::time_point start);

}  // namespace dlrm

#endif  // DLRM_INFER_SCORING_H_
