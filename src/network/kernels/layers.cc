// Operators for the CPU that MindSpore's runtime calls through ops.Custom; src/cpu_kernels.py builds and names them.
//
// Legend: B batch, F fields, D width of a vector, R rows of all tables, V vectors that interact (F + 1), P their
// pairs, O outputs of a layer, M values of a parameter.
//
// Every operator has MindSpore's signature for functions compiled ahead of time and returns 0, or another number,
// which MindSpore reports as a failure. Parameters that an operator updates are among its inputs, and change in place.
// Sums run in an order that does not depend on the number of threads, so results repeat to the bit.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#endif

namespace {

// ---- Threads

// Runs parts of a loop on the calling thread and on helpers. Between jobs a helper watches for the next one about as
// long as MindSpore takes to the next operator, since to wake it takes longer than many a part, and then sleeps.
class Pool {
 public:
  static Pool &Get() {
    static Pool *pool = new Pool;  // never destroyed: its threads outlive main
    return *pool;
  }

  // Calls part(begin, end) for [0, count) in steps of `grain`. Parts may run at the same time.
  void For(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)> &part) {
    std::unique_lock<std::mutex> only(in_use_, std::try_to_lock);
    if (count <= grain || helpers_ == 0 || !only) {
      for (int64_t begin = 0; begin < count; begin += grain) part(begin, std::min(begin + grain, count));
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      part_ = &part;
      count_ = count;
      grain_ = grain;
      next_ = 0;
      open_ = true;
      ++job_;
    }
    if (asleep_) wake_.notify_all();
    Work(part, count, grain);
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;  // who has not begun by now need not
    while (busy_ > 0) {
      lock.unlock();
      for (int i = 0; i < kSpins && busy_ > 0; ++i) Pause();
      lock.lock();
      if (busy_ > 0) done_.wait_for(lock, std::chrono::microseconds(50));
    }
  }

 private:
  static constexpr int kSpins = 2000;  // some 30 microseconds

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  Pool() : helpers_(std::min(15, static_cast<int>(std::thread::hardware_concurrency()) - 1)) {
    for (int i = 0; i < helpers_; ++i) std::thread([this] { Loop(); }).detach();
  }

  void Work(const std::function<void(int64_t, int64_t)> &part, int64_t count, int64_t grain) {
    for (int64_t begin; (begin = next_.fetch_add(grain)) < count;) part(begin, std::min(begin + grain, count));
  }

  void Loop() {
    int64_t seen = 0;
    while (true) {
      for (int i = 0; i < kSpins && job_ == seen; ++i) Pause();
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      wake_.wait(lock, [&] { return job_ != seen; });
      --asleep_;
      seen = job_;
      if (!open_) continue;
      ++busy_;
      const auto *part = part_;
      const int64_t count = count_, grain = grain_;
      lock.unlock();
      Work(*part, count, grain);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  const int helpers_;
  std::mutex in_use_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t, int64_t)> *part_ = nullptr;
  int64_t count_ = 0, grain_ = 0;
  std::atomic<int64_t> next_{0}, job_{0};
  std::atomic<int> busy_{0}, asleep_{0};
  bool open_ = false;
};

// Values that are worth a part of their own.
constexpr int64_t kPartValues = 1 << 14;

int64_t Grain(int64_t values_each) { return std::max<int64_t>(1, kPartValues / std::max<int64_t>(1, values_each)); }

// ---- Vectors of one instruction

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

// ---- Interaction

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

// ---- Optimizers

// Each rule updates n values w by their gradients g and its states of these values, as src/optimizers.py writes it
// down. `rate` is the step's learning rate, with Adam's correction of the first steps in it. The constants: epsilon,
// weight decay, b1, 1 - b1, b2, 1 - b2.

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

// Updates each looked-up row once, by the sum of its gradients and `decay` times the row itself.
template <int D, typename Rule>
void UpdateRows(float *table, const int32_t *rows, const float *gradients, const Rule &rule, float decay,
                float *const *states, const int64_t *state_widths, int64_t places, int64_t any_width) {
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
      if (decay != 0)
        for (int64_t k = 0; k < width; ++k) sum[k] += decay * w[k];
      float *row_states[Rule::kStates + 1];
      for (int s = 0; s < Rule::kStates; ++s) row_states[s] = states[s] + row * state_widths[s];
      rule(w, sum, width, row_states);
    }
  });
}

// Plain SGD needs no sums: places in their order, the fields shared out, since no row is in two fields.
template <int D>
void SubtractRows(float *table, const int32_t *rows, const float *gradients, float rate, int64_t batch, int64_t fields,
                  int64_t any_width) {
  const int64_t width = D ? D : any_width;
  const int64_t share = batch * fields * width > kPartValues ? (fields + 3) / 4 : fields;
  Pool::Get().For(fields, share, [=](int64_t begin, int64_t end) {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t f = begin; f < end; ++f) {
        if (b + 1 < batch) __builtin_prefetch(table + rows[(b + 1) * fields + f] * width, 1);
        float *__restrict w = table + rows[b * fields + f] * width;
        const float *__restrict g = gradients + (b * fields + f) * width;
        for (int64_t k = 0; k < width; ++k) w[k] -= rate * g[k];
      }
  });
}

// ---- Layers

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

constexpr int64_t kPadded = 128, kPadding = 16;  // float32 values, as in src/cpu_kernels.py

// A matrix whose rows begin `stride` values apart. Columns behind the named ones are never read.
template <typename T>
struct Rows {
  T *data;
  int64_t stride;
  T *operator[](int64_t row) const { return data + row * stride; }
};

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

// src/dropout.py's hash of a number.
inline uint32_t Mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

// Which values of a batch are dropped, as src/dropout.py says it: those whose place has a hash below the limit.
struct Dropping {
  uint32_t key, limit, first;
  float scale;  // of the others

  void operator()(float *__restrict row, int64_t number, int64_t outputs) const {
    const uint32_t begin = first + static_cast<uint32_t>(number * outputs);
    for (int64_t k = 0; k < outputs; ++k) {
      const uint32_t hash = Mix((begin + static_cast<uint32_t>(k)) ^ key) & 0xffffff;
      const float scaled = row[k] * scale;  // always: see LayerGrad
      row[k] = hash < limit ? 0 : scaled;
    }
  }
};

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

// ---- What MindSpore calls

struct Arguments {
  void **data;
  int *dims;
  int64_t **shapes;

  template <typename T = float>
  T *At(int i) const {
    return static_cast<T *>(data[i]);
  }
  template <typename T = float>
  Rows<T> Matrix(int i) const {
    return {static_cast<T *>(data[i]), shapes[i][1]};
  }
  int64_t Size(int i) const {
    int64_t size = 1;
    for (int k = 0; k < dims[i]; ++k) size *= shapes[i][k];
    return size;
  }
};

// Inputs: table [R, D], rows [B, F] int32, gradients [B, F, D], rate, constants, states. Output: [1].
template <int D, typename Rule>
void UpdateTable(const Arguments &arguments) {
  const float rate = *arguments.At(3), *constants = arguments.At(4), decay = constants[1];
  float *table = arguments.At(0), *gradients = arguments.At(2);
  const int32_t *rows = arguments.At<int32_t>(1);
  const int64_t width = arguments.shapes[0][1];
  if (Rule::kStates == 0 && decay == 0) {
    SubtractRows<D>(table, rows, gradients, rate, arguments.shapes[1][0], arguments.shapes[1][1], width);
    return;
  }
  float *states[Rule::kStates + 1];
  int64_t widths[Rule::kStates + 1];
  for (int s = 0; s < Rule::kStates; ++s) {
    states[s] = arguments.At(5 + s);
    widths[s] = arguments.Size(5 + s) / arguments.shapes[0][0];
  }
  UpdateRows<D>(table, rows, gradients, Rule(rate, constants), decay, states, widths, arguments.Size(1), width);
}

template <typename Rule>
int UpdateTable(const Arguments &arguments) {
  arguments.shapes[0][1] == 16 ? UpdateTable<16, Rule>(arguments) : UpdateTable<0, Rule>(arguments);
  *arguments.At(5 + Rule::kStates) = 0;
  return 0;
}

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
  const float lost = *arguments.At(1) * arguments.At(2)[1];
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

#define OPERATOR(name) \
  extern "C" int name(int count, void **data, int *dims, int64_t **shapes, const char **, void *, void *)
#define ARGUMENTS const Arguments arguments{data, dims, shapes}; (void)count

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

OPERATOR(Linear) { ARGUMENTS; return RunLayer<false>(arguments); }
OPERATOR(LinearRelu) { ARGUMENTS; return RunLayer<true>(arguments); }
OPERATOR(LinearGrad) { ARGUMENTS; return RunLayerGrad<false>(arguments, count); }
OPERATOR(LinearReluGrad) { ARGUMENTS; return RunLayerGrad<true>(arguments, count); }
OPERATOR(LinearReluDrop) { ARGUMENTS; return RunLayerDrop(arguments); }
OPERATOR(LinearReluDropGrad) { ARGUMENTS; return RunLayerGrad<true, true>(arguments, count); }

// logits [B, 1], labels [B, 1] -> mean sigmoid cross entropy, a scalar.
OPERATOR(CrossEntropy) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1);
  double sum = 0;
  for (int64_t b = 0; b < shapes[0][0]; ++b)
    sum += std::max(logits[b], 0.f) - logits[b] * labels[b] + std::log1p(std::exp(-std::fabs(logits[b])));
  *arguments.At(2) = static_cast<float>(sum / shapes[0][0]);
  return 0;
}

// logits, labels, gradient of the above, a scalar -> gradient of the logits [B, 1].
OPERATOR(CrossEntropyGrad) {
  ARGUMENTS;
  const float *logits = arguments.At(0), *labels = arguments.At(1), scale = *arguments.At(2) / shapes[0][0];
  for (int64_t b = 0; b < shapes[0][0]; ++b) arguments.At(3)[b] = (1 / (1 + std::exp(-logits[b])) - labels[b]) * scale;
  return 0;
}

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

OPERATOR(TableSGD) { ARGUMENTS; return UpdateTable<SGD>(arguments); }
OPERATOR(TableAdagrad) { ARGUMENTS; return UpdateTable<Adagrad>(arguments); }
OPERATOR(TableRowwiseAdagrad) { ARGUMENTS; return UpdateTable<RowwiseAdagrad>(arguments); }
OPERATOR(TableAdam) { ARGUMENTS; return UpdateTable<Adam>(arguments); }
OPERATOR(DenseSGD) { ARGUMENTS; return UpdateDense<SGD>(arguments, count); }
OPERATOR(DenseAdagrad) { ARGUMENTS; return UpdateDense<Adagrad>(arguments, count); }
OPERATOR(DenseAdam) { ARGUMENTS; return UpdateDense<Adam>(arguments, count); }
