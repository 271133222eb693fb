// The optimizers: the rules by which values change, and the operators of each, Table<rule> for the tables' looked-up
// rows and Dense<rule> for whole parameters. One more takes a struct, and a line at the end of this file; by its name
// src/training/rules.py, which writes the rules down, finds it.

#include <cmath>
#include <cstdint>

#include "dense_updates.h"
#include "operator.h"
#include "table_updates.h"

namespace {

// What rules have in common. Each updates n values w by their gradients g and its kStates states of these values.
struct RuleBase {
  float rate;  // the step's learning rate, with Adam's correction of the first steps in it
  float epsilon, weight_decay, keep1, add1, keep2, add2;  // b1, 1 - b1, b2, 1 - b2

  RuleBase(float rate, const float *constants)
      : rate(rate), epsilon(constants[0]), weight_decay(constants[1]), keep1(constants[2]), add1(constants[3]),
        keep2(constants[4]), add2(constants[5]) {}

  // Whether a row that was looked up at several places may be updated for one after the other, without a sum.
  static constexpr bool kAdditive = false;
};

struct SGD : RuleBase {
  using RuleBase::RuleBase;
  static constexpr int kStates = 0;
  static constexpr bool kAdditive = true;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *) const {
    for (int64_t k = 0; k < n; ++k) w[k] -= rate * g[k];
  }
};

struct Adagrad : RuleBase {
  using RuleBase::RuleBase;
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
struct RowwiseAdagrad : RuleBase {
  using RuleBase::RuleBase;
  static constexpr int kStates = 1;
  void operator()(float *__restrict w, const float *__restrict g, int64_t n, float *const *states) const {
    float squares = 0;
    for (int64_t k = 0; k < n; ++k) squares += g[k] * g[k];
    *states[0] += squares / n;
    const float scale = rate / (std::sqrt(*states[0]) + epsilon);
    for (int64_t k = 0; k < n; ++k) w[k] -= scale * g[k];
  }
};

struct Adam : RuleBase {
  using RuleBase::RuleBase;
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

#define TABLE_OPERATOR(rule) OPERATOR(Table##rule) { ARGUMENTS; return UpdateTable<rule>(arguments); }
#define DENSE_OPERATOR(rule) OPERATOR(Dense##rule) { ARGUMENTS; return UpdateDense<rule>(arguments, count); }
#define TABLE_AND_DENSE_OPERATORS(rule) TABLE_OPERATOR(rule) DENSE_OPERATOR(rule)

TABLE_AND_DENSE_OPERATORS(SGD)
TABLE_AND_DENSE_OPERATORS(Adagrad)
TABLE_OPERATOR(RowwiseAdagrad)  // a whole parameter has no rows: MLPs use Adagrad
TABLE_AND_DENSE_OPERATORS(Adam)
