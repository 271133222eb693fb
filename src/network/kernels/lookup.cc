// The lookup of the batch's rows in the tables.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "operator.h"
#include "pool.h"

// table [R, D], ids [B, L] int32, starts [L] int32, first rows of the ids' tables -> rows [B, L] int32, vectors
// [B, L, D]. Fails where an id is not in its table. A table ends where another one begins.
OPERATOR(Lookup) {
  ARGUMENTS;
  const float *table = arguments.At(0);
  const int32_t *ids = arguments.At<int32_t>(1), *starts = arguments.At<int32_t>(2);
  int32_t *rows = arguments.At<int32_t>(3);
  float *to = arguments.At(4);
  const int64_t width = shapes[0][1], places = shapes[1][1];
  std::vector<int32_t> sorted(starts, starts + places), ends(places);
  std::sort(sorted.begin(), sorted.end());
  for (int64_t l = 0; l < places; ++l) {
    const auto next = std::upper_bound(sorted.begin(), sorted.end(), starts[l]);
    ends[l] = next == sorted.end() ? static_cast<int32_t>(shapes[0][0]) : *next;
  }
  std::atomic<bool> outside{false};
  Pool::Get().For(shapes[1][0], Grain(places * width), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t l = 0; l < places; ++l) {
        const int64_t id = ids[b * places + l], row = starts[l] + id;
        if (id < 0 || row >= ends[l]) {
          outside = true;
          return;
        }
        rows[b * places + l] = static_cast<int32_t>(row);
        __builtin_prefetch(table + row * width);
      }
    for (int64_t i = begin * places; i < end * places; ++i)
      std::memcpy(to + i * width, table + rows[i] * width, width * sizeof(float));
  });
  return outside;
}
