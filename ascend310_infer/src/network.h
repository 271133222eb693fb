// The exported graph on MindSpore Lite.

#ifndef DLRM_INFER_NETWORK_H_
#define DLRM_INFER_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "model_folder.h"
#include "options.h"

namespace dlrm {

class Network {
 public:
  // Loads the graph to take `block` rows at once; throws Error where the device or the graph is not as it should be.
  Network(const ModelFolder &model, const Options &options, uint64_t block);
  ~Network();

  // The inputs' own memory, to be filled before Run: dense [block, N] float32, and ids [block, F] int32 or
  // vectors [block, F, D] float32.
  float *dense();
  void *second();
  // Scores what the inputs hold; gives [block] float32, valid until the next Run.
  const float *Run();

 private:
  struct Lite;
  std::unique_ptr<Lite> lite_;
};

}  // namespace dlrm

#endif  // DLRM_INFER_NETWORK_H_
