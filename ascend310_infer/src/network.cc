#include "network.h"

#include <sched.h>

#include <cctype>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "quiet.h"
#if __has_include("include/cxx_api/model.h")  // MindSpore Lite after 2.7.1
#include "include/cxx_api/context.h"
#include "include/cxx_api/model.h"
#else
#include "include/api/context.h"
#include "include/api/model.h"
#endif

namespace dlrm {

namespace ms = mindspore;

struct Network::Lite {
  ms::Model model;
  std::vector<ms::MSTensor> inputs, outputs;
  uint64_t block;
  size_t dense, second;  // which of the inputs
};

namespace {

constexpr char kMore[] = "; GLOG_v=1 shows what MindSpore Lite says";

std::shared_ptr<ms::Context> MakeContext(const Options &options, uint64_t threads) {
  auto context = std::make_shared<ms::Context>();
  if (options.on_cpu()) {
    context->SetThreadNum(static_cast<int32_t>(threads));
    context->MutableDeviceInfo().push_back(std::make_shared<ms::CPUDeviceInfo>());
  } else {
    auto ascend = std::make_shared<ms::AscendDeviceInfo>();
    ascend->SetDeviceID(static_cast<uint32_t>(options.device_id));
    // By default all is float16. This way products are summed, and all else is done, in float32; factors of a matrix
    // product may still be rounded to float16, for the matrix unit of some cards takes no others. ("preferred_fp32" leaves
    // whole matrix products to float16: CANN's allow_fp32_to_fp16.)
    ascend->SetPrecisionMode("enforce_fp32");
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

std::string Words(const std::vector<int64_t> &shape) {
  std::string words;
  for (const int64_t size : shape) words += (words.empty() ? "[" : ", ") + std::to_string(size);
  return words + "]";
}

// Whether an input has a name: by itself, or behind that of its graph, as in "12_ScoreIds_construct_34:dense".
bool HasName(const std::string &found, const std::string &name) {
  const size_t at = found.rfind(name);
  return at != std::string::npos && at + name.size() == found.size() &&
         (at == 0 || (!std::isalnum(static_cast<unsigned char>(found[at - 1])) && found[at - 1] != '_'));
}

// Which input has a name; throws Error unless one has.
size_t Place(const std::string &graph, const std::vector<ms::MSTensor> &inputs, const std::string &name) {
  std::vector<size_t> places;
  std::string names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (HasName(inputs[i].Name(), name)) places.push_back(i);
    names += (i ? ", '" : "'") + inputs[i].Name() + "'";
  }
  if (places.size() != 1) throw Error(graph + " takes " + names + ", not '" + name + "': export the model again");
  return places[0];
}

// Refuses an input of another type or shape than the description's.
void CheckInput(const std::string &graph, ms::MSTensor *input, ms::DataType type, const std::vector<int64_t> &shape) {
  if (input->DataType() != type || input->Shape() != shape || !input->MutableData() ||
      input->DataSize() != static_cast<size_t>(input->ElementNum()) * 4) {
    throw Error(graph + ": input '" + input->Name() + "' takes values of type " +
                std::to_string(static_cast<int>(input->DataType())) + " and shape " + Words(input->Shape()) +
                ", its description says type " + std::to_string(static_cast<int>(type)) + " and shape " + Words(shape) +
                ": export the model again");
  }
}

}  // namespace

void StayOnOneProcessor() {
  const int processor = sched_getcpu();
  if (processor < 0 || processor >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof set, &set);
}

Network::Network(const ModelFolder &model, const Options &options, uint64_t block, uint64_t threads) : lite_(new Lite) {
  const Quiet quiet;
  lite_->block = block;
  const std::string graph = model.graph.string();
  const auto built = lite_->model.Build(graph, ms::kMindIR, MakeContext(options, threads));
  if (built != ms::kSuccess) {
    throw Error((options.on_cpu() ? "MindSpore Lite can't load " + graph + " (" + Words(built) +
                                        "): export it with the --mindir_version that this release reads"
                                  : "device_type Ascend with device_id " + std::to_string(options.device_id) +
                                        ": MindSpore Lite can't load " + graph + " (" + Words(built) +
                                        "): is there a card, with driver and CANN? Else give --device_type=CPU") +
                kMore);
  }
  lite_->inputs = lite_->model.GetInputs();
  if (lite_->inputs.size() != 2) throw Error(graph + " does not take two inputs: export the model again");
  lite_->dense = Place(graph, lite_->inputs, "dense");
  lite_->second = Place(graph, lite_->inputs, model.on_host() ? "vectors" : "ids");
  if (block != model.batch_size) {
    std::vector<std::vector<int64_t>> shapes;
    for (const auto &input : lite_->inputs) {
      shapes.push_back(input.Shape());
      if (!shapes.back().empty()) shapes.back()[0] = static_cast<int64_t>(block);
    }
    const auto resized = lite_->model.Resize(lite_->inputs, shapes);
    if (resized != ms::kSuccess) {
      throw Error(graph + " can't take " + std::to_string(block) + " rows at once (" + Words(resized) +
                  "): leave --batch_size away" + kMore);
    }
    lite_->inputs = lite_->model.GetInputs();
  }
  const auto rows = static_cast<int64_t>(block);
  CheckInput(graph, &lite_->inputs[lite_->dense], ms::DataType::kNumberTypeFloat32, {rows, static_cast<int64_t>(model.dense_dim)});
  if (model.on_host()) {
    CheckInput(graph, &lite_->inputs[lite_->second], ms::DataType::kNumberTypeFloat32,
               {rows, static_cast<int64_t>(model.fields.size()), static_cast<int64_t>(model.width)});
  } else {
    CheckInput(graph, &lite_->inputs[lite_->second], ms::DataType::kNumberTypeInt32, {rows, static_cast<int64_t>(model.ids)});
  }
}

Network::~Network() = default;

float *Network::dense() { return static_cast<float *>(lite_->inputs[lite_->dense].MutableData()); }

void *Network::second() { return lite_->inputs[lite_->second].MutableData(); }

const float *Network::Run() {
  const Quiet quiet;
  const auto status = lite_->model.Predict(lite_->inputs, &lite_->outputs);
  if (status != ms::kSuccess) {
    throw Error("MindSpore Lite can't score (" + Words(status) + "): export the model again" + kMore);
  }
  auto &outputs = lite_->outputs;
  const void *scores = outputs.size() == 1 ? outputs[0].MutableData() : nullptr;
  if (!scores || outputs[0].DataType() != ms::DataType::kNumberTypeFloat32 ||
      outputs[0].DataSize() != lite_->block * sizeof(float)) {
    throw Error("the graph does not give a float32 score a row: export the model again");
  }
  return static_cast<const float *>(scores);
}

}  // namespace dlrm
