// The exported graph on MindSpore Lite.

#ifndef DLRM_INFER_NETWORK_H_
#define DLRM_INFER_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "model_folder.h"
#include "options.h"

namespace dlrm {

class Graph;  // of lite.h

class Network {
 public:
  // Loads the graph to take `block` rows at once, with so many threads of a CPU; throws Error where the device or the
  // graph is not as it should be.
  Network(const ModelFolder &model, const Options &options, uint64_t block, uint64_t threads);
  ~Network();

  // The inputs' own memory, to be filled before Run: dense [block, N] float32, and ids [block, F] int32 or
  // vectors [block, F, D] float32.
  float *dense();
  void *second();
  // Scores what the inputs hold; gives [block] float32, valid until the next Run.
  const float *Run();

 private:
  std::unique_ptr<Graph> graph_;
};

// Keeps this thread, and those that it starts from now on, on the processor that it is on. MindSpore Lite hands each
// request to a thread of its own, even if one is all it may use: to wake that up on another processor takes longer than
// to score one row. Where the system does not allow it, all stays as it was.
void StayOnOneProcessor();

}  // namespace dlrm

#endif  // DLRM_INFER_NETWORK_H_
