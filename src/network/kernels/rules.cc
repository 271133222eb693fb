// The optimizers: the rules by which values change, and the operators of each, Table<rule> for the tables' looked-up
// rows and Dense<rule> for whole parameters.

#include <cmath>
#include <cstdint>

#include "dense_updates.h"
#include "operator.h"
#include "table_updates.h"

namespace {

// Each rule updates n values w by their gradients g and its states of these values, as src/training/optimizers.py
// writes it down. `rate` is the step's learning rate, with Adam's correction of the first steps in it. The constants:
// epsilon, weight decay, b1, 1 - b1, b2, 1 - b2.

struct SGD {
  float rate;
  SGD(float rate, const float *) : rate(rate) {}
  static constexpr int kStates = 0;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *) const {
    for (int64_t k = 0; k < n; ++k) w[k] -= rate * g[k];
  }
};

struct Adagrad {
  float rate, epsilon;
  Adagrad(float rate, const float *constants) : rate(rate), epsilon(constants[0]) {}
  static constexpr int kStates = 1;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *states) const {
    float *__restrict sum = states[0];
    for (int64_t k = 0; k < n; ++k) {
      sum[k] += g[k] * g[k];
      w[k] -= rate * g[k] / (std::sqrt(sum[k]) + epsilon);
    }
  }
};

// One sum for a whole row.
struct RowwiseAdagrad {
  float rate, epsilon;
  RowwiseAdagrad(float rate, const float *constants) : rate(rate), epsilon(constants[0]) {}
  static constexpr int kStates = 1;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *states) const {
    float squares = 0;
    for (int64_t k = 0; k < n; ++k) squares += g[k] * g[k];
    *states[0] += squares / n;
    const float scale = rate / (std::sqrt(*states[0]) + epsilon);
    for (int64_t k = 0; k < n; ++k) w[k] -= scale * g[k];
  }
};

struct Adam {
  float rate, epsilon, keep1, add1, keep2, add2;
  Adam(float rate, const float *constants)
      : rate(rate), epsilon(constants[0]), keep1(constants[2]), add1(constants[3]), keep2(constants[4]),
        add2(constants[5]) {}
  static constexpr int kStates = 2;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *states) const {
    float *__restrict mean = states[0], *__restrict square = states[1];
    for (int64_t k = 0; k < n; ++k) {
      mean[k] = keep1 * mean[k] + add1 * g[k];
      square[k] = keep2 * square[k] + add2 * g[k] * g[k];
      w[k] -= rate * mean[k] / (std::sqrt(square[k]) + epsilon);
    }
  }
};

}  // namespace

OPERATOR(TableSGD) { ARGUMENTS; return UpdateTable<SGD>(arguments); }
OPERATOR(TableAdagrad) { ARGUMENTS; return UpdateTable<Adagrad>(arguments); }
OPERATOR(TableRowwiseAdagrad) { ARGUMENTS; return UpdateTable<RowwiseAdagrad>(arguments); }
OPERATOR(TableAdam) { ARGUMENTS; return UpdateTable<Adam>(arguments); }
OPERATOR(DenseSGD) { ARGUMENTS; return UpdateDense<SGD>(arguments, count); }
OPERATOR(DenseAdagrad) { ARGUMENTS; return UpdateDense<Adagrad>(arguments, count); }
OPERATOR(DenseAdam) { ARGUMENTS; return UpdateDense<Adam>(arguments, count); }
