#include "lite.h"

#include <cctype>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#if __has_include("include/cxx_api/model.h")  // MindSpore Lite after 2.7.1
#include "include/cxx_api/context.h"
#include "include/cxx_api/model.h"
#else
#include "include/api/context.h"
#include "include/api/model.h"
#endif

namespace dlrm {

namespace ms = mindspore;

namespace {

constexpr char kMore[] = "; GLOG_v=1 shows what MindSpore Lite says";

std::shared_ptr<ms::Context> MakeContext(const GraphSpec &spec) {
  auto context = std::make_shared<ms::Context>();
  if (spec.on_cpu) {
    context->SetThreadNum(static_cast<int32_t>(spec.threads));
    context->MutableDeviceInfo().push_back(std::make_shared<ms::CPUDeviceInfo>());
  } else {
    auto ascend = std::make_shared<ms::AscendDeviceInfo>();
    ascend->SetDeviceID(static_cast<uint32_t>(spec.device_id));
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

class LiteGraph : public Graph {
 public:
  explicit LiteGraph(const GraphSpec &spec) : block_(spec.block) {
    const auto built = model_.Build(spec.path, ms::kMindIR, MakeContext(spec));
    if (built != ms::kSuccess) {
      throw Error((spec.on_cpu ? "MindSpore Lite can't load " + spec.path + " (" + Words(built) +
                                     "): export it with the --mindir_version that this release reads"
                               : "device_type Ascend with device_id " + std::to_string(spec.device_id) +
                                     ": MindSpore Lite can't load " + spec.path + " (" + Words(built) +
                                     "): is there a card, with driver and CANN? Else give --device_type=CPU") +
                  kMore);
    }
    inputs_ = model_.GetInputs();
    if (inputs_.size() != 2) throw Error(spec.path + " does not take two inputs: export the model again");
    dense_ = Place(spec.path, inputs_, "dense");
    second_ = Place(spec.path, inputs_, spec.takes_vectors ? "vectors" : "ids");
    if (spec.block != spec.batch_size) Resize(spec);
    const auto rows = static_cast<int64_t>(spec.block);
    CheckInput(spec.path, &inputs_[dense_], ms::DataType::kNumberTypeFloat32, {rows, static_cast<int64_t>(spec.dense_dim)});
    if (spec.takes_vectors) {
      CheckInput(spec.path, &inputs_[second_], ms::DataType::kNumberTypeFloat32,
                 {rows, static_cast<int64_t>(spec.fields), static_cast<int64_t>(spec.width)});
    } else {
      CheckInput(spec.path, &inputs_[second_], ms::DataType::kNumberTypeInt32, {rows, static_cast<int64_t>(spec.ids)});
    }
  }

  float *dense() override { return static_cast<float *>(inputs_[dense_].MutableData()); }

  void *second() override { return inputs_[second_].MutableData(); }

  const float *Run() override {
    const auto status = model_.Predict(inputs_, &outputs_);
    if (status != ms::kSuccess) {
      throw Error("MindSpore Lite can't score (" + Words(status) + "): export the model again" + kMore);
    }
    const void *scores = outputs_.size() == 1 ? outputs_[0].MutableData() : nullptr;
    if (!scores || outputs_[0].DataType() != ms::DataType::kNumberTypeFloat32 ||
        outputs_[0].DataSize() != block_ * sizeof(float)) {
      throw Error("the graph does not give a float32 score a row: export the model again");
    }
    return static_cast<const float *>(scores);
  }

 private:
  void Resize(const GraphSpec &spec) {
    std::vector<std::vector<int64_t>> shapes;
    for (const auto &input : inputs_) {
      shapes.push_back(input.Shape());
      if (!shapes.back().empty()) shapes.back()[0] = static_cast<int64_t>(spec.block);
    }
    const auto resized = model_.Resize(inputs_, shapes);
    if (resized != ms::kSuccess) {
      throw Error(spec.path + " can't take " + std::to_string(spec.block) + " rows at once (" + Words(resized) +
                  "): leave --batch_size away" + kMore);
    }
    inputs_ = model_.GetInputs();
  }

  ms::Model model_;
  std::vector<ms::MSTensor> inputs_, outputs_;
  uint64_t block_;
  size_t dense_ = 0, second_ = 0;  // which of the inputs
};

}  // namespace

extern "C" Graph *LOAD_GRAPH(const GraphSpec &spec) { return new LiteGraph(spec); }

}  // namespace dlrm
