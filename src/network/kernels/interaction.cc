// The interaction: dot products of all pairs of a sample's vectors, and their gradients, in the widest vectors that one
// of the processor's instructions takes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

#include "operator.h"
#include "pool.h"

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef float LooseLanes __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

inline Lanes Load(const float *from) { return *reinterpret_cast<const LooseLanes *>(from); }
inline void Store(float *to, Lanes value) { *reinterpret_cast<LooseLanes *>(to) = value; }

// Fused only here: elsewhere the compiler may not, so that updates round as MindSpore's operators do.
inline Lanes MultiplyAdd(float a, Lanes b, Lanes c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c);
#elif defined(__AVX2__) && defined(__FMA__)
  return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
#else
  return a * b + c;
#endif
}

constexpr int kTile = 4;  // vectors that share the loads of the others

// The lower triangle of E E^T behind the first vector itself: bottom [B, D], vectors [B, F, D] -> out [B, D + P].
template <int D>
void PairDots(const float *bottom, const float *vectors, float *out, int64_t batch, int64_t fields, int64_t pairs) {
  const int64_t count = fields + 1, width = (count + kLanes - 1) / kLanes * kLanes;
  const int64_t self = pairs == count * (count + 1) / 2;
  constexpr int64_t kSamples = 4;  // laid out together, so that no load meets a store still on its way
  const int64_t grain = std::max(kSamples, Grain(2 * fields * D) / kSamples * kSamples);
  Pool::Get().For(batch, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> transposed(kSamples * D * width, 0.f), rows(kTile * width);
    for (int64_t first = begin; first < end; first += kSamples) {
      const int64_t last = std::min(first + kSamples, end);
      for (int64_t b = first; b < last; ++b) {
        float *t = transposed.data() + (b - first) * D * width;
        for (int k = 0; k < D; ++k) t[k * width] = bottom[b * D + k];
        const float *from = vectors + b * fields * D;
        for (int64_t f = 0; f < fields; ++f)
          for (int k = 0; k < D; ++k) t[k * width + f + 1] = from[f * D + k];
      }
      for (int64_t b = first; b < last; ++b) {
        const float *t = transposed.data() + (b - first) * D * width;
        float *to = out + b * (D + pairs);
        std::memcpy(to, bottom + b * D, D * sizeof(float));
        to += D;
        for (int64_t i = 0; i < count; i += kTile) {
          const float *e[kTile];
          for (int r = 0; r < kTile; ++r) {
            const int64_t row = std::min(i + r, count - 1);
            e[r] = row ? vectors + (b * fields + row - 1) * D : bottom + b * D;
          }
          for (int64_t j = 0; j < std::min(i + kTile, count) - 1 + self; j += kLanes) {
            Lanes sums[kTile] = {};
            for (int k = 0; k < D; ++k) {
              const Lanes other = Load(t + k * width + j);
              for (int r = 0; r < kTile; ++r) sums[r] = MultiplyAdd(e[r][k], other, sums[r]);
            }
            for (int r = 0; r < kTile; ++r) Store(&rows[r * width + j], sums[r]);
          }
          for (int r = 0; r < kTile && i + r < count; ++r) {
            const int64_t dots = i + r + self;
            std::memcpy(to, &rows[r * width], dots * sizeof(float));
            to += dots;
          }
        }
      }
    }
  });
}

// Gradients of the above: dE = (G + G^T) E, each pair's gradient read from where it lies in the triangle.
template <int D>
void PairDotsGrad(const float *bottom, const float *vectors, const float *gradients, float *to_bottom,
                  float *to_vectors, int64_t batch, int64_t fields, int64_t pairs) {
  constexpr int kParts = D / kLanes;
  const int64_t count = fields + 1, self = pairs == count * (count + 1) / 2;
  std::vector<int64_t> row_start(count);
  for (int64_t i = 0; i < count; ++i) row_start[i] = i * (i - 1) / 2 + self * i;
  Pool::Get().For(batch, Grain(2 * fields * D), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float *g = gradients + b * (D + pairs) + D;
      const auto vector = [&](int64_t i) { return i ? vectors + (b * fields + i - 1) * D : bottom + b * D; };
      for (int64_t i = 0; i < count; i += kTile) {
        const int64_t tile_end = std::min(i + kTile, count);
        Lanes sums[kTile][kParts] = {};
        if (i == 0)
          for (int m = 0; m < kParts; ++m) sums[0][m] = Load(gradients + b * (D + pairs) + m * kLanes);
        const float *row[kTile];
        for (int r = 0; r < kTile; ++r) row[r] = g + row_start[std::min(i + r, count - 1)];
        for (int64_t j = 0; j < i; ++j)
          for (int m = 0; m < kParts; ++m) {
            const Lanes other = Load(vector(j) + m * kLanes);
            for (int r = 0; r < kTile; ++r) sums[r][m] = MultiplyAdd(row[r][j], other, sums[r][m]);
          }
        for (int64_t j = i; j < tile_end; ++j)
          for (int m = 0; m < kParts; ++m) {
            const Lanes other = Load(vector(j) + m * kLanes);
            for (int64_t p = i; p < tile_end; ++p) {
              if (p == j && !self) continue;
              const float pair = g[row_start[std::max(p, j)] + std::min(p, j)];
              sums[p - i][m] = MultiplyAdd(p == j ? 2 * pair : pair, other, sums[p - i][m]);
            }
          }
        for (int64_t j = tile_end; j < count; ++j)
          for (int m = 0; m < kParts; ++m) {
            const Lanes other = Load(vector(j) + m * kLanes);
            for (int r = 0; r < kTile; ++r) sums[r][m] = MultiplyAdd(g[row_start[j] + i + r], other, sums[r][m]);
          }
        for (int64_t p = i; p < tile_end; ++p) {
          float *to = p ? to_vectors + (b * fields + p - 1) * D : to_bottom + b * D;
          for (int m = 0; m < kParts; ++m) Store(to + m * kLanes, sums[p - i][m]);
        }
      }
    }
  });
}

}  // namespace

// bottom [B, D], vectors [B, F, D] -> [B, D + P]; D is 16, 32, 64 or 128.
OPERATOR(Interaction) {
  ARGUMENTS;
  const int64_t batch = shapes[1][0], fields = shapes[1][1], width = shapes[1][2], pairs = shapes[2][1] - width;
  const auto run = width == 16 ? PairDots<16> : width == 32 ? PairDots<32> : width == 64 ? PairDots<64> : PairDots<128>;
  run(arguments.At(0), arguments.At(1), arguments.At(2), batch, fields, pairs);
  return 0;
}

// bottom [B, D], vectors [B, F, D], gradient [B, D + P] -> gradients of bottom and of vectors.
OPERATOR(InteractionGrad) {
  ARGUMENTS;
  const int64_t batch = shapes[1][0], fields = shapes[1][1], width = shapes[1][2], pairs = shapes[2][1] - width;
  const auto run = width == 16   ? PairDotsGrad<16>
                   : width == 32 ? PairDotsGrad<32>
                   : width == 64 ? PairDotsGrad<64>
                                 : PairDotsGrad<128>;
  run(arguments.At(0), arguments.At(1), arguments.At(2), arguments.At(3), arguments.At(4), batch, fields, pairs);
  return 0;
}
