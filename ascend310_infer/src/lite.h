// What the program asks of MindSpore Lite, which has a library of its own beside the program: to load Lite takes as long as
// to score thousands of rows, and --help and most refusals need none of it.

#ifndef DLRM_INFER_LITE_H_
#define DLRM_INFER_LITE_H_

#include <cstdint>
#include <string>

namespace dlrm {

// A graph as its description has it, and how it is to run.
struct GraphSpec {
  std::string path;
  uint64_t batch_size, dense_dim;
  uint64_t fields, width, ids;  // vectors of a row, their values, and ids of a row
  bool takes_vectors;           // or else ids
  bool on_cpu;                  // or else on an Ascend card
  uint64_t device_id;
  uint64_t block, threads;  // rows at once, and threads of a CPU
};

// A loaded graph; see Network.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual float *dense() = 0;
  virtual void *second() = 0;
  virtual const float *Run() = 0;
};

// The library's one function, LOAD_GRAPH. A part of its name is the checksum of this file, so that the library of another
// build is refused. It throws Error where the device or the graph is not as it should be.
using LoadGraph = Graph *(const GraphSpec &);

}  // namespace dlrm

#endif  // DLRM_INFER_LITE_H_
