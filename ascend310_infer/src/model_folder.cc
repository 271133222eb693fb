#include "model_folder.h"

#include <algorithm>
#include <set>
#include <system_error>

#include "error.h"
#include "facts.h"
#include "files.h"

namespace dlrm {
namespace {

namespace fs = std::filesystem;

constexpr char kRemedy[] = ": export the model again";

// The one description in a folder.
fs::path Description(const fs::path &folder, const fs::path &named) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto &entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".model") found.push_back(entry.path());
  }
  if (found.size() != 1) {
    throw Error("model " + named.string() + ": " + folder.string() + " holds " + std::to_string(found.size()) +
                " files named *.model, which export.py writes: name the graph in an exported model's folder");
  }
  return found.front();
}

// A field of a description: name and rows of the table, and where there are lists or shared tables also the table's
// number, the ids of a row, and how their vectors are pooled.
Field ParseField(const std::vector<std::string> &line, size_t place) {
  const std::string name = "field " + line[0] + ": ";
  const uint64_t rows = ParseNumber(line[1], kMostRows, name + "rows");
  if (line.size() == 2) return {rows, place, 1, Pool::kOne};
  const std::vector<std::string> pools = {"one", "sum", "mean", "max"};  // in the order of Pool
  const auto pool = std::find(pools.begin(), pools.end(), line[4]);
  if (pool == pools.end()) throw Error(name + "its vectors are pooled by '" + line[4] + "'" + kRemedy);
  return {rows, ParseNumber(line[2], kMostColumns, name + "table"), ParseNumber(line[3], kMostColumns, name + "ids"),
          static_cast<Pool>(pool - pools.begin())};
}

}  // namespace

fs::path ModelFolder::Inside(const fs::path &folder, const std::string &name) {
  const fs::path path(name);
  if (name.empty() || path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end()) {
    throw Error((folder / path).string() + " is no file in an exported model's folder" + kRemedy);
  }
  return folder / path;
}

void ModelFolder::CheckSize(const fs::path &path, const std::string &size, const std::string &remedy) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error || std::to_string(bytes) != size) {
    throw Error(path.string() + " is missing or has not its " + size + " bytes" + remedy);
  }
}

bool ModelFolder::HasFieldsOf(const ModelFolder &other) const {
  const auto alike = [](const Field &one, const Field &two) {
    return one.table == two.table && one.ids == two.ids && one.pool == two.pool;
  };
  return std::equal(fields.begin(), fields.end(), other.fields.begin(), other.fields.end(), alike);
}

void ModelFolder::Add(const Field &field) {
  if (field.table == table_rows.size()) table_rows.push_back(field.rows);
  ids += field.ids;
  if (field.table >= table_rows.size() || table_rows[field.table] != field.rows || field.ids == 0 ||
      ids > kMostColumns || (field.pool == Pool::kOne && field.ids != 1)) {
    throw Error("field " + std::to_string(fields.size() + 1) + " of the model contradicts the others" + kRemedy);
  }
  fields.push_back(field);
}

ModelFolder ModelFolder::Load(const fs::path &path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw Error("model " + path.string() + " is not there: name what export.py wrote");
  const bool is_folder = fs::is_directory(path, error);
  fs::path folder = is_folder ? path : path.parent_path();
  if (folder.empty()) folder = ".";
  ModelFolder model = Described(Description(folder, path), true);
  if (!is_folder && model.graph.filename() != path.filename()) {
    throw Error("model " + path.string() + " is not the graph of its folder, which is " + model.graph.string());
  }
  return model;
}

ModelFolder ModelFolder::Described(const fs::path &description, bool beside) {
  const fs::path folder = description.parent_path();
  const Facts facts(description, "model");
  if (facts.Text("format") != "MINDIR") {
    throw Error("the model in " + folder.string() + " is " + facts.Text("format") +
                ", and this program takes MindIR: export it with --file_format=MINDIR");
  }
  ModelFolder model;
  model.graph = Inside(folder, facts.Text("graph"));
  std::set<fs::path> files;
  for (const auto &line : facts.Lines("file", 3)) {
    const fs::path file = Inside(folder, line[0]);
    files.insert(file);
    CheckSize(file, line[1], kRemedy);
    if (FileChecksum(file) != line[2]) throw Error(file.string() + " is damaged (its checksum differs)" + kRemedy);
  }
  if (files.count(model.graph) == 0) {
    throw Error(model.graph.string() + " is not among the files of its description" + kRemedy);
  }
  const std::string placement = facts.Text("placement");
  if (placement != "graph" && placement != "host") {
    throw Error(folder.string() + ": the placement of the tables is '" + placement + "'" + kRemedy);
  }
  if (placement == "host") {
    const auto &line = facts.Lines("table", 3).front();
    model.table = Inside(folder, line[0]);
    if (beside) CheckSize(model.table, line[1], kRemedy);
    model.table_identity = line[2];
  }
  model.batch_size = facts.Number("batch_size", kMostAtOnce);
  model.dense_dim = facts.Number("dense", kMostColumns);
  model.width = facts.Number("width", kMostColumns);
  const auto &lines = facts.Lines("field");
  for (const auto &line : facts.Lines("field", !lines.empty() && lines.front().size() == 5 ? 5 : 2)) {
    model.Add(ParseField(line, model.fields.size()));
  }
  model.vocabulary = facts.Text("vocabulary");
  model.description = facts.checksum();
  return model;
}

}  // namespace dlrm
