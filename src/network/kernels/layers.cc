// Fully connected layers, with or without ReLU and dropout behind them, and their gradients. oneDNN multiplies; what
// follows is done with each part of a product while it is in the caches.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "dropout.h"
#include "operator.h"
#include "pool.h"

namespace {

// oneDNN's matrix product, from the library that MindSpore brings along: row-major C = op(A) op(B), on the calling
// thread alone where it gets no pool of threads.
extern "C" int dnnl_threadpool_interop_sgemm(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha,
                                             const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                             float *c, int64_t ldc, void *thread_pool);

// C [M, N] = op(A) op(B) with op(A) [M, K], op(B) [K, N]; 0, or oneDNN's status.
int Multiply(char transa, char transb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
             int64_t ldb, float *c, int64_t ldc) {
  return dnnl_threadpool_interop_sgemm(transa, transb, m, n, k, 1.f, a, lda, b, ldb, 0.f, c, ldc, nullptr);
}

// A part of a matrix product: a quarter, but so many rows at least that laying out the other factor pays, and few
// enough to stay in the caches between the product and what follows it.
int64_t PartRows(int64_t rows) { return std::min<int64_t>(1024, std::max<int64_t>(64, (rows + 3) / 4)); }

constexpr int64_t kPadded = 128, kPadding = 16;  // float32 values, as in src/network/cpu_kernels.py

// Rows of such a length that they share few sets of the caches: products whose inner loop goes down the columns take up
// to twice the time. The same rows with a gap between them, valid until the next call on this thread.
Rows<const float> Spread(const float *values, int64_t rows, int64_t width) {
  if (width % kPadded) return {values, width};
  static thread_local std::vector<float> copy;
  copy.resize(rows * (width + kPadding));
  float *to = copy.data();
  Pool::Get().For(rows, Grain(width), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + i * (width + kPadding), values + i * width, width * sizeof(float));
  });
  return {to, width + kPadding};
}

// x [B, I], weight [O, I], bias [O] -> out [B, O] = x W^T + b, negative results as 0 if kRelu, and what is dropped,
// unless that is null. Returns 0 or a status.
template <bool kRelu>
int Layer(Rows<const float> x, const float *weight, const float *bias, Rows<float> out, int64_t batch, int64_t inputs,
          int64_t outputs, const Dropping *dropping) {
  std::atomic<int> status{0};
  Pool::Get().For(batch, PartRows(batch), [&](int64_t begin, int64_t end) {
    if (const int failed = Multiply('N', 'T', end - begin, outputs, inputs, x[begin], x.stride, weight, inputs,
                                    out[begin], out.stride))
      status = failed;
    for (int64_t b = begin; b < end; ++b) {
      float *__restrict row = out[b];
      for (int64_t k = 0; k < outputs; ++k) {
        const float sum = row[k] + bias[k];
        row[k] = kRelu && sum <= 0 ? 0 : sum;  // nan stays, and shows in the loss
      }
      if (dropping) (*dropping)(row, b, outputs);
    }
  });
  return status;
}

// Gradients of the above from that of its result, [B, O]: of weight, bias, and x where to_x is not null. With kRelu the
// gradient of the product itself is laid out in to_product; without, to_product is the gradient. With kRelu the result
// was multiplied with `scale` where it is not 0. Returns 0 or a status.
template <bool kRelu>
int LayerGrad(Rows<const float> x, const float *weight, Rows<const float> result, Rows<const float> gradient,
              float *to_weight, float *to_bias, Rows<float> to_x, Rows<float> to_product, int64_t batch,
              int64_t inputs, int64_t outputs, float scale) {
  std::atomic<int> status{0};
  const Rows<const float> spread = to_x.data ? Spread(weight, outputs, inputs) : Rows<const float>{weight, inputs};
  const int64_t grain = PartRows(batch);
  std::vector<float> sums((batch + grain - 1) / grain * outputs, 0.f);  // of each part, added up in order below
  Pool::Get().For(batch, grain, [&](int64_t begin, int64_t end) {
    float *__restrict sum = sums.data() + begin / grain * outputs;
    for (int64_t b = begin; b < end; ++b) {
      const float *__restrict g = gradient[b];
      if constexpr (kRelu) {
        const float *__restrict shown = result[b];
        float *__restrict product = to_product[b];
        for (int64_t k = 0; k < outputs; ++k) {
          const float scaled = g[k] * scale;  // always, else the loop is not vectorised: it might trap
          product[k] = shown[k] <= 0 ? 0 : scaled;
          sum[k] += product[k];
        }
      } else {
        for (int64_t k = 0; k < outputs; ++k) sum[k] += g[k];
      }
    }
    if (!to_x.data) return;
    if (const int failed = Multiply('N', 'N', end - begin, inputs, outputs, to_product[begin], to_product.stride,
                                    spread.data, spread.stride, to_x[begin], to_x.stride))
      status = failed;
  });
  Pool::Get().For(outputs, std::max<int64_t>(64, (outputs + 3) / 4), [&](int64_t begin, int64_t end) {
    if (const int failed = Multiply('T', 'N', end - begin, inputs, batch, to_product.data + begin, to_product.stride,
                                    x.data, x.stride, to_weight + begin * inputs, inputs))
      status = failed;
    for (int64_t k = begin; k < end; ++k) {
      to_bias[k] = 0;
      for (size_t part = 0; part < sums.size(); part += outputs) to_bias[k] += sums[part + k];
    }
  });
  return status;
}

// Inputs: x [B, I'], weight [O, I], bias [O]. Output: [B, O']; rows may be longer than the I and O values in use.
template <bool kRelu>
int RunLayer(const Arguments &arguments) {
  int64_t **shapes = arguments.shapes;
  return Layer<kRelu>(arguments.Matrix<const float>(0), arguments.At(1), arguments.At(2), arguments.Matrix(3),
                      shapes[0][0], shapes[1][1], shapes[1][0], nullptr);
}

// The same with dropout behind a ReLU; further inputs: step [1] int32, settings (key, limit, rank) int32, scale [1].
int RunLayerDrop(const Arguments &arguments) {
  int64_t **shapes = arguments.shapes;
  const auto *step = arguments.At<uint32_t>(3), *settings = arguments.At<uint32_t>(4);
  const uint32_t first = settings[2] * static_cast<uint32_t>(shapes[0][0] * shapes[1][0]);
  const Dropping dropping{Mix(*step ^ settings[0]), settings[1], first, *arguments.At(5)};
  return Layer<true>(arguments.Matrix<const float>(0), arguments.At(1), arguments.At(2), arguments.Matrix(6),
                     shapes[0][0], shapes[1][1], shapes[1][0], &dropping);
}

// Inputs: x, weight, result if kRelu, the result's gradient [B, O'], and if kDrop the scale. Outputs: the gradients of
// weight and bias, of the product [B, O'] if kRelu, and of x [B, I'] unless it is left out.
template <bool kRelu, bool kDrop = false>
int RunLayerGrad(const Arguments &arguments, int count) {
  const int gradient = kRelu ? 3 : 2, to_weight = gradient + 1 + kDrop, to_x = to_weight + (kRelu ? 3 : 2);
  int64_t **shapes = arguments.shapes;
  const Rows<float> nothing{nullptr, 0};
  return LayerGrad<kRelu>(
      arguments.Matrix<const float>(0), arguments.At(1), arguments.Matrix<const float>(2),
      arguments.Matrix<const float>(gradient), arguments.At(to_weight), arguments.At(to_weight + 1),
      to_x < count ? arguments.Matrix(to_x) : nothing, arguments.Matrix(kRelu ? to_weight + 2 : gradient),
      shapes[0][0], shapes[1][1], shapes[1][0], kDrop ? *arguments.At(4) : 1.f);
}

}  // namespace

OPERATOR(Linear) { ARGUMENTS; return RunLayer<false>(arguments); }
OPERATOR(LinearRelu) { ARGUMENTS; return RunLayer<true>(arguments); }
OPERATOR(LinearGrad) { ARGUMENTS; return RunLayerGrad<false>(arguments, count); }
OPERATOR(LinearReluGrad) { ARGUMENTS; return RunLayerGrad<true>(arguments, count); }
OPERATOR(LinearReluDrop) { ARGUMENTS; return RunLayerDrop(arguments); }
OPERATOR(LinearReluDropGrad) { ARGUMENTS; return RunLayerGrad<true, true>(arguments, count); }
