// Dropout, whose choices are a hash of their places, as src/network/dropout.py has it.

#ifndef DLRM_KERNELS_DROPOUT_H_
#define DLRM_KERNELS_DROPOUT_H_

#include <cstdint>

namespace {

// The hash of a number.
inline uint32_t Mix(uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

// Which values of a batch are dropped: those whose place has a hash below the limit.
struct Dropping {
  uint32_t key, limit, first;
  float scale;  // of the others

  void operator()(float *__restrict row, int64_t number, int64_t outputs) const {
    const uint32_t begin = first + static_cast<uint32_t>(number * outputs);
    for (int64_t k = 0; k < outputs; ++k) {
      const uint32_t hash = Mix((begin + static_cast<uint32_t>(k)) ^ key) & 0xffffff;
      const float scaled = row[k] * scale;  // always: see LayerGrad in layers.cc
      row[k] = hash < limit ? 0 : scaled;
    }
  }
};

}  // namespace

#endif  // DLRM_KERNELS_DROPOUT_H_
