#include "network.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "include/api/context.h"
#include "include/api/model.h"

namespace dlrm {

namespace ms = mindspore;

struct Network::Lite {
  ms::Model model;
  std::vector<ms::MSTensor> inputs, outputs;
  uint64_t block;
};

namespace {

// As long as there is one, what MindSpore Lite prints to stderr, several lines for a failure, is dropped, unless GLOG_v asks
// for it: what fails is told in one line of ours. (Its log level is read before main.)
class Quiet {
 public:
  Quiet() {
    if (std::getenv("GLOG_v")) return;
    kept_ = dup(STDERR_FILENO);
    const int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nothing >= 0) dup2(nothing, STDERR_FILENO);
    if (nothing >= 0) close(nothing);
  }
  Quiet(const Quiet &) = delete;
  Quiet &operator=(const Quiet &) = delete;
  ~Quiet() {
    if (kept_ < 0) return;
    dup2(kept_, STDERR_FILENO);
    close(kept_);
  }

 private:
  int kept_ = -1;
};

std::shared_ptr<ms::Context> MakeContext(const Options &options) {
  auto context = std::make_shared<ms::Context>();
  if (options.on_cpu()) {
    context->SetThreadNum(static_cast<int32_t>(options.threads));
    context->MutableDeviceInfo().push_back(std::make_shared<ms::CPUDeviceInfo>());
  } else {
    auto ascend = std::make_shared<ms::AscendDeviceInfo>();
    ascend->SetDeviceID(static_cast<uint32_t>(options.device_id));
    ascend->SetPrecisionMode("preferred_fp32");  // else all is computed in float16; where a card can't do float32, it still is
    context->MutableDeviceInfo().push_back(ascend);
  }
  return context;
}

// What MindSpore Lite said of a call, in one line.
std::string Words(const ms::Status &status) {
  std::string words = status.ToString();
  for (char &sign : words) sign = sign == '\n' || sign == '\r' ? ' ' : sign;
  return words;
}

}  // namespace

Network::Network(const ModelFolder &model, const Options &options, uint64_t block) : lite_(new Lite) {
  const Quiet quiet;
  lite_->block = block;
  const std::string graph = model.graph.string();
  const auto built = lite_->model.Build(graph, ms::kMindIR, MakeContext(options));
  if (built != ms::kSuccess) {
    throw Error(options.on_cpu() ? "MindSpore Lite can't load " + graph + " (" + Words(built) +
                                       "): export it with the --mindir_version that this release reads"
                                 : "device_type Ascend with device_id " + std::to_string(options.device_id) +
                                       ": MindSpore Lite can't load " + graph + " (" + Words(built) +
                                       "): is there a card, with driver and CANN? Else give --device_type=CPU");
  }
  lite_->inputs = lite_->model.GetInputs();
  if (lite_->inputs.size() != 2) throw Error(graph + " does not take two inputs: export the model again");
  if (block != model.batch_size) {
    std::vector<std::vector<int64_t>> shapes;
    for (const auto &input : lite_->inputs) {
      shapes.push_back(input.Shape());
      shapes.back().at(0) = static_cast<int64_t>(block);
    }
    const auto resized = lite_->model.Resize(lite_->inputs, shapes);
    if (resized != ms::kSuccess) {
      throw Error(graph + " can't take " + std::to_string(block) + " rows at once (" + Words(resized) +
                  "): leave --batch_size away");
    }
    lite_->inputs = lite_->model.GetInputs();
  }
  const size_t second = block * model.fields() * (model.on_host() ? model.width : 1);
  const size_t expected[] = {block * model.dense_dim * sizeof(float), second * 4};
  for (size_t i = 0; i < 2; ++i) {
    auto &input = lite_->inputs[i];
    if (input.DataSize() != expected[i] || !input.MutableData()) {
      throw Error(graph + ": input " + std::to_string(i) + " takes " + std::to_string(input.DataSize()) +
                  " bytes, its description says " + std::to_string(expected[i]) + ": export the model again");
    }
  }
}

Network::~Network() = default;

float *Network::dense() { return static_cast<float *>(lite_->inputs[0].MutableData()); }

void *Network::second() { return lite_->inputs[1].MutableData(); }

const float *Network::Run() {
  const auto status = lite_->model.Predict(lite_->inputs, &lite_->outputs);
  if (status != ms::kSuccess) throw Error("MindSpore Lite can't score (" + Words(status) + ")");
  if (lite_->outputs.size() != 1 || lite_->outputs[0].DataSize() != lite_->block * sizeof(float)) {
    throw Error("the graph does not give a score a row: export the model again");
  }
  return static_cast<const float *>(lite_->outputs[0].MutableData());
}

}  // namespace dlrm
