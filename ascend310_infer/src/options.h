// The command line.

#ifndef DLRM_INFER_OPTIONS_H_
#define DLRM_INFER_OPTIONS_H_

#include <cstdint>
#include <filesystem>
#include <string>

namespace dlrm {

struct Options {
  std::filesystem::path model, input, output = ".", follow;
  std::string device_type = "Ascend";
  uint64_t device_id = 0;
  uint64_t batch_size = 0;  // 0: the model's
  uint64_t threads = 0;     // 0: as many as gain something, at most one for each processor
  bool help = false;

  bool on_cpu() const { return device_type == "CPU"; }

  // Throws Error for an unknown or repeated option, or a value that is none.
  static Options Parse(int argc, char **argv);
};

extern const char kHelp[];

}  // namespace dlrm

#endif  // DLRM_INFER_OPTIONS_H_
