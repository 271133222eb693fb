#include "row_files.h"

#include <utility>

#include "error.h"
#include "facts.h"
#include "files.h"
#include "tables.h"

namespace dlrm {
namespace {

Facts Index(const std::filesystem::path &folder) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(folder / kIndex, error)) {
    throw Error("input " + folder.string() +
                " holds no index, so nothing whole is there: run preprocess.py, or name its folder");
  }
  return Facts(folder / kIndex, "rows");
}

}  // namespace

std::string RowFiles::Vocabulary(const std::filesystem::path &folder) { return Index(folder).Text("vocabulary"); }

RowFiles::RowFiles(std::filesystem::path folder, const ModelFolder &model)
    : folder_(std::move(folder)), fields_(model.fields), dense_dim_(model.dense_dim), ids_(model.ids) {
  const std::string name = folder_.string();
  const Facts facts = Index(folder_);
  checksum_ = facts.checksum();
  if (facts.Text("vocabulary") != model.vocabulary) {
    throw Error("input " + name + " was coded with another vocabulary than the model's: run preprocess.py with it");
  }
  std::vector<uint64_t> table_rows, of_model;  // of each id
  for (const Field &field : fields_) of_model.insert(of_model.end(), field.ids, field.rows);
  for (const auto &line : facts.Lines("field", 1)) {
    table_rows.push_back(ParseNumber(line[0], kMostRows, name + ": rows of a field"));
  }
  if (facts.Number("dense", kMostColumns) != dense_dim_ || table_rows != of_model) {
    throw Error("input " + name + " has other columns or tables than the model: run preprocess.py with it");
  }
  for (const auto &line : facts.Lines("file")) {
    if (line.size() < 4) throw Error(name + "/index names a file without checksums: run preprocess.py again");
    if (line[0].empty() || line[0].find('/') != std::string::npos || line[0][0] == '.' || line[0] == kIndex) {
      throw Error(name + "/index names '" + line[0] + "', which is no file of rows: run preprocess.py again");
    }
    const uint64_t rows = ParseNumber(line[1], kMostAtOnce, name + "/index: rows of " + line[0]);
    files_.push_back({line[0], rows, rows_ + 1, line[2], line[3]});
    rows_ += rows;
  }
  if (rows_ == 0) throw Error("input " + name + " holds no row: give preprocess.py at least one");
}

Rows RowFiles::Read(size_t index) const {
  const File &file = files_[index];
  const Rows rows{file.rows, ReadValues<float>(folder_ / "dense" / file.name, file.rows * dense_dim_, file.dense_checksum),
                  ReadValues<int32_t>(folder_ / "ids" / file.name, file.rows * ids_, file.ids_checksum)};
  CheckIds(fields_, rows.ids.data(), rows.count, file.first_row);
  return rows;
}

}  // namespace dlrm
