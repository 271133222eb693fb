// The lookup of the batch's rows in the tables.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "operator.h"
#include "pool.h"

// table [R, D], ids [B, F] int32, starts [F] int32, the tables' first rows -> rows [B, F] int32, vectors [B, F, D].
// Fails where an id is not in its table.
OPERATOR(Lookup) {
  ARGUMENTS;
  const float *table = arguments.At(0);
  const int32_t *ids = arguments.At<int32_t>(1), *starts = arguments.At<int32_t>(2);
  int32_t *rows = arguments.At<int32_t>(3);
  float *to = arguments.At(4);
  const int64_t width = shapes[0][1], fields = shapes[1][1];
  std::atomic<bool> outside{false};
  Pool::Get().For(shapes[1][0], Grain(fields * width), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      for (int64_t f = 0; f < fields; ++f) {
        const int64_t id = ids[b * fields + f], row = starts[f] + id;
        if (id < 0 || row >= (f + 1 < fields ? starts[f + 1] : shapes[0][0])) {
          outside = true;
          return;
        }
        rows[b * fields + f] = static_cast<int32_t>(row);
        __builtin_prefetch(table + row * width);
      }
    for (int64_t i = begin * fields; i < end * fields; ++i)
      std::memcpy(to + i * width, table + rows[i] * width, width * sizeof(float));
  });
  return outside;
}
