// Updates of the tables' looked-up rows by an optimizer's rule, of which rules.cc has the list.

#ifndef DLRM_KERNELS_TABLE_UPDATES_H_
#define DLRM_KERNELS_TABLE_UPDATES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "operator.h"
#include "pool.h"

namespace {

constexpr int kConstants = 6;  // of a rule; another one follows
constexpr int64_t kAhead = 16;  // rows that are fetched before their turn

// Which places of `rows` hold the same row: distinct ones in the order of their first places, places linked in order.
struct Groups {
  std::vector<int32_t> row, first, last, next, slots;

  void Find(const int32_t *rows, int64_t places) {
    int bits = 4;
    while ((int64_t{1} << bits) < 2 * places) ++bits;
    row.clear(), first.clear(), last.clear();
    next.assign(places, -1);
    slots.assign(int64_t{1} << bits, -1);
    const uint32_t mask = (uint32_t{1} << bits) - 1;
    for (int64_t i = 0; i < places; ++i) {
      uint32_t slot = static_cast<uint32_t>(rows[i]) * 2654435769u >> (32 - bits);
      while (slots[slot] >= 0 && row[slots[slot]] != rows[i]) slot = (slot + 1) & mask;
      if (slots[slot] < 0) {
        slots[slot] = static_cast<int32_t>(row.size());
        row.push_back(rows[i]), first.push_back(i), last.push_back(i);
      } else {
        const int32_t group = slots[slot];
        next[last[group]] = static_cast<int32_t>(i);
        last[group] = static_cast<int32_t>(i);
      }
    }
  }
};

// Updates each looked-up row once, by the sum of its gradients and the weight decay times the row itself.
template <int D, typename Rule>
void UpdateRows(float *table, const int32_t *rows, const float *gradients, const Rule &rule, float *const *states,
                const int64_t *state_widths, int64_t places, int64_t any_width) {
  const int64_t width = D ? D : any_width;
  static thread_local Groups groups;
  groups.Find(rows, places);
  const Groups &found = groups;
  const int64_t count = static_cast<int64_t>(found.row.size());
  Pool::Get().For(count, Grain(4 * width), [&, count](int64_t begin, int64_t end) {
    std::vector<float> summed(width);
    float *__restrict sum = summed.data();
    for (int64_t u = begin; u < end; ++u) {
      if (u + kAhead < end) {
        const int64_t coming = found.row[u + kAhead];
        __builtin_prefetch(table + coming * width, 1);
        for (int s = 0; s < Rule::kStates; ++s) __builtin_prefetch(states[s] + coming * state_widths[s], 1);
      }
      const int64_t row = found.row[u];
      float *w = table + row * width;
      std::memcpy(sum, gradients + int64_t{found.first[u]} * width, width * sizeof(float));
      for (int64_t i = found.next[found.first[u]]; i >= 0; i = found.next[i])
        for (int64_t k = 0; k < width; ++k) sum[k] += gradients[i * width + k];
      if (rule.weight_decay != 0)
        for (int64_t k = 0; k < width; ++k) sum[k] += rule.weight_decay * w[k];
      float *row_states[Rule::kStates + 1];
      for (int s = 0; s < Rule::kStates; ++s) row_states[s] = states[s] + row * state_widths[s];
      rule(w, sum, width, row_states);
    }
  });
}

// Updates by a rule that needs no sums: places in their order, the columns shared out, since no row is in two of them.
template <int D, typename Rule>
void UpdatePlaces(float *table, const int32_t *rows, const float *gradients, const Rule &rule, int64_t batch,
                  int64_t columns, int64_t any_width) {
  const int64_t width = D ? D : any_width;
  const int64_t share = batch * columns * width > kPartValues ? (columns + 3) / 4 : columns;
  const int64_t ahead = columns < kAhead ? kAhead : 1;
  Pool::Get().For(columns, share, [=](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t c = begin; c < end; ++c) {
        if (b + ahead < batch) __builtin_prefetch(table + rows[(b + ahead) * columns + c] * width, 1);
        rule(table + rows[b * columns + c] * width, gradients + (b * columns + c) * width, width, nullptr);
      }
  });
}

// How many of the rows are there: all, or those before the first one of -1.
inline int64_t Used(const int32_t *rows, int64_t room) {
  return room == 0 || rows[room - 1] >= 0 ? room : std::find(rows, rows + room, -1) - rows;
}

// Inputs: table [R, D], rows [B, L] int32, gradients [B, L, D], rate, constants, states. Output: [1]. The last constant
// is not 0 where a row may come in several columns of rows. In one column, rows may end at one of -1.
template <int D, typename Rule>
void UpdateTable(const Arguments &arguments) {
  const Rule rule(*arguments.At(3), arguments.At(4));
  float *table = arguments.At(0), *gradients = arguments.At(2);
  const int32_t *rows = arguments.At<int32_t>(1);
  const int64_t width = arguments.shapes[0][1], places = Used(rows, arguments.Size(1));
  if constexpr (Rule::kAdditive) {
    if (rule.weight_decay == 0 && arguments.At(4)[kConstants] == 0) {
      UpdatePlaces<D>(table, rows, gradients, rule, places / arguments.shapes[1][1], arguments.shapes[1][1], width);
      return;
    }
  }
  float *states[Rule::kStates + 1];
  int64_t widths[Rule::kStates + 1];
  for (int s = 0; s < Rule::kStates; ++s) {
    states[s] = arguments.At(5 + s);
    widths[s] = arguments.Size(5 + s) / arguments.shapes[0][0];
  }
  UpdateRows<D>(table, rows, gradients, rule, states, widths, places, width);
}

template <typename Rule>
int UpdateTable(const Arguments &arguments) {
  arguments.shapes[0][1] == 16 ? UpdateTable<16, Rule>(arguments) : UpdateTable<0, Rule>(arguments);
  *arguments.At(5 + Rule::kStates) = 0;
  return 0;
}

}  // namespace

#endif  // DLRM_KERNELS_TABLE_UPDATES_H_
